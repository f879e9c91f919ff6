package schedule

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cellarstore/cellar/gc"
)

var noon = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// at returns the moment d after the start at noon.
func at(d time.Duration) moment { return moment{d, noon.Add(d)} }

func TestNext(t *testing.T) {
	// When a collection begins follows from the activity, the time of the next
	// expiry and what the last collections cost.
	const s, m = time.Second, time.Minute
	base := gc.Activity{Deletions: 10, Mutations: 100, Bytes: 1000}
	rested := state{base: base, ended: 10 * s, pause: 11 * s, rest: 5 * s} // the last ended at 10 s
	var (
		collect = decision{collect: true}
		look    = func(wait time.Duration) decision { return decision{wait: wait, watch: true} }
		sleep   = func(wait time.Duration) decision { return decision{wait: wait} }
		with    = func(change func(*gc.Activity)) gc.Activity {
			a := base
			change(&a)
			return a
		}
		deleted  = with(func(a *gc.Activity) { a.Deletions++ })
		changed  = with(func(a *gc.Activity) { a.Mutations++ })
		expiring = func(d time.Duration) gc.Activity {
			return with(func(a *gc.Activity) { a.NextExpiry = noon.Add(d) })
		}
	)
	for _, c := range []struct {
		name   string
		policy Policy
		state  state
		seen   gc.Activity
		now    moment
		want   decision
	}{
		{"idle", Policy{}, rested, base, at(20 * s), look(time.Hour - 10*s)},
		{"idle for long", Policy{}, rested, base, at(time.Hour + 10*s), collect},
		{"idle, no greatest interval", Policy{MaxInterval: -1}, rested, base, at(20 * s), look(forever - 10*s)},
		{"deleted", Policy{}, rested, deleted, at(20 * s), collect},
		{"changed", Policy{}, rested, changed, at(20 * s), look(time.Hour - 10*s)},
		{"changed and changes count", Policy{Mutations: 1}, rested, changed, at(20 * s), collect},
		{"deleted and deletions do not count", Policy{Deletions: -1}, rested, deleted, at(20 * s), look(time.Hour - 10*s)},
		{"fewer deleted than count", Policy{Deletions: 2}, rested, deleted, at(20 * s), look(time.Hour - 10*s)},
		{"as many deleted as count", Policy{Deletions: 2}, rested, with(func(a *gc.Activity) { a.Deletions += 2 }), at(20 * s), collect},
		{"fewer bytes than count", Policy{Deletions: -1, Bytes: 500}, rested, with(func(a *gc.Activity) { a.Deletions++; a.Bytes += 499 }), at(20 * s), look(time.Hour - 10*s)},
		{"as many bytes as count", Policy{Deletions: -1, Bytes: 500}, rested, with(func(a *gc.Activity) { a.Deletions++; a.Bytes += 500 }), at(20 * s), collect},
		{"nothing counts", Policy{Deletions: -1, Mutations: -1, Bytes: -1}, rested, gc.Activity{Deletions: 1 << 40, Mutations: 1 << 40, Bytes: 1 << 60}, at(20 * s), look(time.Hour - 10*s)},
		{"counters begin again", Policy{}, rested, gc.Activity{}, at(20 * s), collect},

		{"deleted right after a collection", Policy{}, rested, deleted, at(10*s + 1), sleep(s - 1)},
		{"deleted, the interval over", Policy{}, rested, deleted, at(11 * s), collect},
		{"deleted, resting", Policy{}, state{base: base, ended: 10 * s, pause: 11 * s, rest: 500 * s}, deleted, at(20 * s), sleep(480 * s)},
		{"idle, resting", Policy{}, state{base: base, ended: 10 * s, pause: 11 * s, rest: 500 * s}, base, at(20 * s), look(time.Hour - 10*s)},
		{"idle for long, resting longer", Policy{MaxInterval: m}, state{base: base, ended: 10 * s, rest: 500 * s}, base, at(20 * s), sleep(480 * s)},

		{"something expires", Policy{}, rested, expiring(25 * s), at(20 * s), look(5*s + 1)},
		{"something expires now", Policy{}, rested, expiring(25 * s), at(25 * s), look(1)},
		{"something has just expired", Policy{}, rested, expiring(25 * s), at(25*s + 1), collect},
		{"something expired", Policy{}, rested, expiring(12 * s), at(25 * s), collect},
		{"something expires in an hour or so", Policy{}, rested, expiring(50 * m), at(20 * s), look(recheck)},
		{"something expires in a thousand years", Policy{MaxInterval: -1}, rested, expiring(math.MaxInt64), at(20 * s), look(recheck)},
		{"expiring while resting", Policy{}, state{base: base, ended: 10 * s, rest: 70 * s}, expiring(25 * s), at(20 * s), sleep(50 * s)},
		{"expires, but the clock was set back", Policy{}, rested, expiring(25 * s), moment{30 * s, noon.Add(-time.Hour)}, look(recheck)},
		{"expires, and the clock was set forward", Policy{}, rested, expiring(50 * m), moment{30 * s, noon.Add(time.Hour)}, collect},
		{"expired and left", Policy{RetryMax: m}, state{base: base, ended: 10 * s, left: noon}, expiring(0), at(20 * s), look(50 * s)},
		{"expired and left for long", Policy{RetryMax: m}, state{base: base, ended: 10 * s, left: noon}, expiring(0), at(70 * s), collect},
		{"expired, another one was left", Policy{RetryMax: m}, state{base: base, ended: 10 * s, left: noon}, expiring(s), at(20 * s), collect},

		{"starting", Policy{}, Policy{}.withDefaults().start(), gc.Activity{}, at(0), sleep(s)},
		{"starting, something had expired", Policy{}, Policy{}.withDefaults().start(), expiring(-m), at(0), sleep(s)},
		{"started", Policy{}, Policy{}.withDefaults().start(), gc.Activity{}, at(s), collect},
		{"starting at once", Policy{StartupDelay: -1}, Policy{StartupDelay: -1}.withDefaults().start(), gc.Activity{}, at(0), collect},

		{"failed", Policy{}, state{base: base, wanted: true, failures: 1, ended: 10 * s, pause: 14 * s}, base, at(11 * s), look(3 * s)},
		{"failed, and it is time", Policy{}, state{base: base, wanted: true, failures: 1, ended: 10 * s, pause: 14 * s}, base, at(14 * s), collect},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, c.policy.withDefaults().next(c.state, c.seen, c.now))
		})
	}
}

func TestCollected(t *testing.T) {
	// What a collection cost and whether it failed decides when the next may
	// begin; only one that succeeded counts as having seen what happened.
	const s = time.Second
	failure := errors.New("failure")
	old, seen := gc.Activity{Deletions: 1}, gc.Activity{Deletions: 9, NextExpiry: noon.Add(15 * s)}
	before := state{base: old, wanted: true, failures: 2, ended: 5 * s, pause: 6 * s, rest: 55 * s, left: noon}
	for _, c := range []struct {
		name         string
		policy       Policy
		began, ended moment
		err          error
		want         state
	}{
		{"success", Policy{}, at(10 * s), at(12 * s), nil,
			state{base: seen, ended: 12 * s, pause: 13 * s, rest: 110 * s}},
		{"success, by half the time", Policy{Budget: 0.5, MinInterval: -1}, at(10 * s), at(60 * s), nil,
			state{base: seen, ended: 60 * s, pause: 60 * s, rest: 110 * s}},
		{"a cheap one does not end an earlier rest", Policy{}, at(10 * s), at(10 * s), nil,
			state{base: seen, ended: 10 * s, pause: 11 * s, rest: 55 * s}},
		{"something expires now", Policy{}, at(15 * s), at(15 * s), nil,
			state{base: seen, ended: 15 * s, pause: 16 * s, rest: 55 * s}},
		{"something had expired", Policy{}, at(15*s + 1), at(15*s + 1), nil,
			state{base: seen, ended: 15*s + 1, pause: 16*s + 1, rest: 55 * s, left: seen.NextExpiry}},
		{"failure", Policy{}, at(20 * s), at(22 * s), failure,
			state{base: old, wanted: true, failures: 3, ended: 22 * s, pause: 26 * s, rest: 120 * s, left: noon}},
		{"failure, the longest wait", Policy{RetryMax: 3 * s}, at(20 * s), at(22 * s), failure,
			state{base: old, wanted: true, failures: 3, ended: 22 * s, pause: 25 * s, rest: 120 * s, left: noon}},
		{"failure, a long interval", Policy{MinInterval: time.Hour}, at(20 * s), at(22 * s), failure,
			state{base: old, wanted: true, failures: 3, ended: 22 * s, pause: time.Hour + 22*s, rest: 120 * s, left: noon}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, c.policy.withDefaults().collected(before, seen, c.began, c.ended, c.err))
		})
	}
}

func TestDefaults(t *testing.T) {
	// The zero policy is what its documentation says, negative values turn
	// things off, and what makes no sense is made sense of.
	p := Policy{}.withDefaults()
	require.NotNil(t, p.Now)
	p.Now = nil
	require.Equal(t, Policy{
		Deletions: 1, Mutations: 10_000, Bytes: 1 << 30,
		MinInterval: time.Second, MaxInterval: time.Hour, Budget: 0.02,
		StartupDelay: time.Second, Delay: 100 * time.Millisecond,
		RetryMin: time.Second, RetryMax: 5 * time.Minute,
	}, p)

	off := Policy{
		Deletions: -1, Mutations: -1, Bytes: -1, MinInterval: -1, MaxInterval: -1,
		Budget: -1, StartupDelay: -1, Delay: -1, RetryMin: -1, RetryMax: -1,
	}.withDefaults()
	off.Now = nil
	require.Equal(t, Policy{
		Deletions: math.MaxInt64, Mutations: math.MaxInt64, Bytes: math.MaxInt64,
		MaxInterval: forever, Budget: 1,
	}, off)

	for _, budget := range []float64{math.Inf(1), 1.5, 1} {
		require.Equal(t, 1.0, Policy{Budget: budget}.withDefaults().Budget)
	}
	require.Equal(t, 0.02, Policy{Budget: math.NaN()}.withDefaults().Budget)
	require.Equal(t, time.Hour, Policy{RetryMin: time.Hour, RetryMax: time.Minute}.withDefaults().RetryMax)
}

func TestRetry(t *testing.T) {
	// Failures are waited for ever longer, up to a limit, however many.
	p := Policy{}.withDefaults()
	for failures, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, math.MaxInt: 5 * time.Minute,
	} {
		require.Equal(t, want, p.retry(failures), "%d", failures)
	}
	longest := Policy{RetryMin: math.MaxInt64, RetryMax: math.MaxInt64}.withDefaults()
	require.Equal(t, forever, longest.retry(1000))
}

// policies generates any policy, sensible or not.
func policies() *rapid.Generator[Policy] {
	return rapid.Custom(func(t *rapid.T) Policy {
		duration := rapid.Map(rapid.OneOf(rapid.Int64Range(-1, 1), rapid.Int64Range(0, int64(time.Hour)), rapid.Int64()),
			func(n int64) time.Duration { return time.Duration(n) })
		count := rapid.OneOf(rapid.Int64Range(-1, 10), rapid.Int64())
		return Policy{
			Deletions: count.Draw(t, "Deletions"), Mutations: count.Draw(t, "Mutations"), Bytes: count.Draw(t, "Bytes"),
			MinInterval: duration.Draw(t, "MinInterval"), MaxInterval: duration.Draw(t, "MaxInterval"),
			Budget: rapid.Float64().Draw(t, "Budget"), StartupDelay: duration.Draw(t, "StartupDelay"), Delay: duration.Draw(t, "Delay"),
			RetryMin: duration.Draw(t, "RetryMin"), RetryMax: duration.Draw(t, "RetryMax"),
		}.withDefaults()
	})
}

func activities(past gc.Activity) *rapid.Generator[gc.Activity] {
	return rapid.Custom(func(t *rapid.T) gc.Activity {
		a := past
		a.Deletions += rapid.Uint64Range(0, 10).Draw(t, "deletions")
		a.Mutations += a.Deletions - past.Deletions + rapid.Uint64Range(0, 10).Draw(t, "mutations")
		a.Bytes += rapid.Int64Range(0, 10).Draw(t, "bytes")
		a.NextExpiry = time.Time{}
		if rapid.Bool().Draw(t, "expires") {
			a.NextExpiry = noon.Add(time.Duration(rapid.Int64().Draw(t, "in")))
		}
		return a
	})
}

func TestPolicyMakesProgress(t *testing.T) {
	// Whatever the policy and the past, a collection comes: who waits as long
	// as told, and no shorter, collects then, or looks again because the clock
	// may be set. More activity never makes it later, and none begins before
	// the intervals and the budget allow.
	rapid.Check(t, func(t *rapid.T) {
		p := policies().Draw(t, "policy")
		s, seen, now := p.start(), gc.Activity{}, at(0)
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			seen = activities(seen).Draw(t, "activity")
			d := p.next(s, seen, now)
			more := activities(seen).Draw(t, "more")
			more.NextExpiry = seen.NextExpiry
			sooner := p.next(s, more, now)
			require.True(t, sooner.collect || !d.collect && sooner.wait <= d.wait)
			require.True(t, d.watch || d.collect || sooner == d, "a change that is not watched for matters")
			for !d.collect {
				require.Positive(t, d.wait)
				limit := !seen.NextExpiry.IsZero() && d.wait == recheck
				now = moment{now.since + d.wait, now.wall.Add(d.wait)}
				d = p.next(s, seen, now)
				if limit {
					break
				}
				require.True(t, d.collect)
			}
			if !d.collect {
				continue
			}
			if now.since > forever/2 {
				return // no process runs that long
			}
			require.GreaterOrEqual(t, now.since, max(s.pause, s.rest))
			cost := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "cost"))
			ended := moment{now.since + cost, now.wall.Add(cost)}
			var err error
			if rapid.Bool().Draw(t, "fails") {
				err = errors.New("failure")
			}
			s = p.collected(s, seen, now, ended, err)
			require.GreaterOrEqual(t, s.rest-now.since, cost)
			now = ended
		}
	})
}
