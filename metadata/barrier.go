package metadata

import (
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
	noted  map[string][]digestKey
}

// note says that the content of key in namespace ns may have become reachable,
// or was reported to a caller who may rely on it. It reports whether a
// collection listens.
func (b *barrier) note(ns string, key digestKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active {
		b.noted[ns] = append(b.noted[ns], key)
	}
	return b.active
}

// raise begins to listen.
func (b *barrier) raise() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active, b.noted = true, map[string][]digestKey{}
}

// lower ends it.
func (b *barrier) lower() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active, b.noted = false, nil
}

// since returns what was noted in ns after the first n.
func (b *barrier) since(ns string, n int) []digestKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.noted[ns][n:]
}

// snapshot begins a read transaction and raises the barrier between two write
// transactions.
func (db *DB) snapshot() (tx *bolt.Tx, err error) {
	db.writer.Lock()
	defer db.writer.Unlock()
	err = db.guard(func() error {
		tx, err = db.bolt.Begin(false)
		return db.translate(err)
	})
	if err == nil {
		db.barrier.raise()
	}
	return tx, err
}

// endRead ends a read transaction.
func (db *DB) endRead(tx *bolt.Tx) {
	if err := db.guard(tx.Rollback); err != nil {
		db.log.Warn("end of a read transaction", "error", err)
	}
}
