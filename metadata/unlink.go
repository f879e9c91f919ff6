package metadata

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
)

// Unlinking deletes records in many small transactions, between which writers
// get their turn. How many go into one follows from how long the last one took.
const (
	unlinkFirst = 128
	unlinkLeast = 16
	unlinkMost  = 1024
	// unlinkTime is what one transaction should take.
	unlinkTime = 10 * time.Millisecond
)

// unlink deletes the records that were found unreachable, and leases and
// ingestions that are over.
func (c *collection) unlink(ctx context.Context) error {
	if err := c.expireIngests(ctx); err != nil {
		return err
	}
	for _, g := range c.graphs {
		if g.leasesOver {
			if err := c.dropLeases(ctx, g.ns); err != nil {
				return err
			}
		}
		if g.damaged != nil {
			continue
		}
		if err := c.unlinkNamespace(ctx, g); err != nil {
			return err
		}
		g.marks, g.keys, g.edged = nil, gc.Keys{}, nil
	}
	return nil
}

// dropLeases deletes the leases of a namespace that have expired.
func (c *collection) dropLeases(ctx context.Context, ns string) error {
	var after []byte
	for {
		var dropped int
		var next []byte
		var began time.Time
		err := c.db.mutate(ctx, &mutation{
			collector: true,
			apply: func(tx *bolt.Tx) (err error) {
				began = time.Now()
				dropped, next, err = dropExpiredLeases(tx, ns, c.now, after)
				return err
			},
			committed: func() { c.stalled(time.Since(began)) },
		})
		if err != nil {
			return err
		}
		if dropped > 0 {
			c.count(ns, func(n *gc.NamespaceStats) { n.Leases += dropped })
			c.stats.Leases += dropped
		}
		if next == nil {
			return nil
		}
		after = next
	}
}

// stalled notes for how long writers had to wait for a transaction of the
// collection.
func (c *collection) stalled(took time.Duration) {
	c.stats.LongestStall = max(c.stats.LongestStall, took)
}

func (c *collection) unlinkNamespace(ctx context.Context, g *nodeGraph) error {
	size := unlinkFirst
	for from := 0; ; {
		if err := c.followAhead(ctx, g); err != nil {
			return err
		}
		batch := g.candidates(from, size)
		if len(batch) == 0 {
			return nil
		}
		from = batch[len(batch)-1] + 1
		took, err := c.unlinkBatch(ctx, g, batch)
		if err != nil {
			return err
		}
		switch {
		case took > 2*unlinkTime:
			size = max(size/2, unlinkLeast)
		case took < unlinkTime/2:
			size = min(size*2, unlinkMost)
		}
	}
}

// candidates returns the next records that are not marked.
func (g *nodeGraph) candidates(from, most int) (batch []int) {
	g.marks.Unmarked(from, func(i int) bool {
		batch = append(batch, i)
		return len(batch) < most
	})
	return batch
}

// unlinkBatch deletes those of the batch that are still unreachable in the
// state that the deletion is made from. It follows what was noted since the
// snapshot first: mutations before this one have noted it by now, and those
// after it will find the records gone.
func (c *collection) unlinkBatch(ctx context.Context, g *nodeGraph, batch []int) (took time.Duration, err error) {
	var records int
	var bytes int64
	var began time.Time
	var damaged []error
	m := &mutation{
		collector: true,
		committed: func() { took = time.Since(began) },
	}
	m.apply = func(tx *bolt.Tx) error {
		began, records, bytes, damaged, m.events = time.Now(), 0, 0, nil, nil
		if err := g.follow(context.Background(), tx, c.db.barrier.since(g.ns, g.followed)); err != nil {
			return err
		}
		b := contentBucket(tx, g.ns)
		if b == nil {
			return nil // the namespace was deleted
		}
		for _, i := range batch {
			if g.marks.Marked(i) {
				continue
			}
			size, removed, err := unlinkRecord(tx, b, g.keys.At(i))
			if errdefs.IsDataLoss(err) {
				damaged = append(damaged, err)
				continue
			}
			if err != nil {
				return err
			}
			if removed {
				records++
				bytes += size
				m.events = append(m.events, c.unlinked(g, i, size)...)
			}
		}
		return nil
	}
	if err := c.db.mutate(ctx, m); err != nil {
		return took, err
	}
	c.stalled(took)
	for _, err := range damaged {
		c.note(err)
	}
	c.stats.Records += records
	if records > 0 {
		c.count(g.ns, func(n *gc.NamespaceStats) { n.Records += records; n.Bytes += bytes })
	}
	return took, nil
}

// unlinked is the event of a record that was removed.
func (c *collection) unlinked(g *nodeGraph, i int, size int64) []Event {
	if c.db.events.fn == nil {
		return nil
	}
	dgst, _ := parseDigestKey(g.keys.At(i))
	return c.db.event(ContentCollected, g.ns, dgst, size)
}

// unlinkRecord deletes one record if it is there.
func unlinkRecord(tx *bolt.Tx, b *bolt.Bucket, key []byte) (size int64, removed bool, err error) {
	value := b.Get(key)
	if value == nil {
		return 0, false, nil
	}
	h, err := holdersOf(tx, key)
	if err != nil {
		return 0, false, err
	}
	if err := b.Delete(key); err != nil {
		return 0, false, err
	}
	return h.size, true, dropHolder(tx, key)
}

// followAhead follows the notes in a read transaction, so that little is left
// to be followed while writers wait. The transactions that made the notes are
// over before it begins, so it sees what they did.
func (c *collection) followAhead(ctx context.Context, g *nodeGraph) error {
	notes := c.db.barrier.since(g.ns, g.followed)
	if len(notes) == 0 {
		return nil
	}
	if err := c.db.awaitTransaction(ctx); err != nil {
		return err
	}
	return c.db.read(ctx, func(tx *bolt.Tx) error { return g.follow(ctx, tx, notes) })
}

// follow marks what was noted, and what that refers to in the state of tx.
func (g *nodeGraph) follow(ctx context.Context, tx *bolt.Tx, notes []digestKey) error {
	reader := readEdges(contentBucket(tx, g.ns))
	for _, key := range notes {
		g.marks.Root(key.bytes())
		// A record that is new, or was written anew, may refer to other things
		// than the snapshot knows.
		if err := reader.references(key.bytes(), g.marks.Root); err != nil {
			return err
		}
	}
	g.followed += len(notes)
	return g.marks.Run(ctx, func(i int, yield func(key []byte)) error {
		return reader.references(g.keys.At(i), yield)
	})
}

// noteLabels tells the barrier what labels that were just set on the content of
// key may have made reachable.
func (db *DB) noteLabels(ns string, key digestKey, set map[string]string) {
	for name, value := range set {
		switch labels.KindOf(name) {
		case labels.Root, labels.Back:
			db.barrier.note(ns, key)
		case labels.Forward:
			if target, err := newDigestKey(digest.Digest(value)); err == nil {
				db.barrier.note(ns, target)
			}
		}
	}
}
