package local

import (
	"context"
	"sync"
	"time"

	"github.com/cellarstore/cellar"
)

// refTable says who holds which ref. A hold is a token: only who has it can
// give it back, so that a writer that has lost its ref can't free another's.
type refTable struct {
	mu   sync.Mutex
	held map[string]*hold
}

type hold struct {
	ref   string
	since time.Time
	freed chan struct{} // closed when the hold ends
	ready chan struct{} // closed when w is set, or will never be
	w     *writer       // read after ready is closed; nil if the opening failed
}

// take holds ref, or returns a LockedError.
func (t *refTable) take(ref string, now time.Time) (*hold, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.held[ref]; other != nil {
		return nil, &cellar.LockedError{Ref: ref, Since: other.since}
	}
	h := &hold{ref: ref, since: now, freed: make(chan struct{}), ready: make(chan struct{})}
	if t.held == nil {
		t.held = map[string]*hold{}
	}
	t.held[ref] = h
	return h, nil
}

// attach says which writer the hold is for, nil if it came to none.
func (h *hold) attach(w *writer) {
	h.w = w
	close(h.ready)
}

// release ends h. Ending it twice is harmless.
func (t *refTable) release(h *hold) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[h.ref] != h {
		return
	}
	delete(t.held, h.ref)
	close(h.freed)
}

func (t *refTable) holder(ref string) *hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held[ref]
}

// writers returns the open writers.
func (t *refTable) writers() []*writer {
	t.mu.Lock()
	holds := make([]*hold, 0, len(t.held))
	for _, h := range t.held {
		holds = append(holds, h)
	}
	t.mu.Unlock()
	var ws []*writer
	for _, h := range holds {
		if <-h.ready; h.w != nil {
			ws = append(ws, h.w)
		}
	}
	return ws
}

// WaitRef waits, without polling, until no writer holds ref. It implements
// [cellar.RefWaiter].
func (s *Store) WaitRef(ctx context.Context, ref string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	h := s.refs.holder(ref)
	if h == nil {
		return nil
	}
	select {
	case <-h.freed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
