package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
)

// collection is one run of the collector. docs/gc.md has the protocol and why
// it loses nothing.
type collection struct {
	db    *DB
	now   time.Time
	grace time.Duration
	stats gc.Stats
	errs  []error

	// seen is how much had changed when the snapshot was taken.
	seen uint64
	// next is when the first thing ends that kept something.
	next time.Time
	// borrowed is the content that ingestions have taken over, by namespace.
	borrowed map[string][]digestKey
	graphs   []*nodeGraph
	// over are ingestions that nothing seems to keep.
	over []*ingest
	// unfinished is whether something was left that the next collection should
	// look at even if nothing changes.
	unfinished bool
}

// GarbageCollect removes what nothing needs any more: records that no root,
// lease, ingestion or grace period keeps, leases and ingestions whose time is
// over, and bytes that no namespace holds, whoever left them.
//
// Writers and readers go on meanwhile. What they write, refer to, lease or are
// told exists while a collection runs is kept by it. Content is safe for
// Options.Grace after it was written, or was found to be there by a Writer.
//
// A failure to remove one thing is returned and does not keep the others; the
// next collection tries again. When ctx ends, so does the collection: what was
// removed stays removed, the rest is for the next one, and ctx's error is
// returned. Stats tell what was done in any case. One collection runs at a time;
// a second call waits for its turn or for its ctx. If nothing has changed since
// the last one, a collection costs next to nothing. It can't be called inside
// Update.
func (db *DB) GarbageCollect(ctx context.Context, opts ...gc.Option) (gc.Stats, error) {
	if err := errors.Join(db.ready(ctx), db.shut()); err != nil {
		return gc.Stats{}, err
	}
	if transactionFrom(ctx, db) != nil {
		return gc.Stats{}, fmt.Errorf("collect inside Update: %w", errdefs.ErrFailedPrecondition)
	}
	ctx, stop := db.untilClosed(ctx)
	defer stop()
	if err := db.sweep.turn.take(ctx); err != nil {
		return gc.Stats{}, errors.Join(db.alive(), err)
	}
	defer db.sweep.turn.Unlock()
	c := db.newCollection(gc.NewOptions(opts...))
	started := time.Now()
	err := c.run(ctx)
	c.stats.Elapsed = time.Since(started)
	c.stats.Errors = len(c.errs)
	return c.stats, errors.Join(append(c.errs, err)...)
}

// untilClosed returns a context that ends with ctx or when Close is called.
func (db *DB) untilClosed(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(db.closing, cancel)
	return ctx, func() { forget(); cancel() }
}

func (db *DB) newCollection(o gc.Options) *collection {
	c := &collection{db: db, now: db.now(), grace: db.opts.Grace}
	if o.Grace != nil {
		c.grace = *o.Grace
	}
	c.stats.Namespaces = map[string]gc.NamespaceStats{}
	return c
}

func (c *collection) run(ctx context.Context) error {
	if err := c.db.flush(ctx); err != nil {
		return err
	}
	c.hearRawStore()
	if c.atRest() {
		return nil
	}
	c.db.sweep.rest.valid = false
	expiry := c.db.expiry.take()
	err := c.collect(ctx)
	if err != nil || len(c.errs) > 0 {
		c.db.expiry.advance(expiry)
		return err
	}
	c.db.expiry.advance(c.next)
	c.db.sweep.rest = rest{valid: !c.unfinished, grace: c.grace, mutations: c.seen, next: c.next}
	return nil
}

func (c *collection) collect(ctx context.Context) error {
	defer c.db.barrier.lower()
	if err := c.timed(&c.stats.Mark, c.mark)(ctx); err != nil {
		return err
	}
	if err := c.timed(&c.stats.Unlink, c.unlink)(ctx); err != nil {
		return err
	}
	// What was noted has been kept, though it may be garbage: look again.
	c.unfinished = c.unfinished || c.db.barrier.heard()
	c.db.barrier.lower()
	return c.timed(&c.stats.Sweep, c.sweepAll)(ctx)
}

// timed makes a phase note how long it took.
func (c *collection) timed(took *time.Duration, phase func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		started := time.Now()
		defer func() { *took = time.Since(started) }()
		return phase(ctx)
	}
}

// note keeps an error that does not end the collection.
func (c *collection) note(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// rest is what a complete collection knows of the next: as long as nothing has
// changed and nothing has ended, there is nothing to do.
type rest struct {
	valid     bool
	grace     time.Duration
	mutations uint64
	next      time.Time
}

func (c *collection) atRest() bool {
	r := c.db.sweep.rest
	return r.valid && r.grace == c.grace && r.mutations == c.db.activity.mutations.Load() &&
		(r.next.IsZero() || c.now.Before(r.next)) && !c.db.sweep.hasSuspects() && stages(c.db.blobs)
}

// mark finds what is reachable in every namespace of a snapshot. The barrier is
// up when it returns, even with an error.
func (c *collection) mark(ctx context.Context) error {
	tx, seen, err := c.db.snapshot(ctx)
	if err != nil {
		return err
	}
	defer c.db.endRead(tx)
	c.seen = seen
	return c.db.guard(func() error {
		if err := c.considerIngests(tx); err != nil {
			return err
		}
		names, err := namespaceNames(tx)
		if err != nil {
			return err
		}
		for _, ns := range names {
			g, err := c.markNamespace(ctx, tx, ns)
			if err != nil {
				return err
			}
			var next time.Time
			if next, g.leasesOver, err = leaseExpiry(tx, ns, c.now); err != nil {
				return err
			}
			c.next = earliest(c.next, earliest(g.nextExpiry, next))
			c.stats.Live += g.marks.Live()
			c.graphs = append(c.graphs, g)
		}
		c.note(damages(c.graphs))
		return nil
	})
}

func namespaceNames(tx *bolt.Tx) (names []string, err error) {
	err = tx.Bucket(bucketNamespaces).ForEach(func(name, _ []byte) error {
		names = append(names, string(name))
		return nil
	})
	return names, err
}

// considerIngests finds the ingestions that are over, and what is taken over by
// the others.
func (c *collection) considerIngests(tx *bolt.Tx) error {
	c.borrowed = map[string][]digestKey{}
	leased := map[string]map[string]bool{}
	for _, e := range c.db.ingests.list(func(*ingest) bool { return true }) {
		ns := e.key.ns
		if leased[ns] == nil {
			held, err := leasedIngests(tx, ns, c.now)
			if err != nil {
				return err
			}
			leased[ns] = held
		}
		c.considerIngest(e, leased[ns][e.key.ref])
	}
	return nil
}

func (c *collection) considerIngest(e *ingest, leased bool) {
	record, open := c.db.ingests.state(e)
	if !open && !leased {
		c.next = earliest(c.next, record.expires)
		if c.now.After(record.expires) {
			c.over = append(c.over, e)
			return
		}
	}
	if key, err := newDigestKey(record.borrowed); err == nil {
		c.borrowed[e.key.ns] = append(c.borrowed[e.key.ns], key)
	}
}

// expireIngests drops the ingestions that are over. One that is in use again, or
// that a lease turns out to hold, stays; what it has taken over was not marked
// for it, and counts as noted.
func (c *collection) expireIngests(ctx context.Context) error {
	for _, e := range c.over {
		if err := ctx.Err(); err != nil {
			return err
		}
		removed, err := c.db.expire(ctx, e)
		if err != nil {
			c.note(fmt.Errorf("remove ingestion %s in %q: %w", cellar.Shorten(e.key.ref), e.key.ns, err))
		}
		if removed {
			c.count(e.key.ns, func(n *gc.NamespaceStats) { n.Ingests++ })
			c.stats.Ingests++
			continue
		}
		c.unfinished = true
		if record, _ := c.db.ingests.state(e); record.borrowed != "" {
			if key, err := newDigestKey(record.borrowed); err == nil {
				c.db.barrier.note(e.key.ns, key)
			}
		}
	}
	return nil
}

// count changes what the stats say of one namespace.
func (c *collection) count(ns string, change func(*gc.NamespaceStats)) {
	n := c.stats.Namespaces[ns]
	change(&n)
	c.stats.Namespaces[ns] = n
}
