package metadata

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/namespaces"
)

// LeasedNamespace is Namespace for work under one lease: whatever is written
// through the store is held by it, as if every context carried it (see
// [leases.WithLease]); one that carries another has precedence. There is no
// such lease until it is created: without it, what begins or ends a write is
// NotFound.
func (db *DB) LeasedNamespace(name, lease string) (cellar.Store, error) {
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	if err := leases.ValidateID(lease); err != nil {
		return nil, err
	}
	return &view{db: db, ns: name, lease: lease}, nil
}

// leaseIn returns the lease under which a call is to work, and whether it is to
// work under one. The empty id is that of a lease which is not there.
func (v *view) leaseIn(ctx context.Context) (id string, leased bool) {
	if id, leased := leases.FromContext(ctx); leased {
		return id, true
	}
	return v.lease, v.lease != ""
}

// requireLease returns NotFound if there is no such lease now.
func (v *view) requireLease(ctx context.Context, id string) error {
	return v.db.read(ctx, func(tx *bolt.Tx) error {
		_, err := leaseOf(tx, v.ns, id, v.db.now())
		return err
	})
}

// lease makes a lease hold the resource of key, and tells a collection that
// runs.
func (db *DB) lease(tx *bolt.Tx, ns, id string, key []byte) error {
	if key[0] == resourceContent {
		var content digestKey
		content.set(key[1:])
		db.barrier.note(ns, content)
	}
	return addLeased(tx, ns, id, key)
}

// leaseExisting makes a lease hold content that the namespace has, durably. It
// reports false if it turns out that the namespace no longer has it.
func (v *view) leaseExisting(ctx context.Context, id string, dgst digest.Digest) (bool, error) {
	key, err := keyOf(dgst)
	if err != nil {
		return false, err
	}
	resource := contentResource(key)
	held := false
	err = v.db.read(ctx, func(tx *bolt.Tx) error {
		b := leasedBucket(tx, v.ns, id)
		held = b != nil && b.Get(resource) != nil
		return nil
	})
	if err != nil || held {
		return held, err
	}
	err = v.db.mutate(ctx, &mutation{
		check: func(tx *bolt.Tx) error {
			if _, err := leaseOf(tx, v.ns, id, v.db.now()); err != nil {
				return err
			}
			b := contentBucket(tx, v.ns)
			held = b != nil && b.Get(key.bytes()) != nil
			return nil
		},
		apply: func(tx *bolt.Tx) error {
			if !held {
				return nil
			}
			return v.db.lease(tx, v.ns, id, resource)
		},
	})
	return held, err
}

// leaseOfCommit returns the lease that content is committed under, and whether
// it is under one: the writer's own unless ctx carries another.
func (w *writer) leaseOfCommit(ctx context.Context) (id string, leased bool) {
	if id, leased := leases.FromContext(ctx); leased {
		return id, true
	}
	return w.lease, w.lease != ""
}

// swapLeased makes the lease of a commit hold the content in place of the
// ingestion that it came of. The writer's own lease lets go of that too.
func (w *writer) swapLeased(tx *bolt.Tx, p *proposal) error {
	v := w.v
	if p.exists {
		v.db.barrier.note(v.ns, p.key)
	}
	if w.lease != "" {
		if err := dropLeased(tx, v.ns, w.lease, ingestResource(w.e.key.ref)); err != nil {
			return err
		}
	}
	if !p.leased {
		return nil
	}
	if err := dropLeased(tx, v.ns, p.lease, ingestResource(w.e.key.ref)); err != nil {
		return err
	}
	return v.db.lease(tx, v.ns, p.lease, contentResource(p.key))
}

// dropFromLease makes the lease of ctx hold the resource of key no longer. That
// there may be no such lease is no error.
func (v *view) dropFromLease(ctx context.Context, tx *bolt.Tx, key []byte) error {
	id, leased := v.leaseIn(ctx)
	if !leased {
		return nil
	}
	return dropLeased(tx, v.ns, id, key)
}

// postpone gives an ingestion that no lease keeps an expiry of its own. That of
// one which a lease keeps stays as it is.
func (w *writer) postpone(ctx context.Context) {
	if w.lease != "" && !errdefs.IsNotFound(w.v.requireLease(ctx, w.lease)) {
		return
	}
	w.record.expires = w.v.db.now().Add(w.v.db.opts.IngestExpiry)
}

// recordHold records that the writer's lease holds its ingestion: in the
// background, and inside the caller's Update if it is in one.
func (w *writer) recordHold(ctx context.Context) {
	db := w.v.db
	joined := w.lease != "" && transactionFrom(ctx, db) != nil && db.mutate(ctx, w.holding(&mutation{})) == nil
	if w.unheld && !joined {
		db.mutateLater(w.holding(&mutation{}))
	}
	w.unheld = false
}

// save brings the stored record of the ingestion in line with the writer, in the
// background, and what its lease holds, if that is not recorded.
func (w *writer) save() {
	w.publish()
	m := w.v.db.ingestMutation(w.e.key)
	if w.unheld {
		m = w.holding(m)
		w.unheld = false
	}
	w.v.db.mutateLater(m)
}

// holding makes m record too that the writer's lease holds the ingestion, if
// there still is such a lease.
func (w *writer) holding(m *mutation) *mutation {
	db, e, lease, apply := w.v.db, w.e, w.lease, m.apply
	db.ingests.addHolds(e, 1)
	m.apply = func(tx *bolt.Tx) error {
		if apply != nil {
			if err := apply(tx); err != nil {
				return err
			}
		}
		return db.putHold(tx, e.key, lease)
	}
	m.committed = func() { db.ingests.addHolds(e, -1) }
	m.failed = m.committed
	m.abandoned = func() { db.mutateLater(&mutation{apply: m.apply, committed: m.committed, failed: m.failed}) }
	return m
}

func (db *DB) putHold(tx *bolt.Tx, key ingestKey, lease string) error {
	if _, err := leaseOf(tx, key.ns, lease, db.now()); err != nil {
		return nil //nolint:nilerr // it has gone meanwhile: nothing holds the ingestion
	}
	return addLeased(tx, key.ns, lease, ingestResource(key.ref))
}

// releaseIngest makes a lease hold an ingestion no longer, like recordHold.
func (db *DB) releaseIngest(ctx context.Context, key ingestKey, lease string) {
	apply := func(tx *bolt.Tx) error { return dropLeased(tx, key.ns, lease, ingestResource(key.ref)) }
	if transactionFrom(ctx, db) == nil || db.mutate(ctx, &mutation{apply: apply}) != nil {
		db.mutateLater(&mutation{apply: apply})
	}
}

// addHolds counts the holds on e that are not recorded yet.
func (t *ingestTable) addHolds(e *ingest, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.holds += n
}

// isOver reports whether nothing keeps an ingestion: neither its own expiry nor
// a live lease. The caller holds its ref, so that nobody can begin to use it.
func (db *DB) isOver(ctx context.Context, e *ingest, now time.Time) (over bool, err error) {
	db.ingests.mu.Lock()
	kept := e.holds > 0 || !e.record.expires.IsZero() && !now.After(e.record.expires)
	db.ingests.mu.Unlock()
	if kept {
		return false, nil
	}
	over = true
	resource := ingestResource(e.key.ref)
	err = db.read(ctx, func(tx *bolt.Tx) error {
		return liveLeases(tx, e.key.ns, now, func(id string, _ bool) error {
			if held := leasedBucket(tx, e.key.ns, id); held != nil && held.Get(resource) != nil {
				over = false
			}
			return nil
		})
	})
	return over, err
}
