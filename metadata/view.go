package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/namespaces"
)

// view is one namespace as a store.
type view struct {
	db *DB
	ns string
	// lease is what writes are held by where the context carries none.
	lease string
}

var (
	_ cellar.Store     = (*view)(nil)
	_ cellar.RefWaiter = (*view)(nil)
)

// Namespace returns the store of one namespace. A name that breaks the rules of
// package namespaces is InvalidArgument. The namespace need not exist: it is
// there, empty, until the first write makes it. The store also implements
// [cellar.RefWaiter]; its writers also implement [cellar.Syncer] and
// io.ReaderFrom.
func (db *DB) Namespace(name string) (cellar.Store, error) {
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	return &view{db: db, ns: name}, nil
}

// ensureNamespace makes the namespace if it is not there.
func ensureNamespace(tx *bolt.Tx, ns string, now time.Time) error {
	all := tx.Bucket(bucketNamespaces)
	if all.Get([]byte(ns)) != nil {
		return nil
	}
	record := namespaceRecord{created: now}
	return all.Put([]byte(ns), record.encode())
}

// record reads the record of key, which must be that of dgst.
func (v *view) record(tx *bolt.Tx, dgst digest.Digest, key []byte) (contentRecord, error) {
	var value []byte
	if b := contentBucket(tx, v.ns); b != nil {
		value = b.Get(key)
	}
	if value == nil {
		return contentRecord{}, v.errNotFound(dgst)
	}
	record, err := decodeContent(value)
	if err != nil {
		return contentRecord{}, fmt.Errorf("record of %s in %q: %w", dgst, v.ns, err)
	}
	return record, nil
}

func (v *view) errNotFound(dgst digest.Digest) error {
	return fmt.Errorf("content %s in %q: %w", dgst, v.ns, errdefs.ErrNotFound)
}

func (v *view) errExists(dgst digest.Digest) error {
	return fmt.Errorf("content %s in %q: %w", dgst, v.ns, errdefs.ErrAlreadyExists)
}

func (r *contentRecord) info(dgst digest.Digest) cellar.Info {
	return cellar.Info{Digest: dgst, Size: r.size, CreatedAt: r.created, UpdatedAt: r.updated, Labels: r.labels}
}

// keyOf validates a digest that comes from a caller.
func keyOf(dgst digest.Digest) (digestKey, error) {
	key, err := newDigestKey(dgst)
	if err != nil {
		if invalid := cellar.ValidateDigest(dgst); invalid != nil {
			err = invalid
		}
		return digestKey{}, err
	}
	return key, nil
}

// lookup reads the record of dgst in a transaction of its own.
func (v *view) lookup(ctx context.Context, dgst digest.Digest) (record contentRecord, err error) {
	key, err := keyOf(dgst)
	if err != nil {
		return contentRecord{}, err
	}
	err = v.db.read(ctx, func(tx *bolt.Tx) (err error) {
		record, err = v.record(tx, dgst, key.bytes())
		return err
	})
	return record, err
}

// lookupDurable is lookup for a record that somebody will rely on.
func (v *view) lookupDurable(ctx context.Context, dgst digest.Digest) (record contentRecord, err error) {
	key, err := keyOf(dgst)
	if err != nil {
		return contentRecord{}, err
	}
	err = v.db.readDurable(ctx, func(tx *bolt.Tx) (err error) {
		record, err = v.record(tx, dgst, key.bytes())
		return err
	})
	return record, err
}

// Info implements [cellar.InfoProvider].
func (v *view) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	record, err := v.lookup(ctx, dgst)
	if err != nil {
		return cellar.Info{}, err
	}
	return record.info(dgst), nil
}

// ReaderAt implements [cellar.Provider].
func (v *view) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	record, err := v.lookup(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	ra, err := v.db.blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	if errdefs.IsNotFound(err) {
		// The record may have gone with its bytes, and even have come again.
		if record, err = v.lookup(ctx, desc.Digest); err != nil {
			return nil, err
		}
		ra, err = v.db.blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	}
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("content %s in %q has a record and no bytes: %w: %v", desc.Digest, v.ns, errdefs.ErrDataLoss, err)
	}
	if err != nil {
		return nil, fmt.Errorf("content %s in %q: %w", desc.Digest, v.ns, err)
	}
	if ra.Size() != record.size {
		err := fmt.Errorf("content %s in %q has %d bytes, its record says %d: %w", desc.Digest, v.ns, ra.Size(), record.size, errdefs.ErrDataLoss)
		return nil, errors.Join(err, ra.Close())
	}
	return ra, nil
}

// Update implements [cellar.Manager].
func (v *view) Update(ctx context.Context, info cellar.Info, fieldpaths ...string) (cellar.Info, error) {
	key, err := keyOf(info.Digest)
	if err != nil {
		return cellar.Info{}, err
	}
	var record contentRecord
	m := &mutation{
		deletions: 1, // a reference may have gone
		check: func(tx *bolt.Tx) (err error) {
			if record, err = v.record(tx, info.Digest, key.bytes()); err != nil {
				return err
			}
			if record.labels, err = labels.Update(record.labels, info.Labels, fieldpaths...); err != nil {
				return fmt.Errorf("update content %s in %q: %w", info.Digest, v.ns, err)
			}
			record.updated = v.db.now()
			return nil
		},
	}
	m.apply = func(tx *bolt.Tx) error {
		m.events = v.event(ContentUpdated, info.Digest, record.size)
		v.db.noteLabels(v.ns, key, record.labels)
		return contentBucket(tx, v.ns).Put(key.bytes(), record.encode())
	}
	if err := v.db.mutate(ctx, m); err != nil {
		return cellar.Info{}, err
	}
	return record.info(info.Digest), nil
}

// Delete implements [cellar.Manager].
func (v *view) Delete(ctx context.Context, dgst digest.Digest) error {
	key, err := keyOf(dgst)
	if err != nil {
		return err
	}
	m := &mutation{deletions: 1}
	m.check = func(tx *bolt.Tx) error {
		// A damaged record must be deletable: only its presence counts.
		if b := contentBucket(tx, v.ns); b == nil || b.Get(key.bytes()) == nil {
			return v.errNotFound(dgst)
		}
		h, err := holdersOf(tx, key.bytes())
		m.freed, m.events = h.size, v.event(ContentDeleted, dgst, h.size)
		return err
	}
	m.apply = func(tx *bolt.Tx) error {
		if err := contentBucket(tx, v.ns).Delete(key.bytes()); err != nil {
			return err
		}
		if err := v.dropFromLease(ctx, tx, contentResource(key)); err != nil {
			return err
		}
		return dropHolder(tx, key.bytes())
	}
	return v.db.mutate(ctx, m)
}
