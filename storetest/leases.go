package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// RunLeases tries every promise of leases.Manager, and what leases do for
// writes, on a fresh pool each. Its own collections must keep nothing for being
// new: Rules.Grace is zero.
func RunLeases(t *testing.T, tc Tenancy) {
	for name, promises := range map[string][]leasePromise{
		"Manager":        managerPromises,
		"Create":         createPromises,
		"Get":            getPromises,
		"List":           listPromises,
		"Renew":          renewPromises,
		"Delete":         endPromises,
		"AddResource":    addPromises,
		"DeleteResource": giveBackPromises,
		"ListResources":  heldPromises,
		"Writes":         leasedWritePromises,
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range promises {
				t.Run(p.sentence, func(t *testing.T) {
					t.Parallel()
					p.holds(newLeaseEnv(t, tc))
				})
			}
		})
	}
}

type leasePromise struct {
	sentence string
	holds    func(*leaseEnv)
}

var managerPromises = []leasePromise{
	{"a lease that has expired is gone, and its id can be used again", func(e *leaseEnv) {
		e.make("x", leases.WithTTL(time.Minute), leases.WithLabels(map[string]string{"a": "old"}))
		e.add("x", leases.Resource{Type: leases.Images, ID: "held"})
		e.step(time.Minute)
		require.Equal(e, []string{"x"}, e.ids(), "it ends after that moment, not at it")
		e.step(1)
		e.requireGone("x")
		e.reopen()
		e.requireGone("x")
		again := e.make("x")
		require.Nil(e, again.Labels)
		e.requireLease(again)
		e.requireHolds("x")
	}},
	{"a context that is done changes nothing and is told so", func(e *leaseEnv) {
		kept := e.make("x")
		e.add("x", leases.Resource{Type: leases.Images, ID: "old"})
		done, cancel := context.WithCancel(e.ctx)
		cancel()
		for name, call := range leaseMethods {
			requireClassNamed(e, name, call(done, e, "x"), context.Canceled)
		}
		_, err := e.Create(done, leases.WithID("y"))
		requireClass(e, err, context.Canceled)
		_, err = e.List(done)
		requireClass(e, err, context.Canceled)
		require.Equal(e, []leases.Lease{kept}, e.all())
		e.requireHolds("x", leases.Resource{Type: leases.Images, ID: "old"})
	}},
	{"an id that ValidateID refuses is InvalidArgument", func(e *leaseEnv) {
		for _, id := range []string{"", hexOf('a', leases.MaxIDLength+1)} {
			for name, call := range leaseMethods {
				requireClassNamed(e, name, call(e.ctx, e, id), errdefs.ErrInvalidArgument)
			}
			_, err := e.Create(e.ctx, leases.WithID(id))
			requireClass(e, err, errdefs.ErrInvalidArgument)
		}
		for _, id := range []string{hexOf('a', leases.MaxIDLength), "a/b", "..", " ", "\x00\xff", "ü"} {
			e.requireLease(e.make(id))
		}
	}},
	{"what a method changed is there when the pool is opened again", func(e *leaseEnv) {
		l := e.make("x", leases.WithLabels(map[string]string{"a": "1"}))
		e.make("gone")
		e.add("x", ingestResource("r"), ingestResource("given back"))
		renewed, err := e.Renew(e.ctx, "x", e.now().Add(time.Hour))
		require.NoError(e, err)
		_, err = e.Delete(e.ctx, "gone")
		require.NoError(e, err)
		require.NoError(e, e.DeleteResource(e.ctx, "x", ingestResource("given back")))
		e.reopen()
		require.Equal(e, l.CreatedAt, renewed.CreatedAt)
		require.Equal(e, []leases.Lease{renewed}, e.all())
		e.requireHolds("x", ingestResource("r"))
	}},
	{"the leases of one namespace are nothing to another", func(e *leaseEnv) {
		e.make("x")
		for name, call := range leaseMethods {
			requireClassNamed(e, name, call(e.ctx, e.of("b"), "x"), errdefs.ErrNotFound)
		}
		other, err := e.of("b").Create(e.ctx, leases.WithID("x"), leases.WithLabels(map[string]string{"of": "b"}))
		require.NoError(e, err)
		dgst := e.as("a").put([]byte("in a"))
		require.NoError(e, e.of("b").AddResource(e.ctx, "x", contentResource(dgst)))
		e.requireHolds("x")
		e.collectNow()
		e.as("a").requireAbsent(dgst)
		_, err = e.Delete(e.ctx, "x")
		require.NoError(e, err)
		got, err := e.of("b").Get(e.ctx, "x")
		require.NoError(e, err)
		require.Equal(e, other, got)
	}},
	{"of many calls at once each is as if it were alone", func(e *leaseEnv) {
		made := make([]bool, 8)
		var wg sync.WaitGroup
		for i := range made {
			wg.Go(func() {
				_, err := e.Create(e.ctx, leases.WithID("one"))
				made[i] = err == nil
				own := fmt.Sprint("own ", i)
				_, err = e.Create(e.ctx, leases.WithID(own))
				err = errors.Join(err, e.AddResource(e.ctx, "one", ingestResource(own)), e.AddResource(e.ctx, own, ingestResource(own)))
				if i%2 == 0 {
					_, gone := e.Delete(e.ctx, own)
					err = errors.Join(err, gone)
				}
				if err != nil {
					e.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		count := 0
		for _, m := range made {
			if m {
				count++
			}
		}
		require.Equal(e, 1, count)
		require.Equal(e, []string{"one", "own 1", "own 3", "own 5", "own 7"}, e.ids())
		held, err := e.ListResources(e.ctx, "one", leases.Page{})
		require.NoError(e, err)
		require.Len(e, held, len(made))
	}},
}

var createPromises = []leasePromise{
	{"a lease is what was asked for, and returned", func(e *leaseEnv) {
		given := map[string]string{"a": "1", "empty": ""}
		l := e.make("x", leases.WithLabels(given))
		require.Equal(e, leases.Lease{ID: "x", CreatedAt: e.now(), Labels: map[string]string{"a": "1"}}, l)
		require.Equal(e, map[string]string{"a": "1", "empty": ""}, given)
		e.requireLease(l)
		require.Nil(e, e.make("bare").Labels)
	}},
	{"without WithID it has an id of NewID", func(e *leaseEnv) {
		seen := map[string]bool{}
		for range 20 {
			l, err := e.Create(e.ctx)
			require.NoError(e, err)
			require.Len(e, l.ID, len(leases.NewID()))
			require.False(e, seen[l.ID])
			seen[l.ID] = true
			e.requireLease(l)
		}
	}},
	{"without an expiry it never ends", func(e *leaseEnv) {
		l := e.make("x", leases.WithExpiry(time.Time{}), leases.WithLabels(map[string]string{"a": "1"}))
		require.Zero(e, l.ExpiresAt)
		e.step(200 * 365 * 24 * time.Hour)
		e.collectNow()
		e.requireLease(l)
	}},
	{"an expiry, a time to live or a label sets its end, and labels show it", createExpiries},
	{"an id that is in use is AlreadyExists", func(e *leaseEnv) {
		l := e.make("x", leases.WithTTL(time.Hour))
		_, err := e.Create(e.ctx, leases.WithID("x"), leases.WithLabels(map[string]string{"a": "1"}))
		requireClass(e, err, errdefs.ErrAlreadyExists)
		e.requireLease(l)
	}},
	{"labels over the limits are InvalidArgument", func(e *leaseEnv) {
		for name, bad := range badLabels() {
			_, err := e.Create(e.ctx, leases.WithID("x"), leases.WithLabels(bad))
			requireClassNamed(e, name, err, errdefs.ErrInvalidArgument)
		}
		require.Empty(e, e.all())
		e.requireLease(e.make("x", leases.WithLabels(largestLabel())))
	}},
	{"an expiry in the past is no error: the lease is gone at once", func(e *leaseEnv) {
		for i, opt := range []leases.Opt{
			leases.WithExpiry(e.now().Add(-1)), leases.WithTTL(0), leases.WithTTL(-time.Hour), leases.WithExpiry(time.Unix(0, 0)),
		} {
			id := fmt.Sprint(i)
			require.False(e, e.make(id, opt).ExpiresAt.IsZero())
			e.requireGone(id)
		}
	}},
	{"the error of an option is returned as it is", func(e *leaseEnv) {
		own := errors.New("own")
		_, err := e.Create(e.ctx, leases.WithID("x"), func(*leases.CreateOptions) error { return own })
		require.Equal(e, own, err)
		require.Empty(e, e.all())
	}},
}

func createExpiries(e *leaseEnv) {
	soon, late := e.now().Add(time.Minute), e.now().Add(time.Hour+7)
	label := func(at string) leases.Opt { return leases.WithLabels(map[string]string{labels.GCExpire: at}) }
	for name, tc := range map[string]struct {
		opts []leases.Opt
		want time.Time
		text string
	}{
		"expiry":           {[]leases.Opt{leases.WithExpiry(late)}, late, "2030-01-01T01:00:00.000000012Z"},
		"in another zone":  {[]leases.Opt{leases.WithExpiry(late.In(time.FixedZone("", 3600)))}, late, "2030-01-01T01:00:00.000000012Z"},
		"time to live":     {[]leases.Opt{leases.WithTTL(time.Hour)}, e.now().Add(time.Hour), "2030-01-01T01:00:00.000000005Z"},
		"the last counts":  {[]leases.Opt{leases.WithTTL(time.Hour), leases.WithExpiry(soon)}, soon, "2030-01-01T00:01:00.000000005Z"},
		"label":            {[]leases.Opt{label("2030-01-01T05:00:00+02:00")}, time.Date(2030, 1, 1, 3, 0, 0, 0, time.UTC), "2030-01-01T05:00:00+02:00"},
		"expiry and label": {[]leases.Opt{label("2030-01-01T05:00:00Z"), leases.WithExpiry(soon)}, soon, "2030-01-01T00:01:00.000000005Z"},
		"ttl and label":    {[]leases.Opt{label("2030-01-01T05:00:00Z"), leases.WithTTL(time.Minute)}, soon, "2030-01-01T00:01:00.000000005Z"},
	} {
		l := e.make(name, tc.opts...)
		require.Equal(e, tc.want, l.ExpiresAt, name)
		require.Equal(e, map[string]string{labels.GCExpire: tc.text}, l.Labels, name)
		e.requireLease(l)
	}
}

var getPromises = []leasePromise{
	{"a lease that is not there is NotFound", func(e *leaseEnv) {
		e.requireGone("x")
		e.make("x")
		e.requireGone("X")
		e.requireGone("xx")
	}},
	{"the result is the caller's, labels included", func(e *leaseEnv) {
		given := map[string]string{"a": "1"}
		e.make("x", leases.WithLabels(given)).Labels["b"] = "added"
		given["a"] = "later"
		got, err := e.Get(e.ctx, "x")
		require.NoError(e, err)
		want := maps.Clone(got.Labels)
		got.Labels["a"] = "changed"
		e.all()[0].Labels["a"] = "changed"
		require.Equal(e, map[string]string{"a": "1"}, want)
		require.Equal(e, want, e.all()[0].Labels)
	}},
}

var listPromises = []leasePromise{
	{"leases are ordered by id, and all without filters or with an empty one", func(e *leaseEnv) {
		require.Empty(e, e.all())
		for _, id := range []string{"b", "a", "B", "a/1", "ü", "aa", "a-"} {
			e.make(id)
		}
		want := []string{"B", "a", "a-", "a/1", "aa", "b", "ü"}
		require.Equal(e, want, e.ids())
		require.Equal(e, want, e.ids(""))
		require.Equal(e, want, e.ids("id==a", ""))
	}},
	{"one of the filters has to match, over every field", func(e *leaseEnv) {
		e.make("x", leases.WithTTL(time.Minute), leases.WithLabels(map[string]string{"a": "1", "b.c/d": "2"}))
		e.step(time.Second)
		e.make("y", leases.WithTTL(time.Hour))
		e.make("z", leases.WithLabels(map[string]string{"a": "2"}))
		for filter, want := range map[string][]string{
			"id==y":                                 {"y"},
			"id!=y":                                 {"x", "z"},
			"labels.a":                              {"x", "z"},
			"labels.a==1":                           {"x"},
			`labels."b.c/d"==2`:                     {"x"},
			"labels.a,id==z":                        {"z"},
			"expiresat":                             {"x", "y"},
			"expiresat<2030-01-01T00:30:00Z":        {"x"},
			"createdat<2030-01-01T00:00:01Z":        {"x"},
			`labels."containerd.io/gc.expire"~=T00`: {"x"},
			"unknown":                               {},
		} {
			require.Equal(e, want, e.ids(filter), filter)
		}
		require.Equal(e, []string{"x", "y"}, e.ids("id==y", "labels.a==1"))
	}},
	{"a filter that does not parse is InvalidArgument", func(e *leaseEnv) {
		e.make("x")
		for _, bad := range []string{"id==", "==x", "id=x", " "} {
			_, err := e.List(e.ctx, "id==x", bad)
			requireClassNamed(e, bad, err, errdefs.ErrInvalidArgument)
		}
	}},
}

var renewPromises = []leasePromise{
	{"a lease ends at the new time, sooner or later, and is returned", func(e *leaseEnv) {
		made := e.make("x", leases.WithTTL(time.Minute), leases.WithLabels(map[string]string{"a": "1"}))
		for _, d := range []time.Duration{time.Hour, time.Second, 1000 * time.Hour} {
			want := made
			want.ExpiresAt = e.now().Add(d)
			want.Labels = map[string]string{"a": "1", labels.GCExpire: labels.FormatExpiry(want.ExpiresAt)}
			got, err := e.Renew(e.ctx, "x", want.ExpiresAt.In(time.FixedZone("", 3600)))
			require.NoError(e, err)
			require.Equal(e, want, got)
			e.requireLease(want)
		}
		e.step(1000 * time.Hour)
		require.Equal(e, []string{"x"}, e.ids())
		e.step(1)
		e.requireGone("x")
	}},
	{"a zero time makes it end never", func(e *leaseEnv) {
		bare := e.make("x", leases.WithTTL(time.Minute))
		got, err := e.Renew(e.ctx, "x", time.Time{})
		require.NoError(e, err)
		bare.ExpiresAt, bare.Labels = time.Time{}, nil
		require.Equal(e, bare, got)
		e.step(1000 * time.Hour)
		e.collectNow()
		e.requireLease(bare)
	}},
	{"a time in the past ends it at once, and it cannot be brought back", func(e *leaseEnv) {
		e.make("x")
		dgst := e.as("a").put([]byte("held"))
		e.add("x", contentResource(dgst))
		_, err := e.Renew(e.ctx, "x", e.now().Add(-1))
		require.NoError(e, err)
		e.requireGone("x")
		require.Equal(e, Removed{Records: 1, Leases: 1}, e.collectNow())
		e.as("a").requireAbsent(dgst)
	}},
	{"what it held stays held for longer", func(e *leaseEnv) {
		e.make("x", leases.WithTTL(time.Minute))
		dgst := putIn(e, e.under("x"), e.as("a").store, []byte("renewed"))
		_, err := e.Renew(e.ctx, "x", e.now().Add(time.Hour))
		require.NoError(e, err)
		e.collectNow()
		e.step(time.Hour)
		require.Zero(e, e.collectNow())
		e.as("a").requireContent(dgst, []byte("renewed"))
		e.step(1)
		require.Equal(e, Removed{Records: 1, Leases: 1}, e.collectNow())
	}},
}
