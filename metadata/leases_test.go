package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
	"github.com/cellarstore/cellar/namespaces"
)

// leaseWorld is a world without grace, with a clock and the leases of
// namespace a.
type leaseWorld struct {
	*world
	clock *clock
}

func newLeaseWorld(t *testing.T, change ...func(*world)) *leaseWorld {
	t.Helper()
	w := &leaseWorld{clock: newClock()}
	change = append([]func(*world){withClock(w.clock), func(w *world) { w.opts.Grace = -1 }}, change...)
	w.world = newWorld(t, change...)
	return w
}

func (w *leaseWorld) leases() leases.Manager { return w.leasesOf("a") }

func (w *leaseWorld) leasesOf(ns string) leases.Manager {
	w.Helper()
	m, err := w.db.NamespaceLeases(ns)
	require.NoError(w, err)
	return m
}

func (w *leaseWorld) create(id string, opts ...leases.Opt) leases.Lease {
	w.Helper()
	l, err := w.leases().Create(w.Context(), append(opts, leases.WithID(id))...)
	require.NoError(w, err)
	return l
}

func (w *leaseWorld) add(id string, rs ...leases.Resource) {
	w.Helper()
	for _, r := range rs {
		require.NoError(w, w.leases().AddResource(w.Context(), id, r))
	}
}

// requireHeld checks what a lease of namespace a holds.
func (w *leaseWorld) requireHeld(id string, want ...leases.Resource) {
	w.Helper()
	got, err := w.leases().ListResources(w.Context(), id, leases.Page{})
	require.NoError(w, err)
	require.ElementsMatch(w, want, got)
}

// ids are those of the leases of namespace a that match.
func (w *leaseWorld) ids(filters ...string) []string {
	w.Helper()
	all, err := w.leases().List(w.Context(), filters...)
	require.NoError(w, err)
	ids := []string{}
	for _, l := range all {
		ids = append(ids, l.ID)
	}
	return ids
}

func contentOf(dgst digest.Digest) leases.Resource {
	return leases.Resource{Type: leases.Content, ID: dgst.String()}
}

func ingestOf(ref string) leases.Resource { return leases.Resource{Type: leases.Ingests, ID: ref} }

func TestLeaseCreate(t *testing.T) {
	// A lease is what Create was asked for, and is the same for Get and List,
	// now and when the process has died.
	w := newLeaseWorld(t)
	now := w.clock.now()
	label := map[string]string{"k": "v"}
	shown := func(at time.Time) map[string]string {
		return map[string]string{labels.GCExpire: labels.FormatExpiry(at)}
	}
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for id, tc := range map[string]struct {
		opts []leases.Opt
		want leases.Lease
	}{
		"plain":    {nil, leases.Lease{}},
		"labels":   {[]leases.Opt{leases.WithLabels(label), leases.WithLabels(map[string]string{"e": ""})}, leases.Lease{Labels: label}},
		"ttl":      {[]leases.Opt{leases.WithTTL(time.Hour)}, leases.Lease{ExpiresAt: now.Add(time.Hour), Labels: shown(now.Add(time.Hour))}},
		"expiry":   {[]leases.Opt{leases.WithExpiry(far.In(time.FixedZone("", 3600)))}, leases.Lease{ExpiresAt: far, Labels: shown(far)}},
		"no time":  {[]leases.Opt{leases.WithExpiry(time.Time{})}, leases.Lease{}},
		"label":    {[]leases.Opt{leases.WithLabels(map[string]string{labels.GCExpire: "9999-12-31T23:59:59Z"})}, leases.Lease{ExpiresAt: far, Labels: shown(far)}},
		"its text": {[]leases.Opt{leases.WithLabels(map[string]string{labels.GCExpire: "9999-12-31T22:59:59-01:00"})}, leases.Lease{ExpiresAt: far, Labels: map[string]string{labels.GCExpire: "9999-12-31T22:59:59-01:00"}}},
		"both":     {[]leases.Opt{leases.WithExpiry(far), leases.WithLabels(shown(now))}, leases.Lease{ExpiresAt: far, Labels: shown(far)}},
		"\x00\xff": {nil, leases.Lease{}},
	} {
		tc.want.ID, tc.want.CreatedAt = id, now
		require.Equal(t, tc.want, w.create(id, tc.opts...), "lease %q", id)
		got, err := w.leases().Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, tc.want, got, "lease %q", id)
		w.kill()
		all, err := w.leases().List(t.Context(), fmt.Sprintf("id==%q", id))
		require.NoError(t, err)
		require.Equal(t, []leases.Lease{tc.want}, all)
	}
}

func TestLeaseCreateRandomID(t *testing.T) {
	// Without an id a lease has one that nobody else has.
	w := newLeaseWorld(t)
	for range 3 {
		l, err := w.leases().Create(t.Context())
		require.NoError(t, err)
		require.NoError(t, leases.ValidateID(l.ID))
	}
	require.Len(t, w.ids(), 3)
}

func TestLeaseCreateRefused(t *testing.T) {
	// What Create refuses changes nothing, not even the namespace.
	w := newLeaseWorld(t)
	own := errors.New("own")
	_, err := w.leases().Create(t.Context(), func(*leases.CreateOptions) error { return own })
	require.Equal(t, own, err)
	for _, opt := range []leases.Opt{
		leases.WithID(""), leases.WithID(strings.Repeat("a", leases.MaxIDLength+1)),
		func(o *leases.CreateOptions) error { o.ID = strings.Repeat("a", leases.MaxIDLength+1); return nil },
		leases.WithLabels(map[string]string{"k": strings.Repeat("v", 5000)}),
	} {
		_, err := w.leases().Create(t.Context(), opt)
		requireClass(t, err, errInvalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.leases().Create(ctx)
	require.ErrorIs(t, err, context.Canceled)
	names, err := w.db.Namespaces().List(t.Context())
	require.NoError(t, err)
	require.Empty(t, names)

	w.create("x", leases.WithLabels(map[string]string{"k": "v"}))
	_, err = w.leases().Create(t.Context(), leases.WithID("x"))
	requireClass(t, err, errExists)
	require.Equal(t, []string{"x"}, w.ids("labels.k==v"))
	names, err = w.db.Namespaces().List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names, "the first lease makes the namespace")
}

func TestLeaseOwnership(t *testing.T) {
	// What goes in and what comes out is the caller's.
	w := newLeaseWorld(t)
	given := map[string]string{"k": "v"}
	l := w.create("x", leases.WithLabels(given), leases.WithTTL(time.Hour))
	given["k"], l.Labels["k"] = "changed", "changed"
	got, err := w.leases().Get(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, "v", got.Labels["k"])
}

func TestLeasesNeedNamespace(t *testing.T) {
	// Leases takes the namespace from the context, NamespaceLeases its own, and
	// neither sees the leases of another.
	w := newLeaseWorld(t)
	w.create("x")
	_, err := w.db.Leases().Get(t.Context(), "x")
	requireClass(t, err, errPrecondition)
	_, err = w.db.Leases().List(namespaces.WithNamespace(t.Context(), "-"))
	requireClass(t, err, errInvalid)
	_, err = w.db.NamespaceLeases("-")
	requireClass(t, err, errInvalid)

	_, err = w.db.Leases().Get(namespaces.WithNamespace(t.Context(), "a"), "x")
	require.NoError(t, err)
	_, err = w.db.Leases().Get(namespaces.WithNamespace(t.Context(), "b"), "x")
	requireClass(t, err, errNotFound)
	_, err = w.leases().Get(namespaces.WithNamespace(t.Context(), "b"), "x")
	require.NoError(t, err)
	all, err := w.leasesOf("b").List(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
}

// everyLeaseMethod calls all methods that take the id of a lease.
func everyLeaseMethod(ctx context.Context, m leases.Manager, id string) map[string]error {
	errs := map[string]error{}
	_, errs["Get"] = m.Get(ctx, id)
	_, errs["Renew"] = m.Renew(ctx, id, time.Time{})
	_, errs["Delete"] = m.Delete(ctx, id)
	errs["AddResource"] = m.AddResource(ctx, id, ingestOf("r"))
	errs["AddResource, bad"] = m.AddResource(ctx, id, leases.Resource{})
	errs["DeleteResource"] = m.DeleteResource(ctx, id, ingestOf("r"))
	errs["DeleteResource, bad"] = m.DeleteResource(ctx, id, leases.Resource{})
	_, errs["ListResources"] = m.ListResources(ctx, id, leases.Page{})
	return errs
}

func TestLeaseErrors(t *testing.T) {
	// A lease that never was, has gone, or has expired is NotFound everywhere,
	// a bad id InvalidArgument, and a context that is done comes first.
	w := newLeaseWorld(t)
	w.create("gone")
	w.create("over", leases.WithTTL(time.Second))
	w.create("dead", leases.WithExpiry(w.clock.now().Add(-1)))
	w.create("live")
	_, err := w.leases().Delete(t.Context(), "gone")
	require.NoError(t, err)
	w.clock.step(time.Second)
	require.Contains(t, w.ids(), "over", "it ends strictly after")
	w.clock.step(1)
	require.Equal(t, []string{"live"}, w.ids())

	for _, id := range []string{"never", "gone", "over", "dead"} {
		for method, err := range everyLeaseMethod(t.Context(), w.leases(), id) {
			require.Equal(t, []error{errNotFound}, classesOf(err), "%s of %q: %v", method, id, err)
		}
	}
	for _, id := range []string{"", strings.Repeat("a", leases.MaxIDLength+1)} {
		for method, err := range everyLeaseMethod(t.Context(), w.leases(), id) {
			require.Equal(t, []error{errInvalid}, classesOf(err), "%s: %v", method, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for method, err := range everyLeaseMethod(ctx, w.leases(), "live") {
		require.ErrorIs(t, err, context.Canceled, method)
	}
	w.requireHeld("live")
}

func TestLeaseCreatedAfterItsLabelledEnd(t *testing.T) {
	// A lease whose label says that it is over when it is created is there, as
	// in containerd, until a collection, from which it keeps nothing.
	w := newLeaseWorld(t)
	w.create("overdue", leases.WithLabels(map[string]string{labels.GCExpire: "0001-01-01T00:00:00Z"}))
	require.NoError(t, w.leases().AddResource(t.Context(), "overdue", ingestOf("r")))
	require.Equal(t, []string{"overdue"}, w.ids())
	_, err := w.db.GarbageCollect(t.Context())
	require.NoError(t, err)
	require.Empty(t, w.ids())
	_, err = w.leases().Get(t.Context(), "overdue")
	require.True(t, errdefs.IsNotFound(err), "%v", err)
}

func TestLeaseIDIsReused(t *testing.T) {
	// The id of a lease that has expired can be used again, and what the old
	// one held is not held by the new one.
	w := newLeaseWorld(t)
	w.create("x", leases.WithTTL(time.Second), leases.WithLabels(map[string]string{"k": "v"}))
	w.add("x", ingestOf("r"))
	w.clock.step(time.Minute)
	require.Empty(t, w.create("x").Labels)
	w.requireHeld("x")
}

func TestLeaseList(t *testing.T) {
	// List is ordered by id and takes filters on every field.
	w := newLeaseWorld(t)
	w.create("b", leases.WithLabels(map[string]string{"k.x": "v"}))
	w.clock.step(time.Hour)
	w.create("c", leases.WithTTL(time.Hour))
	w.create("a")
	for filter, want := range map[string][]string{
		"":                                 {"a", "b", "c"},
		"id==b":                            {"b"},
		"labels.k.x==v":                    {"b"},
		"expiresat":                        {"c"},
		"expiresat<2030-01-02T05:04:06Z":   {"c"},
		`labels."containerd.io/gc.expire"`: {"c"},
		"id==d":                            {},
	} {
		require.Equal(t, want, w.ids(filter), "filter %q", filter)
	}
	require.Equal(t, []string{"a", "b"}, w.ids("id==b", "id==a"))
	_, err := w.leases().List(t.Context(), "id==")
	requireClass(t, err, errInvalid)
}

func TestLeaseRenew(t *testing.T) {
	// Renew moves the end to any time, and shows it; only a lease that is over
	// can't be had back.
	w := newLeaseWorld(t)
	w.create("x", leases.WithLabels(map[string]string{labels.GCExpire: "2031-01-01T00:00:00+01:00", "k": "v"}))
	for _, at := range []time.Time{w.clock.now().Add(time.Hour), {}, w.clock.now().Add(time.Minute).In(time.FixedZone("", 60))} {
		l, err := w.leases().Renew(t.Context(), "x", at)
		require.NoError(t, err)
		require.True(t, at.Equal(l.ExpiresAt))
		want := map[string]string{"k": "v"}
		if !at.IsZero() {
			want[labels.GCExpire] = labels.FormatExpiry(at)
		}
		require.Equal(t, want, l.Labels)
		w.kill()
		got, err := w.leases().Get(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
	_, err := w.leases().Renew(t.Context(), "x", w.clock.now().Add(-1))
	require.NoError(t, err)
	_, err = w.leases().Renew(t.Context(), "x", time.Time{})
	requireClass(t, err, errNotFound)
}

func TestLeaseWithoutLabels(t *testing.T) {
	// Where there are no labels there is no map, whatever there was before.
	w := newLeaseWorld(t)
	w.create("x", leases.WithTTL(time.Hour))
	l, err := w.leases().Renew(t.Context(), "x", time.Time{})
	require.NoError(t, err)
	require.Nil(t, l.Labels)
	require.Nil(t, w.create("y", leases.WithLabels(map[string]string{"e": ""})).Labels)
}

func TestLeaseRenewMendsBadExpiry(t *testing.T) {
	// A label that is no time never ends a lease, and Check says so until it is
	// renewed.
	w := newLeaseWorld(t)
	l := w.create("x", leases.WithLabels(map[string]string{labels.GCExpire: "tomorrow"}))
	require.True(t, l.ExpiresAt.IsZero())
	require.Equal(t, "tomorrow", l.Labels[labels.GCExpire])
	w.clock.step(1000 * time.Hour)
	w.collect()
	require.Equal(t, []string{"x"}, w.ids())
	findings, err := w.db.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, findings, 1)
	require.Equal(t, metadata.FoundExpiry, findings[0].Code)
	_, err = w.leases().Renew(t.Context(), "x", time.Time{})
	require.NoError(t, err)
	w.requireSound()
}

func TestLeaseDelete(t *testing.T) {
	// Delete tells what the lease held; twice is NotFound unless that is asked
	// for. What it held goes with the next collection.
	w := newLeaseWorld(t)
	w.create("x")
	ctx := leases.WithLease(t.Context(), "x")
	kept := w.putIn(ctx, "a", blob("kept", small))
	w.add("x", ingestOf("r"), leases.Resource{Type: leases.Images, ID: "i"}, leases.Resource{Type: "snapshots/native", ID: "s"})
	w.collect()
	w.requireContent("a", blob("kept", small))

	released, err := w.leases().Delete(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, leases.Released{Content: 1, Ingests: 1, Other: 2}, released)
	w.requireContent("a", blob("kept", small))
	_, err = w.leases().Delete(t.Context(), "x")
	requireClass(t, err, errNotFound)
	released, err = w.leases().Delete(t.Context(), "x", leases.IfExists())
	require.NoError(t, err)
	require.Zero(t, released)
	w.kill()
	require.Empty(t, w.ids())
	w.collect()
	w.requireAbsent("a", kept)
	w.create("x")
	w.requireHeld("x")
}

func TestLeaseDeleteSynchronous(t *testing.T) {
	// A synchronous Delete has collected when it returns; if that fails the
	// lease is gone all the same. Inside Update it is refused.
	w := newLeaseWorld(t)
	w.create("x")
	w.create("y")
	ctx := leases.WithLease(t.Context(), "x")
	dgst := w.putIn(ctx, "a", blob("kept", small))
	err := w.db.Update(t.Context(), func(ctx context.Context) error {
		_, err := w.leases().Delete(ctx, "x", leases.Synchronous())
		return err
	})
	requireClass(t, err, errPrecondition)
	released, err := w.leases().Delete(t.Context(), "x", leases.Synchronous())
	require.NoError(t, err)
	require.Equal(t, leases.Released{Content: 1}, released)
	w.requireAbsent("a", dgst)
	require.Empty(t, w.stored())

	ctx = leases.WithLease(t.Context(), "y")
	w.putIn(ctx, "a", blob("other", small))
	w.fault.Fail(vfs.OpRemove, 1, errors.New("device error"))
	_, err = w.leases().Delete(t.Context(), "y", leases.Synchronous())
	require.Error(t, err)
	require.Empty(t, w.ids())
}

func TestLeaseResources(t *testing.T) {
	// A lease holds each resource once, of every type, until it is given back;
	// what it does not hold can be given back too.
	w := newLeaseWorld(t)
	w.create("x")
	all := []leases.Resource{
		contentOf(digest.SHA256.FromString("a")), contentOf(digest.SHA384.FromString("a")), contentOf(digest.SHA512.FromString("a")),
		{Type: leases.Images, ID: "\x00"}, {Type: leases.Images, ID: "docker.io/x"},
		ingestOf("r"), ingestOf(strings.Repeat("r", cellar.MaxRefLength)),
		{Type: "snapshots/a", ID: "b\x00c"}, {Type: "snapshots/b", ID: "a"},
	}
	for range 2 {
		w.add("x", all...)
	}
	w.kill()
	got, err := w.leases().ListResources(t.Context(), "x", leases.Page{})
	require.NoError(t, err)
	require.Equal(t, all, got, "ordered by type and id")
	for range 2 {
		require.NoError(t, w.leases().DeleteResource(t.Context(), "x", all[0]))
	}
	w.kill()
	w.requireHeld("x", all[1:]...)

	for _, tc := range []struct {
		r    leases.Resource
		want error
	}{
		{leases.Resource{Type: "containers", ID: "x"}, errdefs.ErrNotImplemented},
		{leases.Resource{Type: leases.Content, ID: "x"}, errInvalid},
		{leases.Resource{Type: leases.Ingests}, errInvalid},
	} {
		require.ErrorIs(t, w.leases().AddResource(t.Context(), "x", tc.r), tc.want)
		require.ErrorIs(t, w.leases().DeleteResource(t.Context(), "x", tc.r), tc.want)
	}
}

func TestLeaseResourcePages(t *testing.T) {
	// Pages of any size give every resource exactly once, though others come
	// and go between them, the last of a page included.
	w := newLeaseWorld(t)
	w.create("x")
	var all []leases.Resource
	for i := range 40 {
		all = append(all, ingestOf(fmt.Sprintf("%02d", i)))
	}
	w.add("x", all...)
	w.add("x", contentOf(digest.FromString("a")))
	all = append([]leases.Resource{contentOf(digest.FromString("a"))}, all...)
	for _, limit := range []int{1, 2, 40, 41, 42, 1000} {
		var got []leases.Resource
		for page := (leases.Page{Limit: limit}); ; page.After = got[len(got)-1] {
			next, err := w.leases().ListResources(t.Context(), "x", page)
			require.NoError(t, err)
			require.LessOrEqual(t, len(next), limit)
			got = append(got, next...)
			if len(next) < limit {
				break
			}
		}
		require.Equal(t, all, got, "pages of %d", limit)
	}
	require.NoError(t, w.leases().DeleteResource(t.Context(), "x", all[5]))
	next, err := w.leases().ListResources(t.Context(), "x", leases.Page{After: all[5], Limit: 1})
	require.NoError(t, err)
	require.Equal(t, all[6:7], next)
	for _, page := range []leases.Page{{Limit: -1}, {After: leases.Resource{Type: leases.Content, ID: "x"}}} {
		_, err = w.leases().ListResources(t.Context(), "x", page)
		requireClass(t, err, errInvalid)
	}
}

func TestLeaseManyResources(t *testing.T) {
	// Ten thousand resources are taken in one commit and let go of in another,
	// neither of which keeps the store busy for long.
	w := newLeaseWorld(t)
	w.create("x")
	const n = 10_000
	var key [8]byte
	rnd := rand.NewChaCha8([32]byte{})
	txs := w.txs.Load()
	within(t, 30*time.Second, func() {
		err := w.db.Update(t.Context(), func(ctx context.Context) error {
			for range n {
				_, _ = rnd.Read(key[:])
				if err := w.leases().AddResource(ctx, "x", contentOf(digest.FromBytes(key[:]))); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
	})
	require.Equal(t, txs+1, w.txs.Load())
	w.reopen()
	all, err := w.leases().ListResources(t.Context(), "x", leases.Page{})
	require.NoError(t, err)
	require.Len(t, all, n)
	require.True(t, slices.IsSortedFunc(all, func(a, b leases.Resource) int { return strings.Compare(a.ID, b.ID) }))
	w.collect()
	within(t, 5*time.Second, func() {
		released, err := w.leases().Delete(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, leases.Released{Content: n}, released)
	})
}

func TestLeasesInUpdate(t *testing.T) {
	// Leases join a commit: seen inside, there when it comes about, and not if
	// it does not.
	w := newLeaseWorld(t)
	failure := errors.New("failure")
	for _, want := range []error{failure, nil} {
		err := w.db.Update(t.Context(), func(ctx context.Context) error {
			m := w.leases()
			_, err := m.Create(ctx, leases.WithID("x"))
			require.NoError(t, err)
			require.NoError(t, m.AddResource(ctx, "x", ingestOf("r")))
			all, err := m.ListResources(ctx, "x", leases.Page{})
			require.NoError(t, err)
			require.Equal(t, []leases.Resource{ingestOf("r")}, all)
			_, err = m.Create(ctx, leases.WithID("y"))
			require.NoError(t, err)
			_, err = m.Delete(ctx, "y")
			require.NoError(t, err)
			return want
		})
		require.Equal(t, want, err)
		if want != nil {
			require.Empty(t, w.ids())
		}
	}
	require.Equal(t, []string{"x"}, w.ids())
	w.requireHeld("x", ingestOf("r"))
}

func TestLeasesOfDeletedNamespace(t *testing.T) {
	// Leases go with their namespace and are not those of the next one.
	w := newLeaseWorld(t)
	w.create("x")
	w.add("x", ingestOf("r"))
	require.NoError(t, w.db.Namespaces().Delete(t.Context(), "a"))
	require.Empty(t, w.ids())
	w.create("x")
	w.requireHeld("x")
}

func TestLeasesAreCollected(t *testing.T) {
	// A collection removes leases that are over with all they hold, counts
	// them, and leaves others.
	w := newLeaseWorld(t)
	for i := range 3 {
		id := fmt.Sprint(i)
		w.create(id, leases.WithTTL(time.Duration(i+1)*time.Hour))
		w.add(id, ingestOf("r"))
	}
	w.clock.step(2*time.Hour + 1)
	stats, err := w.db.GarbageCollect(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, stats.Leases)
	require.Equal(t, 2, stats.Namespaces["a"].Leases)
	require.Equal(t, []string{"2"}, w.ids())
	require.Empty(t, w.db.GetRaw("leases/a", []byte("0")))
}

func TestManyLeasesAreCollected(t *testing.T) {
	// However many leases are over among others, one collection removes them,
	// and keeps nobody waiting for all of them.
	w := newLeaseWorld(t)
	const n = 300
	require.NoError(t, w.db.Update(t.Context(), func(ctx context.Context) error {
		for i := range 2 * n {
			_, err := w.leases().Create(ctx, leases.WithID(fmt.Sprintf("%04d", i)), leases.WithTTL(time.Duration(1+i%2)*time.Hour))
			require.NoError(t, err)
		}
		return nil
	}))
	w.clock.step(time.Hour + 1)
	txs := w.txs.Load()
	stats, err := w.db.GarbageCollect(t.Context())
	require.NoError(t, err)
	require.Equal(t, n, stats.Leases)
	require.GreaterOrEqual(t, w.txs.Load(), txs+3)
	require.Len(t, w.ids(), n)
}

func TestDamagedLease(t *testing.T) {
	// A lease that can't be read is DataLoss and named by Check; it goes on
	// protecting what it holds until it is deleted.
	w := newLeaseWorld(t)
	w.create("x")
	w.putIn(leases.WithLease(t.Context(), "x"), "a", blob("kept", small))
	require.NoError(t, w.db.PutRaw("leases/a", []byte("x"), []byte("damage")))
	_, err := w.leases().Get(t.Context(), "x")
	requireClass(t, err, errDataLoss)
	_, err = w.leases().List(t.Context())
	requireClass(t, err, errDataLoss)
	_, err = w.leases().Create(t.Context(), leases.WithID("x"))
	requireClass(t, err, errExists)
	findings, err := w.db.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, findings, 1)
	require.Equal(t, metadata.FoundLease, findings[0].Code)
	w.collect()
	w.requireContent("a", blob("kept", small))

	released, err := w.leases().Delete(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, leases.Released{Content: 1}, released)
	w.collect()
	require.Empty(t, w.stored())

	w.create("x")
	w.add("x", ingestOf("r"))
	require.NoError(t, w.db.PutIn("leased/a", "x", []byte{9}))
	_, err = w.leases().ListResources(t.Context(), "x", leases.Page{})
	requireClass(t, err, errDataLoss)
	findings, err = w.db.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, findings, 1)
	_, err = w.leases().Delete(t.Context(), "x")
	require.NoError(t, err)
}

func TestLeasesConcurrently(t *testing.T) {
	// Of many that make the same lease one does, and everything that many add
	// to it is there.
	w := newLeaseWorld(t)
	const workers, each = 8, 20
	var created, refused sync.Map
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			if _, err := w.leases().Create(context.Background(), leases.WithID("x")); err == nil {
				created.Store(i, true)
			} else if errdefs.IsAlreadyExists(err) {
				refused.Store(i, true)
			}
			for j := range each {
				if err := w.leases().AddResource(context.Background(), "x", ingestOf(fmt.Sprint(i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	count := func(m *sync.Map) (n int) {
		m.Range(func(_, _ any) bool { n++; return true })
		return n
	}
	require.Equal(t, 1, count(&created))
	require.Equal(t, workers-1, count(&refused))
	all, err := w.leases().ListResources(t.Context(), "x", leases.Page{})
	require.NoError(t, err)
	require.Len(t, all, workers*each)
}
