package schedule_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/gc/schedule"
)

func TestCollect(t *testing.T) {
	// Collect collects at once, in an idle store and in one that rests or waits
	// after a failure, and returns what that collection did.
	scheduled(t, schedule.Policy{MinInterval: time.Hour, Deletions: -1}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) { return time.Second, nil })
		for _, n := range []int{3, 0, 1} {
			for range n {
				s.delete()
			}
			start := time.Now()
			stats, err := scheduler.Collect(t.Context())
			require.NoError(t, err)
			require.Equal(t, n, stats.Records)
			require.Equal(t, time.Second, time.Since(start))
		}

		failure := errors.New("failure")
		s.costs(func() (time.Duration, error) { return 0, failure })
		_, err := scheduler.Collect(t.Context())
		require.ErrorIs(t, err, failure)
		require.NotErrorIs(t, err, schedule.ErrStopped)
		s.costs(func() (time.Duration, error) { return 0, nil })
		start := time.Now()
		_, err = scheduler.Collect(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.Len(t, s.ran(), 5)
	})
}

func TestCollectAtAnyMoment(t *testing.T) {
	// A demand is not overlooked if it comes when the scheduler has just found
	// that there is nothing to do and is about to wait.
	scheduled(t, schedule.Policy{MaxInterval: -1}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		var once sync.Once
		done := make(chan error)
		s.mu.Lock()
		s.looking = func() {
			once.Do(func() {
				go func() {
					_, err := scheduler.Collect(t.Context())
					done <- err
				}()
				synctest.Wait()
			})
		}
		s.mu.Unlock()
		s.change(func() {}) // makes it look
		start := time.Now()
		require.NoError(t, <-done)
		require.Less(t, time.Since(start), time.Second)
	})
}

func TestCollectCounts(t *testing.T) {
	// After a collection that was demanded, nothing is due any more, and the
	// rest that it cost is taken.
	scheduled(t, schedule.Policy{MinInterval: time.Second, Budget: 0.1}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) { return 10 * time.Second, nil })
		s.delete()
		start := time.Now()
		_, err := scheduler.Collect(t.Context())
		require.NoError(t, err)
		s.delete()
		time.Sleep(10 * time.Minute)
		runs := s.ran()
		require.Len(t, runs, 2)
		require.Equal(t, 100*time.Second, runs[1].began.Sub(start))
	})
}

func TestCollectIsShared(t *testing.T) {
	// Those who call while a collection runs get the next one, which has seen
	// what they deleted before, all together.
	scheduled(t, schedule.Policy{}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) { return 10 * time.Second, nil })
		s.delete()
		time.Sleep(time.Second)
		require.True(t, s.collecting())
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				time.Sleep(time.Second)
				s.delete()
				stats, err := scheduler.Collect(t.Context())
				require.NoError(t, err)
				require.Equal(t, 100, stats.Records)
			})
		}
		wait.Wait()
		require.Len(t, s.ran(), 2)
		require.Zero(t, s.left())
	})
}

func TestCollectObeysItsContext(t *testing.T) {
	// A caller whose context ends waits no longer, also while a collection
	// runs; the collection goes on, and one that has not begun is not demanded
	// any more. With a context that is done nothing is demanded.
	scheduled(t, schedule.Policy{}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) { return 10 * time.Second, nil })
		for range 2 {
			// The first begins a collection, the second waits for the next.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			_, err := scheduler.Collect(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(start))
			cancel()
			_, err = scheduler.Collect(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Zero(t, time.Since(start)-time.Second)
		}
		time.Sleep(30 * time.Minute)
		runs := s.ran()
		require.Len(t, runs, 1)
		require.NoError(t, runs[0].err)
	})
}

func TestCollectBeforeAndAfterRun(t *testing.T) {
	// Collect waits for Run to begin, and skips its delay; when Run ends, who
	// still waits is told so, and so is who comes later.
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.costs(func() (time.Duration, error) { return 10 * time.Second, nil })
		scheduler := schedule.New(s, schedule.Policy{StartupDelay: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := time.Now()
		var wait sync.WaitGroup
		wait.Go(func() {
			_, err := scheduler.Collect(t.Context())
			require.NoError(t, err)
			require.Equal(t, time.Minute+10*time.Second, time.Since(start))
			// This one is interrupted.
			_, err = scheduler.Collect(t.Context())
			require.ErrorIs(t, err, schedule.ErrStopped)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, time.Minute+15*time.Second, time.Since(start))
		})
		wait.Go(func() {
			time.Sleep(time.Minute + 12*time.Second)
			_, err := scheduler.Collect(t.Context()) // does not begin
			require.ErrorIs(t, err, schedule.ErrStopped)
			require.Equal(t, time.Minute+15*time.Second, time.Since(start))
		})
		time.Sleep(time.Minute)
		time.AfterFunc(15*time.Second, cancel)
		require.ErrorIs(t, scheduler.Run(ctx), context.Canceled)
		wait.Wait()
		_, err := scheduler.Collect(t.Context())
		require.ErrorIs(t, err, schedule.ErrStopped)
		require.ErrorIs(t, scheduler.Run(t.Context()), schedule.ErrStopped, "a second time")
		require.Len(t, s.ran(), 2)
	})
}

func TestRunOnce(t *testing.T) {
	// A second Run beside the first is refused and does not disturb it.
	scheduled(t, schedule.Policy{}, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		require.ErrorIs(t, scheduler.Run(t.Context()), schedule.ErrStopped)
		_, err := scheduler.Collect(t.Context())
		require.NoError(t, err)
	})
}

func TestOnCollected(t *testing.T) {
	// OnCollected is told of every collection, demanded, interrupted or not,
	// in order.
	type told struct {
		records int
		err     error
	}
	var got []told
	policy := schedule.Policy{OnCollected: func(stats gc.Stats, err error) { got = append(got, told{stats.Records, err}) }}
	scheduled(t, policy, func(t *testing.T, s *store, scheduler *schedule.Scheduler) {
		s.delete()
		s.delete()
		time.Sleep(time.Minute)
		s.delete()
		_, err := scheduler.Collect(t.Context())
		require.NoError(t, err)
		s.costs(func() (time.Duration, error) { return time.Hour, nil })
		s.delete()
		time.Sleep(time.Minute)
	})
	require.Equal(t, []told{{0, nil}, {2, nil}, {1, nil}, {0, context.Canceled}}, got)
}
