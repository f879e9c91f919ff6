package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar/filters"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// modelLease is a lease and what it holds. One that has expired stays in its
// map until it is collected or its id is used again, and nobody sees it.
type modelLease struct {
	leases.Lease // Labels are those that were given, without a made-up expiry
	holds        map[leases.Resource]bool
}

// shown is the lease as a caller sees it, who may keep it.
func (l *modelLease) shown() leases.Lease {
	shown := l.Lease
	shown.Labels = maps.Clone(l.Labels)
	if _, given := shown.Labels[labels.GCExpire]; given || l.ExpiresAt.IsZero() {
		return shown
	}
	if shown.Labels == nil {
		shown.Labels = map[string]string{}
	}
	shown.Labels[labels.GCExpire] = labels.FormatExpiry(l.ExpiresAt)
	return shown
}

// setExpiry makes t the one expiry that the lease speaks of.
func (l *modelLease) setExpiry(t time.Time) {
	l.ExpiresAt = t.UTC().Round(0)
	delete(l.Labels, labels.GCExpire)
	if len(l.Labels) == 0 {
		l.Labels = nil
	}
}

// flat tells that the lease keeps its content without what that refers to.
func (l *modelLease) flat() bool {
	_, flat := l.Labels[labels.GCFlat]
	return flat
}

// lease returns the lease of an id, nil where there is none now.
func (t *tenant) lease(id string) *modelLease {
	if l := t.leases[id]; l != nil && !l.Expired(t.m.now()) {
		return l
	}
	return nil
}

// leaseIn returns the lease that ctx carries, nil if it carries none. One that
// is not there is NotFound.
func (t *tenant) leaseIn(ctx context.Context) (*modelLease, error) {
	id, leased := leases.FromContext(ctx)
	if !leased {
		return nil, nil
	}
	if l := t.lease(id); l != nil {
		return l, nil
	}
	return nil, t.missing("lease " + id)
}

// giveBack makes the lease that ctx carries hold r no longer, if it does.
func (t *tenant) giveBack(ctx context.Context, r leases.Resource) {
	if l, _ := t.leaseIn(ctx); l != nil {
		delete(l.holds, r)
	}
}

func contentResource(dgst digest.Digest) leases.Resource {
	return leases.Resource{Type: leases.Content, ID: dgst.String()}
}

func ingestResource(ref string) leases.Resource {
	return leases.Resource{Type: leases.Ingests, ID: ref}
}

// holds reports whether a lease that lives holds r.
func (t *tenant) holds(r leases.Resource) bool {
	for id := range t.leases {
		if l := t.lease(id); l != nil && l.holds[r] {
			return true
		}
	}
	return false
}

// modelLeases is the leases of a namespace of the model. It implements
// leases.Manager.
type modelLeases struct{ t *tenant }

// Leases returns the manager of the leases of one namespace. A name that breaks
// the rules of package namespaces is InvalidArgument.
func (m *Model) Leases(name string) (leases.Manager, error) {
	store, err := m.Namespace(name)
	if err != nil {
		return nil, err
	}
	return modelLeases{store.(*tenant)}, nil
}

// start begins a call about the lease of id, which must be there: it returns
// why the call must fail, or holds the lock.
func (m modelLeases) start(ctx context.Context, id string) (*modelLease, error) {
	if err := leases.ValidateID(id); err != nil {
		return nil, err
	}
	if err := m.t.start(ctx); err != nil {
		return nil, err
	}
	if l := m.t.lease(id); l != nil {
		return l, nil
	}
	m.t.m.mu.Unlock()
	return nil, m.t.missing("lease " + id)
}

func (m modelLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	o, err := leases.NewCreateOptions(opts...)
	if err != nil {
		return leases.Lease{}, err
	}
	o.ID = cmp.Or(o.ID, leases.NewID())
	given, err := keep(o.Labels)
	if err != nil {
		return leases.Lease{}, err
	}
	if err := m.t.start(ctx); err != nil {
		return leases.Lease{}, err
	}
	defer m.t.m.mu.Unlock()
	if m.t.lease(o.ID) != nil {
		return leases.Lease{}, fmt.Errorf("lease %q in %q: %w", o.ID, m.t.name, errdefs.ErrAlreadyExists)
	}
	now := m.t.m.now()
	l := &modelLease{Lease: leases.Lease{ID: o.ID, CreatedAt: now, Labels: given}, holds: map[leases.Resource]bool{}}
	switch at, labelled := labels.ParseExpiry(given[labels.GCExpire]); {
	case !o.ExpiresAt.IsZero():
		l.setExpiry(o.ExpiresAt)
	case o.TTL != 0:
		l.setExpiry(now.Add(o.TTL))
	case labelled:
		l.ExpiresAt = at
		if at.IsZero() {
			l.ExpiresAt = at.Add(1) // a zero expiry is none
		}
	}
	m.t.leases[o.ID] = l
	return l.shown(), nil
}

func (m modelLeases) Get(ctx context.Context, id string) (leases.Lease, error) {
	l, err := m.start(ctx, id)
	if err != nil {
		return leases.Lease{}, err
	}
	defer m.t.m.mu.Unlock()
	return l.shown(), nil
}

func (m modelLeases) List(ctx context.Context, expressions ...string) ([]leases.Lease, error) {
	filter, err := filters.ParseAll(expressions...)
	if err != nil {
		return nil, err
	}
	if err := m.t.start(ctx); err != nil {
		return nil, err
	}
	defer m.t.m.mu.Unlock()
	var all []leases.Lease
	for _, id := range slices.Sorted(maps.Keys(m.t.leases)) {
		if l := m.t.lease(id); l != nil && filter.Match(l.shown()) {
			all = append(all, l.shown())
		}
	}
	return all, nil
}

func (m modelLeases) Renew(ctx context.Context, id string, expiresAt time.Time) (leases.Lease, error) {
	l, err := m.start(ctx, id)
	if err != nil {
		return leases.Lease{}, err
	}
	defer m.t.m.mu.Unlock()
	l.setExpiry(expiresAt)
	return l.shown(), nil
}

func (m modelLeases) Delete(ctx context.Context, id string, opts ...leases.DeleteOpt) (leases.Released, error) {
	o := leases.NewDeleteOptions(opts...)
	released, err := m.delete(ctx, id)
	if errdefs.IsNotFound(err) && o.IfExists {
		err = nil
	}
	if err == nil && o.Synchronous {
		_, err = m.t.m.Collect(ctx, m.t.m.rules.Grace)
	}
	return released, err
}

func (m modelLeases) delete(ctx context.Context, id string) (n leases.Released, err error) {
	l, err := m.start(ctx, id)
	if err != nil {
		return n, err
	}
	defer m.t.m.mu.Unlock()
	for r := range l.holds {
		switch r.Type {
		case leases.Content:
			n.Content++
		case leases.Ingests:
			n.Ingests++
		default:
			n.Other++
		}
	}
	delete(m.t.leases, id)
	return n, nil
}

func (m modelLeases) AddResource(ctx context.Context, id string, r leases.Resource) error {
	l, err := m.start(ctx, id)
	if err != nil {
		return err
	}
	defer m.t.m.mu.Unlock()
	if err := r.Validate(); err != nil {
		return err
	}
	l.holds[r] = true
	return nil
}

func (m modelLeases) DeleteResource(ctx context.Context, id string, r leases.Resource) error {
	l, err := m.start(ctx, id)
	if err != nil {
		return err
	}
	defer m.t.m.mu.Unlock()
	if err := r.Validate(); err != nil {
		return err
	}
	delete(l.holds, r)
	return nil
}

func (m modelLeases) ListResources(ctx context.Context, id string, page leases.Page) ([]leases.Resource, error) {
	if page.Limit < 0 {
		return nil, fmt.Errorf("limit %d: %w", page.Limit, errdefs.ErrInvalidArgument)
	}
	l, err := m.start(ctx, id)
	if err != nil {
		return nil, err
	}
	defer m.t.m.mu.Unlock()
	var held []leases.Resource
	for _, r := range slices.SortedFunc(maps.Keys(l.holds), compareResources) {
		if compareResources(page.After, r) < 0 && (page.Limit == 0 || len(held) < page.Limit) {
			held = append(held, r)
		}
	}
	return held, nil
}

func compareResources(a, b leases.Resource) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}
