// Package schedule decides when a store collects its garbage, and does it: soon
// after something was deleted, when something expires although nothing else
// happens, and never for more than a small part of the time.
//
//	go schedule.Run(ctx, db, schedule.Policy{})
//
// It needs no thread of its own beside the one that calls it, and logs nothing;
// see Policy.OnCollected.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cellarstore/cellar/gc"
)

// Collector is a store that can be collected. Its methods are called by one
// goroutine.
type Collector interface {
	// GarbageCollect removes what is garbage when it is called, and returns
	// when it has, or soon after ctx ends.
	GarbageCollect(ctx context.Context, opts ...gc.Option) (gc.Stats, error)
	// Activity returns what happened so far, at little cost. What is counted
	// before GarbageCollect is called is seen by it. What a collection itself
	// removes is not counted, or one would follow the other without end. A
	// collection that begins after NextExpiry removes what expires then.
	Activity() gc.Activity
	// Watch waits until the activity differs from seen, and returns it; at once
	// if it differs already. It may return early. If ctx ends it returns its
	// error; any other error says that there will be no more activity, as when
	// the store has been closed.
	Watch(ctx context.Context, seen gc.Activity) (gc.Activity, error)
}

// ErrStopped says that a scheduler does not run any more.
var ErrStopped = errors.New("garbage collection is not scheduled any more")

// Run collects as policy says until ctx ends, and then returns its error.
// Collections that fail are told to policy.OnCollected and tried again. If
// watching the store fails, because it has been closed, Run returns that error.
//
// There should be one Run for a store. It starts no goroutines and runs one
// collection at a time; when it has returned, none is running.
func Run(ctx context.Context, collector Collector, policy Policy) error {
	return New(collector, policy).Run(ctx)
}

// Scheduler is Run for those who also want to collect at a given time. Its
// methods may be called by several goroutines.
type Scheduler struct {
	collector Collector
	policy    Policy
	done      chan struct{} // closed when Run returns

	mu      sync.Mutex
	ran     bool
	waiting []chan result // those that demand a collection which has not begun
	wake    context.CancelFunc
}

// result is what one collection came to.
type result struct {
	stats gc.Stats
	err   error
}

// New returns a scheduler for collector, which does nothing until it is run.
func New(collector Collector, policy Policy) *Scheduler {
	return &Scheduler{collector: collector, policy: policy.withDefaults(), done: make(chan struct{})}
}

// Run is the function Run. A scheduler runs once; if it is running or has run,
// ErrStopped is returned.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	ran := s.ran
	s.ran = true
	s.mu.Unlock()
	if ran {
		return fmt.Errorf("a scheduler runs once: %w", ErrStopped)
	}
	defer close(s.done)
	return s.loop(ctx)
}

func (s *Scheduler) loop(ctx context.Context) error {
	now := clock(s.policy.Now)
	past := s.policy.start()
	for ctx.Err() == nil {
		waiting := s.take() // before Activity: the collection sees all that they saw
		seen := s.collector.Activity()
		began := now()
		do := s.policy.next(past, seen, began)
		if !do.collect && len(waiting) == 0 {
			if err := s.wait(ctx, do, seen); err != nil {
				return err
			}
			continue
		}
		stats, err := s.collector.GarbageCollect(ctx)
		past = s.policy.collected(past, seen, began, now(), err)
		answer(ctx, waiting, stats, err)
		if s.policy.OnCollected != nil {
			s.policy.OnCollected(stats, err)
		}
	}
	return ctx.Err()
}

// clock returns a function that tells the time since now, and the time by wall.
func clock(wall func() time.Time) func() moment {
	start := time.Now()
	return func() moment { return moment{time.Since(start), wall()} }
}

// answer gives what a collection came to to those who waited for it.
func answer(ctx context.Context, waiting []chan result, stats gc.Stats, err error) {
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	for _, w := range waiting {
		w <- result{stats, err} // it has room for one
	}
}

// wait waits as it was decided to, or until a collection is demanded.
func (s *Scheduler) wait(ctx context.Context, do decision, seen gc.Activity) error {
	ctx, cancel := context.WithTimeout(ctx, do.wait)
	defer cancel()
	if !s.sleep(cancel) {
		return nil
	}
	if !do.watch {
		<-ctx.Done()
		return nil
	}
	if _, err := s.collector.Watch(ctx, seen); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch for what makes garbage: %w", err)
	}
	gather, cancel := context.WithTimeout(ctx, s.policy.Delay)
	defer cancel()
	<-gather.Done()
	return nil
}

// sleep has wake called when a collection is demanded. It reports false if one
// was already.
func (s *Scheduler) sleep(wake context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = wake
	return len(s.waiting) == 0
}

// take returns those who wait for a collection, which has to begin now.
func (s *Scheduler) take() []chan result {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.waiting
	s.waiting = nil
	return waiting
}

// Collect has a collection run now, whatever the policy says, and returns what
// it did. That collection begins after the call, so that what is garbage
// already is removed; if one is running, it is the next. Those who call
// meanwhile share it. Like any other it counts for the policy's thresholds,
// intervals and budget.
//
// If ctx ends, its error is returned at once. A collection that has begun goes
// on, for it is not only the caller's; one that has not is not demanded any
// more. If Run has not been called yet then Collect waits for that too. If Run
// has returned, or returns before the collection is complete, the error is
// ErrStopped. An error of the collection is returned as it is, with the stats.
func (s *Scheduler) Collect(ctx context.Context) (gc.Stats, error) {
	if err := ctx.Err(); err != nil {
		return gc.Stats{}, err
	}
	w := s.demand()
	select {
	case r := <-w:
		return r.stats, r.err
	case <-ctx.Done():
		s.withdraw(w)
		return gc.Stats{}, ctx.Err()
	case <-s.done:
	}
	select {
	case r := <-w:
		return r.stats, r.err
	default:
		return gc.Stats{}, ErrStopped
	}
}

func (s *Scheduler) demand() chan result {
	w := make(chan result, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, w)
	if s.wake != nil {
		s.wake()
	}
	return w
}

func (s *Scheduler) withdraw(w chan result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other chan result) bool { return other == w })
}
