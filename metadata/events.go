package metadata

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	// ContentCreated is a commit that made a record.
	ContentCreated EventKind = "content created"
	// ContentUpdated is a change of labels.
	ContentUpdated EventKind = "content updated"
	// ContentDeleted is a record that a caller deleted.
	ContentDeleted EventKind = "content deleted"
	// ContentCollected is a record that a collection removed.
	ContentCollected EventKind = "content collected"
	// BlobRemoved is bytes that a collection removed. It has no namespace.
	BlobRemoved EventKind = "blob removed"
)

// Event is something that has happened and is durable.
type Event struct {
	Kind      EventKind
	Namespace string
	Digest    digest.Digest
	// Size is that of the content in bytes.
	Size int64
	// Time is when the event was noted, UTC.
	Time time.Time
}

// event returns an event of a mutation, none if nobody wants it.
func (v *view) event(kind EventKind, dgst digest.Digest, size int64) []Event {
	return v.db.event(kind, v.ns, dgst, size)
}

func (db *DB) event(kind EventKind, ns string, dgst digest.Digest, size int64) []Event {
	if db.events.fn == nil {
		return nil
	}
	return []Event{{Kind: kind, Namespace: ns, Digest: dgst, Size: size, Time: db.now()}}
}

// events hands events to the caller's function, one at a time, in the order in
// which they came about, from a goroutine of its own.
type events struct {
	fn    func(Event)
	mu    sync.Mutex
	queue []Event
	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}
}

func (e *events) start(fn func(Event)) {
	if fn == nil {
		return
	}
	e.fn, e.wake = fn, make(chan struct{}, 1)
	e.quit, e.ended = make(chan struct{}), make(chan struct{})
	go e.loop()
}

// stop returns when everything that was emitted has been handed over.
func (e *events) stop() {
	if e.fn == nil {
		return
	}
	close(e.quit)
	<-e.ended
}

func (e *events) emit(all ...Event) {
	if e.fn == nil || len(all) == 0 {
		return
	}
	e.mu.Lock()
	e.queue = append(e.queue, all...)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) loop() {
	defer close(e.ended)
	for {
		e.mu.Lock()
		batch := e.queue
		e.queue = nil
		e.mu.Unlock()
		for _, event := range batch {
			e.fn(event)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-e.wake:
		case <-e.quit:
			if e.idle() {
				return
			}
		}
	}
}

func (e *events) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue) == 0
}
