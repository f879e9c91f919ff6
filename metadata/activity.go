package metadata

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cellarstore/cellar/gc"
)

// activity counts what happens to the database, for those who decide when to
// collect.
type activity struct {
	mutations, deletions atomic.Uint64
	freed                atomic.Int64

	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
}

func (a *activity) add(m *mutation) {
	a.mutations.Add(1)
	a.deletions.Add(uint64(m.deletions))
	a.freed.Add(m.freed)
	a.wake()
}

// wake tells those who wait that something has changed.
func (a *activity) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// next returns a channel that is closed at the next change.
func (a *activity) next() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed
}

// Activity returns what has happened to the database since it was opened. It
// costs little and waits for nobody.
func (db *DB) Activity() gc.Activity {
	return gc.Activity{
		Deletions:  db.activity.deletions.Load(),
		Mutations:  db.activity.mutations.Load(),
		Bytes:      db.activity.freed.Load(),
		NextExpiry: db.expiry.get(),
	}
}

// Watch returns the activity as soon as it differs from seen, which may be at
// once. If ctx ends first, or the database is closed, it returns an error and
// the activity as it is.
func (db *DB) Watch(ctx context.Context, seen gc.Activity) (gc.Activity, error) {
	for {
		changed := db.activity.next()
		if now := db.Activity(); now != seen {
			return now, nil
		}
		if err := db.ready(ctx); err != nil {
			return seen, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return db.Activity(), ctx.Err()
		}
	}
}

// expiry is when the next thing ends that keeps something.
type expiry struct {
	mu sync.Mutex
	at time.Time
}

func (e *expiry) get() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}

// take forgets what was known and returns it.
func (e *expiry) take() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.at
	e.at = time.Time{}
	return at
}

// advance makes it no later than at; a zero at is never.
func (e *expiry) advance(at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = earliest(e.at, at)
}
