package metadata

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/namespaces"
)

// namespaceStore implements [namespaces.Store].
type namespaceStore struct {
	db *DB
}

// Namespaces returns the manager of the namespaces. A namespace whose label
// containerd.io/namespace.shareable is "true" lends its content to all others.
func (db *DB) Namespaces() namespaces.Store { return &namespaceStore{db} }

// deletions counts how often each namespace was deleted since the database was
// opened, so that a writer that was opened before does not bring it back.
type deletions struct {
	mu    sync.Mutex
	count map[string]int
}

func (d *deletions) of(ns string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count[ns]
}

func (d *deletions) add(ns string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.count == nil {
		d.count = map[string]int{}
	}
	d.count[ns] += n
}

// namespaceOf reads the record of a namespace, nil if it is not there.
func namespaceOf(tx *bolt.Tx, name string) (*namespaceRecord, error) {
	value := tx.Bucket(bucketNamespaces).Get([]byte(name))
	if value == nil {
		return nil, nil
	}
	record, err := decodeNamespace(value)
	if err != nil {
		return nil, fmt.Errorf("record of namespace %q: %w", name, err)
	}
	return &record, nil
}

// putNamespace writes the record of a namespace and whether it lends.
func putNamespace(tx *bolt.Tx, name string, record namespaceRecord) error {
	lenders := tx.Bucket(bucketLenders)
	var err error
	if record.labels[labels.NamespaceShareable] == "true" {
		err = lenders.Put([]byte(name), nil)
	} else {
		err = lenders.Delete([]byte(name))
	}
	if err != nil {
		return err
	}
	return tx.Bucket(bucketNamespaces).Put([]byte(name), record.encode())
}

func errNoNamespace(name string) error {
	return fmt.Errorf("namespace %q: %w", name, errdefs.ErrNotFound)
}

// Create implements [namespaces.Store].
func (s *namespaceStore) Create(ctx context.Context, name string, given map[string]string) error {
	if err := namespaces.Validate(name); err != nil {
		return err
	}
	record := namespaceRecord{labels: labels.Clean(given)}
	if err := labels.Validate(record.labels); err != nil {
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	return s.db.mutate(ctx, &mutation{
		check: func(tx *bolt.Tx) error {
			if tx.Bucket(bucketNamespaces).Get([]byte(name)) != nil {
				return fmt.Errorf("namespace %q: %w", name, errdefs.ErrAlreadyExists)
			}
			record.created = s.db.now()
			return nil
		},
		apply: func(tx *bolt.Tx) error { return putNamespace(tx, name, record) },
	})
}

// Labels implements [namespaces.Store].
func (s *namespaceStore) Labels(ctx context.Context, name string) (map[string]string, error) {
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	var record *namespaceRecord
	err := s.db.read(ctx, func(tx *bolt.Tx) (err error) {
		record, err = namespaceOf(tx, name)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case record != nil:
		return record.labels, nil
	case s.db.pendingNamespaces()[name]:
		return nil, nil
	}
	return nil, errNoNamespace(name)
}

// SetLabel implements [namespaces.Store].
func (s *namespaceStore) SetLabel(ctx context.Context, name, key, value string) error {
	if err := namespaces.Validate(name); err != nil {
		return err
	}
	if err := labels.ValidatePair(key, value); err != nil {
		return fmt.Errorf("label of namespace %q: %w", name, err)
	}
	var record namespaceRecord
	return s.db.mutate(ctx, &mutation{
		check: func(tx *bolt.Tx) error {
			old, err := namespaceOf(tx, name)
			if err != nil {
				return err
			}
			if record = (namespaceRecord{created: s.db.now()}); old != nil {
				record = *old
			}
			changed := maps.Clone(record.labels)
			if changed == nil {
				changed = map[string]string{}
			}
			changed[key] = value
			record.labels = labels.Clean(changed)
			return labels.Validate(record.labels)
		},
		apply: func(tx *bolt.Tx) error { return putNamespace(tx, name, record) },
	})
}

// List implements [namespaces.Store].
func (s *namespaceStore) List(ctx context.Context, fs ...string) ([]string, error) {
	filter, err := s.db.parseFilters(fs)
	if err != nil {
		return nil, err
	}
	// Before the records: what is recorded meanwhile is found there.
	pending := s.db.pendingNamespaces()
	var names []string
	match := func(info namespaces.Info) {
		if filter.Match(info) {
			names = append(names, info.Name)
		}
	}
	err = s.db.read(ctx, func(tx *bolt.Tx) error {
		names = nil
		return tx.Bucket(bucketNamespaces).ForEach(func(name, value []byte) error {
			record, err := decodeNamespace(value)
			if err != nil {
				return fmt.Errorf("record of namespace %q: %w", name, err)
			}
			delete(pending, string(name))
			match(namespaces.Info{Name: string(name), Labels: record.labels})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for name := range pending {
		match(namespaces.Info{Name: name})
	}
	slices.Sort(names)
	return names, nil
}

// pendingNamespaces returns the namespaces of ingestions, whose records may
// still wait in the background. Nobody who only reads waits for those.
func (db *DB) pendingNamespaces() map[string]bool {
	pending := map[string]bool{}
	for _, e := range db.ingests.list(func(e *ingest) bool { return e.stored || e.record.borrowed != "" }) {
		if e.deletions == db.deletions.of(e.key.ns) {
			pending[e.key.ns] = true
		}
	}
	return pending
}

// Delete implements [namespaces.Store].
func (s *namespaceStore) Delete(ctx context.Context, name string, opts ...namespaces.DeleteOpt) error {
	if err := namespaces.Validate(name); err != nil {
		return err
	}
	options := namespaces.NewDeleteOptions(opts...)
	err := s.db.mutate(ctx, &mutation{
		deletions: 1,
		check:     func(tx *bolt.Tx) error { return checkDeletable(tx, name, options.Content) },
		apply: func(tx *bolt.Tx) error {
			s.db.deletions.add(name, 1)
			return deleteNamespace(tx, name)
		},
		abandoned: func() { s.db.deletions.add(name, -1) },
		after:     func() { s.db.abortAll(name) },
	})
	return err
}

func checkDeletable(tx *bolt.Tx, name string, withContent bool) error {
	if tx.Bucket(bucketNamespaces).Get([]byte(name)) == nil {
		return errNoNamespace(name)
	}
	b := contentBucket(tx, name)
	if b == nil || withContent {
		return nil
	}
	if key, _ := b.Cursor().First(); key != nil {
		return fmt.Errorf("namespace %q holds content, delete that first: %w", name, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// deleteNamespace removes everything that the database has of a namespace.
func deleteNamespace(tx *bolt.Tx, name string) error {
	if b := contentBucket(tx, name); b != nil {
		err := b.ForEach(func(key, _ []byte) error { return dropHolder(tx, key) })
		if err != nil {
			return err
		}
	}
	for _, prefix := range []string{contentPrefix, ingestsPrefix, leasesPrefix, leasedPrefix} {
		if namedBucket(tx, prefix, name) == nil {
			continue
		}
		if err := tx.DeleteBucket([]byte(prefix + name)); err != nil {
			return err
		}
	}
	if err := tx.Bucket(bucketLenders).Delete([]byte(name)); err != nil {
		return err
	}
	return tx.Bucket(bucketNamespaces).Delete([]byte(name))
}

// abortAll drops the ingestions of a namespace that was deleted. What can't be
// removed now is left to the collector.
func (db *DB) abortAll(ns string) {
	for _, e := range db.ingests.list(func(e *ingest) bool { return e.key.ns == ns }) {
		if _, err := db.abort(context.Background(), e.key); err != nil {
			db.log.Warn("drop ingestion of a deleted namespace", "namespace", ns, "ref", e.key.ref, "error", err)
		}
	}
}
