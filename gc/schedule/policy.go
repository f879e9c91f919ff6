package schedule

import (
	"math"
	"time"

	"github.com/cellarstore/cellar/gc"
)

// Policy says when to collect. The zero value of each field stands for its
// default; a negative value turns off what the field is for. A policy is never
// invalid.
//
// A collection is due when one of Deletions, Mutations and Bytes is reached,
// when something expires, MaxInterval after the last one, and once in the
// beginning. One that is due begins as soon as StartupDelay, MinInterval,
// Budget and, after a failure, RetryMin and RetryMax allow it. These also hold
// back a collection for MaxInterval.
type Policy struct {
	// Deletions makes a collection due after so many deletions. The default is
	// 1: what is deleted is reclaimed soon. It is counted, as are Mutations
	// and Bytes, from where the last collection that succeeded began, so that
	// what happened while it ran counts for the next one.
	Deletions int64
	// Mutations makes a collection due after so many changes of any kind. Most
	// make no garbage; the default is 10,000.
	Mutations int64
	// Bytes makes a collection due when records of so many bytes have been
	// deleted. The default is 1 GiB, which matters if Deletions is raised.
	Bytes int64

	// MinInterval is the least time from the end of a collection to the
	// beginning of the next. The default is a second.
	MinInterval time.Duration
	// MaxInterval makes a collection due so long after the end of the last
	// one, whether or not anything happened. The default is an hour.
	MaxInterval time.Duration
	// Budget is the greatest part of the time that may be spent collecting,
	// from 0 to 1. It is kept by resting: after a collection that took t as a
	// whole, marking, removing bytes and waiting for locks included, the next
	// begins at the earliest t/Budget after the last began. As collections
	// make writers wait for only a part of the time that they take, it bounds
	// the stalls too. The default is 0.02.
	Budget float64

	// StartupDelay is how long after its start the scheduler collects for the
	// first time, which it does in any case: it cannot know what was left by a
	// crash, or expired while nobody looked. The default is a second.
	StartupDelay time.Duration
	// Delay is for how long the scheduler of an idle store lets changes gather
	// before it looks at them, so that what is deleted together is collected
	// together. The default is 100 ms.
	Delay time.Duration

	// RetryMin is how long after a failed collection the next begins. It
	// doubles with every further failure, up to RetryMax. The defaults are a
	// second and five minutes. RetryMax is also after how long it is tried
	// again to remove what had expired and was there still after a collection.
	RetryMin, RetryMax time.Duration

	// OnCollected, if not nil, is called after every collection with what it
	// did and how it failed, if it did. The next collection waits until it has
	// returned, which is why it must not call Collect.
	OnCollected func(gc.Stats, error)
	// Now is the clock that expiries are compared with; it should be that of
	// the store. Nil is time.Now. Intervals are not measured by it: nobody's
	// setting it makes them longer or shorter.
	Now func() time.Time
}

// forever is longer than any process runs, and short enough to be added to
// another time and to be doubled.
const forever = 100 * 365 * 24 * time.Hour

// recheck is after how long at most it is looked whether something has expired:
// the clock may be set while the scheduler waits, or the machine sleep.
const recheck = time.Minute

// withDefaults returns p with every field as it is to be taken.
func (p Policy) withDefaults() Policy {
	p.Deletions = setting(p.Deletions, 1, math.MaxInt64)
	p.Mutations = setting(p.Mutations, 10_000, math.MaxInt64)
	p.Bytes = setting(p.Bytes, 1<<30, math.MaxInt64)
	p.MinInterval = min(setting(p.MinInterval, time.Second, 0), forever)
	p.MaxInterval = min(setting(p.MaxInterval, time.Hour, forever), forever)
	p.StartupDelay = min(setting(p.StartupDelay, time.Second, 0), forever)
	p.Delay = setting(p.Delay, 100*time.Millisecond, 0)
	p.RetryMin = min(setting(p.RetryMin, time.Second, 0), forever)
	p.RetryMax = min(setting(p.RetryMax, 5*time.Minute, 0), forever)
	p.RetryMax = max(p.RetryMax, p.RetryMin)
	switch {
	case p.Budget == 0 || math.IsNaN(p.Budget):
		p.Budget = 0.02
	case p.Budget < 0 || p.Budget > 1:
		p.Budget = 1
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	return p
}

// setting returns what a value stands for: ifZero, ifNegative, or itself.
func setting[T int64 | time.Duration](value, ifZero, ifNegative T) T {
	switch {
	case value == 0:
		return ifZero
	case value < 0:
		return ifNegative
	}
	return value
}

// moment is a point in time on both clocks that matter.
type moment struct {
	since time.Duration // since the scheduler began, however clocks are set
	wall  time.Time     // by the clock of the store
}

// state is what a policy needs to know of the past. Its times are durations
// since the scheduler began.
type state struct {
	// base is the activity that the last collection which succeeded found.
	base gc.Activity
	// wanted is set if a collection is due whatever the activity: there was
	// none yet, or the last one failed.
	wanted   bool
	failures int
	ended    time.Duration // of the last collection
	pause    time.Duration // none begins before, for the sake of intervals
	rest     time.Duration // nor before, for the sake of the budget
	// left is an expiry that had come when the last collection began. If it is
	// still the next one then that collection could not do anything about it.
	left time.Time
}

// start returns the state before the first collection.
func (p Policy) start() state { return state{wanted: true, pause: p.StartupDelay} }

// decision is what is to be done now: collect, or wait until the time is over
// or, with watch set, the activity has changed.
type decision struct {
	collect bool
	wait    time.Duration
	watch   bool
}

// next decides what to do if seen is the activity of the store.
func (p Policy) next(s state, seen gc.Activity, now moment) decision {
	due, allowed := p.due(s, seen, now), max(s.pause, s.rest)
	at := max(due, allowed)
	if at <= now.since {
		return decision{collect: true}
	}
	// Changes matter only if they can make it earlier. After a failure it is
	// watched all the same: it may be the store that is gone.
	d := decision{wait: at - now.since, watch: due > allowed || s.failures > 0}
	if !seen.NextExpiry.IsZero() {
		d.wait = min(d.wait, recheck)
	}
	return d
}

// due returns when a collection is wanted, if nothing else happens.
func (p Policy) due(s state, seen gc.Activity, now moment) time.Duration {
	if s.wanted || p.reached(s.base, seen) {
		return 0
	}
	interval := s.ended + p.MaxInterval
	switch expiry := seen.NextExpiry; {
	case expiry.IsZero():
		return interval
	case expiry.Equal(s.left):
		return min(interval, s.ended+p.RetryMax)
	default:
		return min(interval, now.since+max(0, min(expiry.Sub(now.wall), forever)+1)) // after it, not at it
	}
}

// reached reports whether enough happened between base and seen.
func (p Policy) reached(base, seen gc.Activity) bool {
	return seen.Deletions-base.Deletions >= uint64(p.Deletions) ||
		seen.Mutations-base.Mutations >= uint64(p.Mutations) ||
		seen.Bytes-base.Bytes >= p.Bytes
}

// collected returns the state after a collection that was begun when seen was
// the activity.
func (p Policy) collected(s state, seen gc.Activity, began, ended moment, err error) state {
	s.ended = ended.since
	s.rest = max(s.rest, began.since+p.share(ended.since-began.since))
	if err != nil {
		s.failures++
		s.wanted = true
		s.pause = ended.since + max(p.MinInterval, p.retry(s.failures))
		return s
	}
	s.failures = 0
	s.wanted = false
	s.pause = ended.since + p.MinInterval
	s.base = seen
	s.left = time.Time{}
	if seen.NextExpiry.Before(began.wall) {
		s.left = seen.NextExpiry
	}
	return s
}

// share returns the time of which cost is the part that the budget allows.
func (p Policy) share(cost time.Duration) time.Duration {
	return time.Duration(min(float64(cost)/p.Budget, float64(forever)))
}

// retry returns how long to wait after so many failures in a row.
func (p Policy) retry(failures int) time.Duration {
	wait := p.RetryMin
	for ; failures > 1 && wait < p.RetryMax; failures-- {
		wait *= 2
	}
	return min(wait, p.RetryMax)
}
