package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/leases"
)

// leaseEnv is the leases of namespace "a" of a pool whose clock is stepped by
// hand.
type leaseEnv struct {
	*tenants
	leases.Manager

	mu   sync.Mutex
	time time.Time
}

func newLeaseEnv(t *testing.T, tc Tenancy) *leaseEnv {
	e := &leaseEnv{
		tenants: &tenants{T: t, tc: tc, dir: t.TempDir(), ctx: t.Context()},
		time:    time.Date(2030, 1, 1, 0, 0, 0, 5, time.UTC),
	}
	e.start()
	t.Cleanup(func() { require.NoError(t, e.pool.Close()) })
	return e
}

func (e *leaseEnv) start() {
	e.pool = e.tc.Open(e.T, e.dir, e.now)
	e.Manager = e.of("a")
}

func (e *leaseEnv) reopen() {
	e.Helper()
	require.NoError(e, e.pool.Close())
	e.start()
}

// of returns the leases of a namespace.
func (e *leaseEnv) of(name string) leases.Manager {
	e.Helper()
	m, err := e.pool.Leases(name)
	require.NoError(e, err)
	return m
}

func (e *leaseEnv) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.time
}

func (e *leaseEnv) step(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.time = e.time.Add(d)
}

// make makes the lease of an id.
func (e *leaseEnv) make(id string, opts ...leases.Opt) leases.Lease {
	e.Helper()
	l, err := e.Create(e.ctx, append([]leases.Opt{leases.WithID(id)}, opts...)...)
	require.NoError(e, err)
	return l
}

func (e *leaseEnv) add(id string, all ...leases.Resource) {
	e.Helper()
	for _, r := range all {
		require.NoError(e, e.AddResource(e.ctx, id, r))
	}
}

// requireLease checks that a lease is there as described, for Get and List.
func (e *leaseEnv) requireLease(want leases.Lease) {
	e.Helper()
	got, err := e.Get(e.ctx, want.ID)
	require.NoError(e, err)
	require.Equal(e, want, got)
	require.Contains(e, e.all(), want)
}

// requireGone checks that no method knows the lease of an id.
func (e *leaseEnv) requireGone(id string) {
	e.Helper()
	for name, call := range leaseMethods {
		requireClassNamed(e, name, call(e.ctx, e, id), errdefs.ErrNotFound)
	}
	for _, l := range e.all() {
		require.NotEqual(e, id, l.ID)
	}
}

func requireClassNamed(t testing.TB, name string, err, class error) {
	t.Helper()
	require.Equal(t, []error{class}, classesOf(err), "%s: %v", name, err)
}

func (e *leaseEnv) all(filters ...string) []leases.Lease {
	e.Helper()
	all, err := e.List(e.ctx, filters...)
	require.NoError(e, err)
	return all
}

func (e *leaseEnv) ids(filters ...string) []string {
	ids := []string{}
	for _, l := range e.all(filters...) {
		ids = append(ids, l.ID)
	}
	return ids
}

// requireHolds checks what the lease of an id holds, in order.
func (e *leaseEnv) requireHolds(id string, want ...leases.Resource) {
	e.Helper()
	got, err := e.ListResources(e.ctx, id, leases.Page{})
	require.NoError(e, err)
	require.Equal(e, append([]leases.Resource{}, want...), append([]leases.Resource{}, got...))
}

// collectNow collects without grace.
func (e *leaseEnv) collectNow() Removed {
	e.Helper()
	n, err := e.pool.Collect(e.ctx, 0)
	require.NoError(e, err)
	return n
}

// under is the context of a lease.
func (e *leaseEnv) under(id string) context.Context { return leases.WithLease(e.ctx, id) }

// leaseMethods are the methods that take an id, so called that nothing else is
// wrong.
var leaseMethods = map[string]func(ctx context.Context, m leases.Manager, id string) error{
	"Get": func(ctx context.Context, m leases.Manager, id string) error {
		_, err := m.Get(ctx, id)
		return err
	},
	"Renew": func(ctx context.Context, m leases.Manager, id string) error {
		_, err := m.Renew(ctx, id, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
		return err
	},
	"Delete": func(ctx context.Context, m leases.Manager, id string) error {
		_, err := m.Delete(ctx, id)
		return err
	},
	"AddResource": func(ctx context.Context, m leases.Manager, id string) error {
		return m.AddResource(ctx, id, leases.Resource{Type: leases.Images, ID: "new"})
	},
	"DeleteResource": func(ctx context.Context, m leases.Manager, id string) error {
		return m.DeleteResource(ctx, id, leases.Resource{Type: leases.Images, ID: "old"})
	},
	"ListResources": func(ctx context.Context, m leases.Manager, id string) error {
		_, err := m.ListResources(ctx, id, leases.Page{})
		return err
	},
}
