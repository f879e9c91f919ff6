package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/namespaces"
)

// leaseManager implements [leases.Manager].
type leaseManager struct {
	db *DB
	ns string // empty: that of the context
}

// Leases returns the manager of the leases of the namespace which the context
// of each call carries (see package namespaces). Without one, every method is
// FailedPrecondition; with a name that breaks the rules, InvalidArgument.
//
// Inside Update a manager joins the commit. Only Delete with
// [leases.Synchronous] can't, and is FailedPrecondition there.
func (db *DB) Leases() leases.Manager { return &leaseManager{db: db} }

// NamespaceLeases is Leases for one namespace, whatever the context carries. A
// name that breaks the rules of package namespaces is InvalidArgument. The
// namespace need not exist; its first lease makes it.
func (db *DB) NamespaceLeases(name string) (leases.Manager, error) {
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	return &leaseManager{db: db, ns: name}, nil
}

// space returns the namespace of a call that is about the lease id.
func (m *leaseManager) space(ctx context.Context, id string) (string, error) {
	ns := m.ns
	if ns == "" {
		var err error
		if ns, err = namespaces.NamespaceRequired(ctx); err != nil {
			return "", err
		}
	}
	return ns, leases.ValidateID(id)
}

// newLeaseRecord returns the record of a lease that begins now. Of the expiries
// that o may speak of, only the one that counts is kept.
func newLeaseRecord(o leases.CreateOptions, given map[string]string, now time.Time) leaseRecord {
	record := leaseRecord{created: now.Round(0), labels: given}
	switch {
	case !o.ExpiresAt.IsZero():
		record.renew(o.ExpiresAt)
	case o.TTL != 0:
		record.renew(now.Add(o.TTL))
	default:
		at, ok := labels.ParseExpiry(given[labels.GCExpire])
		if ok && at.IsZero() {
			at = at.Add(1) // a zero expiry is none, but this one is long over
		}
		record.expires = at
	}
	return record
}

// Create implements [leases.Manager].
func (m *leaseManager) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	o, err := leases.NewCreateOptions(opts...)
	if err != nil {
		return leases.Lease{}, err
	}
	if o.ID == "" {
		o.ID = leases.NewID()
	}
	ns, err := m.space(ctx, o.ID)
	if err != nil {
		return leases.Lease{}, err
	}
	given := labels.Clean(o.Labels)
	if err := labels.Validate(given); err != nil {
		return leases.Lease{}, fmt.Errorf("create lease %q in %q: %w", o.ID, ns, err)
	}
	var record leaseRecord
	mut := &mutation{}
	mut.check = func(tx *bolt.Tx) error {
		now := m.db.now()
		if _, err := leaseOf(tx, ns, o.ID, now); !errdefs.IsNotFound(err) {
			return fmt.Errorf("lease %q in %q: %w", o.ID, ns, errdefs.ErrAlreadyExists)
		}
		record = newLeaseRecord(o, given, now)
		mut.expires = record.expires
		return nil
	}
	mut.apply = func(tx *bolt.Tx) error {
		if err := ensureNamespace(tx, ns, record.created); err != nil {
			return err
		}
		// One of this name may have expired and left what it held.
		if err := dropLease(tx, ns, o.ID); err != nil {
			return err
		}
		return putLease(tx, ns, o.ID, record)
	}
	if err := m.db.mutate(ctx, mut); err != nil {
		return leases.Lease{}, err
	}
	return record.lease(o.ID), nil
}

func putLease(tx *bolt.Tx, ns, id string, record leaseRecord) error {
	b, err := tx.CreateBucketIfNotExists([]byte(leasesPrefix + ns))
	if err != nil {
		return err
	}
	return b.Put([]byte(id), record.encode())
}

// Get implements [leases.Manager].
func (m *leaseManager) Get(ctx context.Context, id string) (leases.Lease, error) {
	ns, err := m.space(ctx, id)
	if err != nil {
		return leases.Lease{}, err
	}
	var record leaseRecord
	err = m.db.read(ctx, func(tx *bolt.Tx) (err error) {
		record, err = leaseOf(tx, ns, id, m.db.now())
		return err
	})
	if err != nil {
		return leases.Lease{}, err
	}
	return record.lease(id), nil
}

// List implements [leases.Manager].
func (m *leaseManager) List(ctx context.Context, fs ...string) ([]leases.Lease, error) {
	ns, err := m.space(ctx, "any")
	if err != nil {
		return nil, err
	}
	filter, err := m.db.parseFilters(fs)
	if err != nil {
		return nil, err
	}
	var all []leases.Lease
	err = m.db.read(ctx, func(tx *bolt.Tx) error {
		all = nil
		b := namedBucket(tx, leasesPrefix, ns)
		if b == nil {
			return nil
		}
		now := m.db.now()
		return b.ForEach(func(id, value []byte) error {
			record, err := decodeLease(value)
			if err != nil {
				return fmt.Errorf("record of lease %q in %q: %w", id, ns, err)
			}
			if l := record.lease(string(id)); !record.gone(now) && filter.Match(l) {
				all = append(all, l)
			}
			return nil
		})
	})
	return all, err
}

// Renew implements [leases.Manager].
func (m *leaseManager) Renew(ctx context.Context, id string, expiresAt time.Time) (leases.Lease, error) {
	ns, err := m.space(ctx, id)
	if err != nil {
		return leases.Lease{}, err
	}
	var record leaseRecord
	mut := &mutation{
		check: func(tx *bolt.Tx) (err error) {
			if record, err = leaseOf(tx, ns, id, m.db.now()); err == nil {
				record.renew(expiresAt)
			}
			return err
		},
		apply:   func(tx *bolt.Tx) error { return putLease(tx, ns, id, record) },
		expires: expiresAt,
	}
	if err := m.db.mutate(ctx, mut); err != nil {
		return leases.Lease{}, err
	}
	return record.lease(id), nil
}

// Delete implements [leases.Manager].
func (m *leaseManager) Delete(ctx context.Context, id string, opts ...leases.DeleteOpt) (leases.Released, error) {
	ns, err := m.space(ctx, id)
	if err != nil {
		return leases.Released{}, err
	}
	o := leases.NewDeleteOptions(opts...)
	if o.Synchronous && transactionFrom(ctx, m.db) != nil {
		return leases.Released{}, fmt.Errorf("delete lease %q in %q and collect inside Update: %w", id, ns, errdefs.ErrFailedPrecondition)
	}
	released, err := m.delete(ctx, ns, id)
	if errdefs.IsNotFound(err) && o.IfExists {
		err = nil
	}
	if err != nil || !o.Synchronous {
		return released, err
	}
	_, err = m.db.GarbageCollect(ctx)
	return released, err
}

func (m *leaseManager) delete(ctx context.Context, ns, id string) (released leases.Released, err error) {
	err = m.db.mutate(ctx, &mutation{
		check: func(tx *bolt.Tx) error {
			// A damaged lease must be deletable.
			if _, err := leaseOf(tx, ns, id, m.db.now()); err != nil && !errdefs.IsDataLoss(err) {
				return err
			}
			released = countLeased(tx, ns, id)
			return nil
		},
		apply:     func(tx *bolt.Tx) error { return dropLease(tx, ns, id) },
		deletions: 1,
	})
	if err != nil {
		return leases.Released{}, err
	}
	return released, nil
}

// countLeased returns how much a lease holds.
func countLeased(tx *bolt.Tx, ns, id string) (n leases.Released) {
	leasedKeys(tx, ns, id, resourceContent, func([]byte) { n.Content++ })
	leasedKeys(tx, ns, id, resourceIngest, func([]byte) { n.Ingests++ })
	leasedKeys(tx, ns, id, resourceImage, func([]byte) { n.Other++ })
	leasedKeys(tx, ns, id, resourceSnapshot, func([]byte) { n.Other++ })
	return n
}

// AddResource implements [leases.Manager].
func (m *leaseManager) AddResource(ctx context.Context, id string, r leases.Resource) error {
	return m.change(ctx, id, r, func(ns string, key []byte) *mutation {
		return &mutation{apply: func(tx *bolt.Tx) error { return m.db.lease(tx, ns, id, key) }}
	})
}

// DeleteResource implements [leases.Manager].
func (m *leaseManager) DeleteResource(ctx context.Context, id string, r leases.Resource) error {
	return m.change(ctx, id, r, func(ns string, key []byte) *mutation {
		return &mutation{
			apply:     func(tx *bolt.Tx) error { return dropLeased(tx, ns, id, key) },
			deletions: 1,
		}
	})
}

// change does the mutation that fn makes for the key of r, if there is such a
// lease.
func (m *leaseManager) change(ctx context.Context, id string, r leases.Resource, fn func(ns string, key []byte) *mutation) error {
	ns, err := m.space(ctx, id)
	if err != nil {
		return err
	}
	key, invalid := resourceKey(r)
	mut := fn(ns, key)
	mut.check = func(tx *bolt.Tx) error {
		if _, err := leaseOf(tx, ns, id, m.db.now()); err != nil {
			return err
		}
		return invalid
	}
	return m.db.mutate(ctx, mut)
}

// ListResources implements [leases.Manager].
func (m *leaseManager) ListResources(ctx context.Context, id string, page leases.Page) ([]leases.Resource, error) {
	ns, err := m.space(ctx, id)
	if err != nil {
		return nil, err
	}
	if page.Limit < 0 {
		return nil, fmt.Errorf("list resources of lease %q: limit %d: %w", id, page.Limit, errdefs.ErrInvalidArgument)
	}
	var after []byte
	if page.After != (leases.Resource{}) {
		if after, err = resourceKey(page.After); err != nil {
			return nil, err
		}
	}
	if err := m.db.flush(ctx); err != nil {
		return nil, err
	}
	var all []leases.Resource
	err = m.db.read(ctx, func(tx *bolt.Tx) (err error) {
		if _, err := leaseOf(tx, ns, id, m.db.now()); err != nil {
			return err
		}
		all, err = resourcesAfter(leasedBucket(tx, ns, id), after, page.Limit)
		if err != nil {
			err = fmt.Errorf("lease %q in %q: %w", id, ns, err)
		}
		return err
	})
	return all, err
}

// resourcesAfter returns the resources after a key, at most limit if that is
// not zero. held is nil where the lease never held anything.
func resourcesAfter(held *bolt.Bucket, after []byte, limit int) (page []leases.Resource, err error) {
	if held == nil {
		return nil, nil
	}
	cursor := held.Cursor()
	for key, _ := seekAfter(cursor, after); key != nil && (limit == 0 || len(page) < limit); key, _ = cursor.Next() {
		r, err := parseResource(key)
		if err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, nil
}
