package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/gc/schedule"
)

// store is a store that is nothing but garbage and leases. A collection removes
// what was garbage when it began, and leases that had expired before.
type store struct {
	now  func() time.Time
	cost func() (time.Duration, error) // of the next collection

	mu       sync.Mutex
	activity gc.Activity
	changed  chan struct{} // closed with every change
	shut     error
	garbage  int
	expiries []time.Time
	looks    int
	looking  func() // called when the activity is asked for
	runs     []run
	running  bool
}

// run is a collection that was run.
type run struct {
	began, ended time.Time
	removed      int
	err          error
}

func newStore() *store {
	return &store{
		now:     time.Now,
		cost:    func() (time.Duration, error) { return time.Millisecond, nil },
		changed: make(chan struct{}),
	}
}

// change changes the store, and tells those who watch.
func (s *store) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.activity.Mutations++
	s.activity.NextExpiry = time.Time{}
	if len(s.expiries) > 0 {
		s.activity.NextExpiry = slices.MinFunc(s.expiries, time.Time.Compare)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *store) delete() {
	s.change(func() {
		s.garbage++
		s.activity.Deletions++
	})
}

func (s *store) lease(until time.Time) {
	s.change(func() { s.expiries = append(s.expiries, until) })
}

func (s *store) GarbageCollect(ctx context.Context, _ ...gc.Option) (gc.Stats, error) {
	began := time.Now()
	s.mu.Lock()
	if s.running {
		panic("two collections at once")
	}
	s.running = true
	found, now, price := s.garbage, s.now(), s.cost
	s.mu.Unlock()

	cost, err := price()
	select {
	case <-time.After(cost):
	case <-ctx.Done():
		err = ctx.Err()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	if err != nil {
		found = 0
	} else {
		s.garbage -= found
		s.expiries = slices.DeleteFunc(s.expiries, now.After)
		s.activity.NextExpiry = time.Time{}
		if len(s.expiries) > 0 {
			s.activity.NextExpiry = slices.MinFunc(s.expiries, time.Time.Compare)
		}
	}
	s.runs = append(s.runs, run{began, time.Now(), found, err})
	return gc.Stats{Records: found}, err
}

func (s *store) Activity() gc.Activity {
	s.mu.Lock()
	s.looks++
	seen, looking := s.activity, s.looking
	s.mu.Unlock()
	if looking != nil {
		looking()
	}
	return seen
}

func (s *store) Watch(ctx context.Context, seen gc.Activity) (gc.Activity, error) {
	for {
		s.mu.Lock()
		now, changed, shut := s.activity, s.changed, s.shut
		s.mu.Unlock()
		switch {
		case shut != nil:
			return now, shut
		case now != seen:
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// costs has collections take as long as f says, and fail as it says.
func (s *store) costs(f func() (time.Duration, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cost = f
}

// clock has the store live by another clock.
func (s *store) clock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *store) collecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// looked returns how often the activity was asked for.
func (s *store) looked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// ran returns the collections so far.
func (s *store) ran() []run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.runs)
}

func (s *store) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.garbage
}

// scheduled runs f in a bubble of its own time with a scheduler for s that has
// collected once and rested. When f returns the scheduler is ended; if it then
// does not end at once, or leaves a goroutine behind, the test fails.
func scheduled(t *testing.T, policy schedule.Policy, f func(t *testing.T, s *store, scheduler *schedule.Scheduler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		scheduler := schedule.New(s, policy)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- scheduler.Run(ctx) }()
		time.Sleep(10 * time.Second)
		require.Len(t, s.ran(), 1)
		s.mu.Lock()
		s.runs = nil
		s.mu.Unlock()
		f(t, s, scheduler)
		before := time.Now()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Zero(t, time.Since(before), "Run went on")
	})
}

func TestFirstCollection(t *testing.T) {
	// Each start collects once although nothing happened, then an idle store
	// rests for the greatest interval.
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		require.ErrorIs(t, schedule.Run(ctx, s, schedule.Policy{}), context.DeadlineExceeded)
		var at []time.Duration
		for _, r := range s.ran() {
			at = append(at, r.began.Sub(start))
		}
		require.Equal(t, []time.Duration{time.Second, time.Hour + 1001*time.Millisecond, 2*time.Hour + 1002*time.Millisecond}, at)
	})
}

func TestDeletionIsCollectedSoon(t *testing.T) {
	// What an idle store deletes is collected within a fraction of a second.
	scheduled(t, schedule.Policy{}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		for range 10 {
			s.delete()
			time.Sleep(200 * time.Millisecond)
			require.Zero(t, s.left())
			time.Sleep(time.Minute)
		}
		require.Len(t, s.ran(), 10)
	})
}

func TestNothingIsLost(t *testing.T) {
	// Whatever is deleted before, while or after a collection runs is collected
	// without anything else having to happen.
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			scheduled(t, schedule.Policy{Budget: -1, MaxInterval: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
				random := rand.New(rand.NewPCG(seed, 0))
				cost := rand.New(rand.NewPCG(seed, 1))
				s.costs(func() (time.Duration, error) { return time.Duration(cost.IntN(2000)) * time.Millisecond, nil })
				for range 20 {
					for range random.IntN(3) {
						time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
						s.delete()
					}
					time.Sleep(time.Minute)
					require.Zero(t, s.left())
				}
			})
		})
	}
}

func TestDeletedWhileCollecting(t *testing.T) {
	// A deletion at any moment of a collection is seen by the next one, which
	// comes by itself. (The peer forgets it.)
	const took = 100 * time.Millisecond
	for at := time.Duration(0); at <= 2*took; at += took / 10 {
		scheduled(t, schedule.Policy{MaxInterval: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
			s.costs(func() (time.Duration, error) { return took, nil })
			s.delete()
			time.Sleep(100*time.Millisecond + at) // the delay, and some of the collection
			s.delete()
			time.Sleep(time.Minute)
			require.Zero(t, s.left(), "deleted %s after the collection began", at)
		})
	}
}

func TestDeletionsAreCollectedTogether(t *testing.T) {
	// A burst of deletions in an idle store makes one collection, however many
	// they are; those during a collection make one more.
	scheduled(t, schedule.Policy{}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		for range 1000 {
			s.delete()
			time.Sleep(50 * time.Microsecond)
		}
		time.Sleep(time.Minute)
		require.Zero(t, s.left())
		require.Len(t, s.ran(), 1)

		s.costs(func() (time.Duration, error) { return time.Second, nil })
		s.delete()
		time.Sleep(500 * time.Millisecond)
		for range 1000 {
			s.delete()
		}
		time.Sleep(3 * time.Minute)
		require.Zero(t, s.left())
		require.Len(t, s.ran(), 3)
	})
}

func TestThresholds(t *testing.T) {
	// With higher thresholds less is not collected before the interval is over.
	scheduled(t, schedule.Policy{Deletions: 10, Mutations: 50, MaxInterval: 10 * time.Minute}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		for range 9 {
			s.delete()
		}
		time.Sleep(9 * time.Minute)
		require.Equal(t, 9, s.left())
		time.Sleep(time.Minute)
		require.Zero(t, s.left(), "the interval")

		for range 9 {
			s.delete()
		}
		time.Sleep(time.Second)
		require.Equal(t, 9, s.left())
		s.delete()
		time.Sleep(time.Second)
		require.Zero(t, s.left(), "the tenth")

		for range 49 {
			s.change(func() {})
		}
		time.Sleep(time.Minute)
		require.Len(t, s.ran(), 2)
		s.change(func() {})
		time.Sleep(time.Minute)
		require.Len(t, s.ran(), 3)
	})
}

func TestIdleStoreWakesForExpiries(t *testing.T) {
	// What expires in a store in which nothing happens is collected at that
	// moment, each thing at its own, also one that is far away. (The peer waits
	// for the next change.)
	scheduled(t, schedule.Policy{MaxInterval: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		start := time.Now()
		var want, got []time.Duration
		for _, after := range []time.Duration{time.Hour, 90 * time.Second, 10 * time.Second, 2000 * time.Hour, time.Hour + time.Minute} {
			s.lease(start.Add(after))
			want = append(want, after)
		}
		slices.Sort(want)
		time.Sleep(10000 * time.Hour)
		for _, r := range s.ran() {
			got = append(got, r.began.Sub(start)-1)
		}
		require.Equal(t, want, got)
	})
}

func TestExpiryIsRenewed(t *testing.T) {
	// An expiry that is put off or taken away is not woken for, and one that is
	// brought forward is.
	scheduled(t, schedule.Policy{MaxInterval: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		start := time.Now()
		s.lease(start.Add(time.Minute))
		time.Sleep(50 * time.Second)
		s.change(func() { s.expiries[0] = start.Add(time.Hour) })
		time.Sleep(time.Minute)
		require.Empty(t, s.ran())
		s.change(func() { s.expiries[0] = start.Add(2 * time.Minute) })
		time.Sleep(15 * time.Second)
		require.Len(t, s.ran(), 1)
		s.lease(start.Add(3 * time.Minute))
		s.change(func() { s.expiries = nil })
		time.Sleep(time.Hour)
		require.Len(t, s.ran(), 1)
	})
}

func TestExpiredAndKept(t *testing.T) {
	// If something that expired is still there after a collection, the next ones
	// do not follow as quickly as they can, but as after failures; what expires
	// otherwise is not kept waiting.
	scheduled(t, schedule.Policy{MaxInterval: -1, RetryMax: time.Minute}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		start := time.Now()
		s.clock(func() time.Time { return start }) // for the collector alone nothing expires
		s.lease(start.Add(time.Second))
		time.Sleep(10*time.Minute + 30*time.Second)
		require.Len(t, s.ran(), 11)
	})
}

func TestBudget(t *testing.T) {
	// Over a day of deletions without a pause, with collections that take long
	// or not, and some of which fail, no more than the budget is spent; and
	// nearly all of it is, so that nothing is held back without need.
	for _, budget := range []float64{0.02, 0.25} {
		scheduled(t, schedule.Policy{Budget: budget}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
			random := rand.New(rand.NewPCG(3, 4))
			s.costs(func() (time.Duration, error) {
				cost := time.Duration(random.IntN(20_000)) * time.Millisecond
				if random.IntN(10) == 0 {
					return cost, errors.New("failure")
				}
				return cost, nil
			})
			start := time.Now()
			for time.Since(start) < 24*time.Hour {
				s.delete()
				time.Sleep(time.Second)
			}
			runs := s.ran()
			var spent time.Duration
			for _, r := range runs[:len(runs)-1] {
				spent += r.ended.Sub(r.began)
			}
			elapsed := runs[len(runs)-1].began.Sub(start)
			require.LessOrEqual(t, spent.Seconds(), budget*elapsed.Seconds())
			require.GreaterOrEqual(t, spent.Seconds(), 0.95*budget*elapsed.Seconds())
		})
	}
}

func TestFailuresBackOff(t *testing.T) {
	// A collection that fails is tried again by itself, after ever longer waits
	// up to a limit, whatever happens meanwhile; one that succeeds ends it.
	failure := errors.New("the disk is on fire")
	scheduled(t, schedule.Policy{MaxInterval: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) {
			if len(s.ran()) < 12 {
				return 0, failure
			}
			return 0, nil
		})
		s.delete()
		for range 3000 {
			time.Sleep(time.Second)
			s.delete()
		}
		time.Sleep(time.Second)
		runs := s.ran()
		var waits []int
		for i := 1; i < 13; i++ {
			require.ErrorIs(t, runs[i-1].err, failure)
			waits = append(waits, int(runs[i].began.Sub(runs[i-1].ended).Seconds()))
		}
		require.Equal(t, []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300}, waits)
		require.NoError(t, runs[12].err)
		require.Less(t, runs[14].began.Sub(runs[13].ended), 2*time.Second, "slow after the failures are over")
		require.LessOrEqual(t, s.left(), 2)
	})
}

func TestRunEnds(t *testing.T) {
	// Run returns as soon as its context ends, whatever it is doing; a context
	// that is done from the beginning starts nothing.
	for name, after := range map[string]time.Duration{
		"before":            0,
		"starting":          500 * time.Millisecond,
		"collecting":        1500 * time.Millisecond,
		"idle":              10 * time.Second,
		"gathering changes": 20*time.Second + 50*time.Millisecond,
		"resting":           25 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				s.costs(func() (time.Duration, error) { return time.Second, nil })
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				start := time.Now()
				defer time.AfterFunc(20*time.Second, s.delete).Stop()
				require.ErrorIs(t, schedule.Run(ctx, s, schedule.Policy{}), context.DeadlineExceeded)
				require.Equal(t, after, time.Since(start))
				require.False(t, s.collecting())
				if after == 0 {
					require.Zero(t, s.looked())
				}
			})
		})
	}
}

func TestClosedStoreEndsRun(t *testing.T) {
	// Run ends by itself, and says why, once the store cannot be watched any
	// more, also if it notices by a collection that failed.
	closed := errors.New("the store is closed")
	for name, act := range map[string]func(s *store){
		"idle": func(s *store) { s.change(func() { s.shut = closed }) },
		"failing": func(s *store) {
			s.costs(func() (time.Duration, error) {
				s.change(func() { s.shut = closed })
				return 0, closed
			})
			s.delete()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				scheduler := schedule.New(s, schedule.Policy{})
				time.AfterFunc(time.Minute, func() { act(s) })
				require.ErrorIs(t, scheduler.Run(t.Context()), closed)
				_, err := scheduler.Collect(t.Context())
				require.ErrorIs(t, err, schedule.ErrStopped)
			})
		})
	}
}

func TestMutationsCostNothing(t *testing.T) {
	// Ten thousand mutations a second, idle or while a collection runs, start
	// no goroutine and are looked at ten times.
	scheduled(t, schedule.Policy{Mutations: -1}, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		s.costs(func() (time.Duration, error) { return 10 * time.Second, nil })
		for _, busy := range []bool{false, true} {
			if busy {
				s.delete()
				time.Sleep(time.Second)
				require.True(t, s.collecting())
			}
			goroutines := runtime.NumGoroutine()
			before := s.looked()
			for range 10_000 {
				s.change(func() {})
				time.Sleep(100 * time.Microsecond)
			}
			require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
			require.LessOrEqual(t, s.looked()-before, 11)
		}
	})
}

// setClock is a clock that can be set.
type setClock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *setClock) set(off time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

func (c *setClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.off)
}

func TestClockIsSet(t *testing.T) {
	// If the clock is set forward, what has expired by it is collected within
	// a minute; if it is set back, nothing is collected early, what expires is
	// in its time, and neither intervals nor rests become longer.
	clock := &setClock{}
	policy := schedule.Policy{Now: clock.now, MaxInterval: -1, MinInterval: 5 * time.Second}
	scheduled(t, policy, func(t *testing.T, s *store, _ *schedule.Scheduler) {
		s.clock(clock.now)
		s.lease(clock.now().Add(10 * time.Hour))
		time.Sleep(time.Second)
		clock.set(11 * time.Hour)
		time.Sleep(time.Minute)
		require.Len(t, s.ran(), 1)
		require.Zero(t, s.Activity().NextExpiry)

		s.lease(clock.now().Add(2 * time.Hour))
		clock.set(0)
		time.Sleep(12*time.Hour + 59*time.Minute)
		require.Len(t, s.ran(), 1)
		time.Sleep(time.Minute + time.Second)
		require.Len(t, s.ran(), 2)
		time.Sleep(time.Minute)

		for i, off := range []time.Duration{-100 * time.Hour, 100 * time.Hour, 0} {
			s.delete()
			time.Sleep(200 * time.Millisecond)
			clock.set(off)
			s.delete()
			time.Sleep(6 * time.Second)
			require.Zero(t, s.left())
			require.Len(t, s.ran(), 2+2*(i+1))
			time.Sleep(time.Minute)
		}
	})
}
