package metadata

import (
	"context"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// barrier is the write barrier of a running collection: it gathers what
// mutations made reachable since the collection's snapshot was taken. They note
// it in their apply functions, so that an unlinking mutation which follows in
// the same transaction knows of it, and the collector takes the snapshot and
// begins to listen between two transactions; so nothing falls between. A note
// whose transaction fails keeps something until the next collection, no more.
type barrier struct {
	mu     sync.Mutex
	active bool
	any    bool // whether something was noted since the barrier was raised
	noted  map[string][]digestKey
}

// note says that the content of key in namespace ns may have become reachable,
// or was reported to a caller who may rely on it. It reports whether a
// collection listens.
func (b *barrier) note(ns string, key digestKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active {
		b.any = true
		b.noted[ns] = append(b.noted[ns], key)
	}
	return b.active
}

// raise begins to listen.
func (b *barrier) raise() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active, b.any, b.noted = true, false, map[string][]digestKey{}
}

// lower ends it.
func (b *barrier) lower() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active, b.noted = false, nil
}

// heard reports whether anything was noted since the barrier was raised.
func (b *barrier) heard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.any
}

// since returns what was noted in ns after the first n.
func (b *barrier) since(ns string, n int) []digestKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.noted[ns][n:]
}

// snapshot begins a read transaction and raises the barrier between two write
// transactions. seen is how many mutations there had been by then.
func (db *DB) snapshot(ctx context.Context) (tx *bolt.Tx, seen uint64, err error) {
	if err := db.writer.take(ctx); err != nil {
		return nil, 0, err
	}
	defer db.writer.Unlock()
	if err := db.shut(); err != nil {
		return nil, 0, err // what was read might not be on disk
	}
	err = db.guard(func() error {
		tx, err = db.bolt.Begin(false)
		return db.translate(err)
	})
	if err == nil {
		db.barrier.raise()
	}
	return tx, db.activity.mutations.Load(), err
}

// endRead ends a read transaction.
func (db *DB) endRead(tx *bolt.Tx) {
	if err := db.guard(tx.Rollback); err != nil {
		db.log.Warn("end of a read transaction", "error", err)
	}
}
