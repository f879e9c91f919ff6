package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// ingestTable knows every ingestion that is not committed, those that a writer
// has open and those that were left. Their records in the database are written
// in the background, so that opening a writer waits for no flush; after a crash
// the table is made from those records and from what the raw store has.
type ingestTable struct {
	mu      sync.Mutex
	entries map[ingestKey]*ingest
	// borrowed counts the ingestions that took over a content: its bytes must
	// stay as long as there are any.
	borrowed map[digest.Digest]int
}

type ingestKey struct{ ns, ref string }

// ingest is one entry of the table. While it has a writer, the writer alone
// changes it, under the table's lock.
type ingest struct {
	key ingestKey
	// deletions is how often the namespace had been deleted when the ingestion
	// was begun. One from before a deletion is about to be aborted.
	deletions int

	record ingestRecord
	// offset is the number of bytes received.
	offset int64
	// stored is whether the raw store has an ingestion for it.
	stored bool
	// proven is whether the namespace has sent all bytes of record.borrowed,
	// so that it may have them back whatever the policy.
	proven bool
	// holds counts leases that hold it and are not recorded to do so yet.
	holds int

	writer *writer
	since  time.Time
	freed  chan struct{} // closed when the writer lets go
}

// rawRef is the name of an ingestion in the raw store.
func (k ingestKey) rawRef() string {
	ref := k.ns + "/" + k.ref
	if len(ref) > cellar.MaxRefLength {
		return k.ns + "/#" + digest.FromString(k.ref).Encoded()
	}
	return ref
}

func parseRawRef(raw string) (ingestKey, bool) {
	ns, ref, ok := strings.Cut(raw, "/")
	return ingestKey{ns, ref}, ok && ns != "" && ref != ""
}

// acquire gives w the ingestion of key, which is made if there is none.
func (t *ingestTable) acquire(key ingestKey, w *writer, now time.Time) (*ingest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil {
		e = &ingest{key: key, deletions: w.deletions, record: ingestRecord{started: now, updated: now}}
		if t.entries == nil {
			t.entries = map[ingestKey]*ingest{}
		}
		t.entries[key] = e
	}
	if e.writer != nil {
		return nil, &cellar.LockedError{Ref: key.ref, Since: e.since}
	}
	e.writer, e.since, e.freed = w, now, make(chan struct{})
	return e, nil
}

// release ends w's hold on e, unless it was ended already. A kept ingestion
// stays in the table to be resumed.
func (t *ingestTable) release(e *ingest, w *writer, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.writer != w {
		return
	}
	e.writer = nil
	close(e.freed)
	if !keep {
		t.dropLocked(e)
	}
}

// dropLocked removes an entry that no writer has.
func (t *ingestTable) dropLocked(e *ingest) {
	t.borrowLocked(e, "")
	if t.entries[e.key] == e {
		delete(t.entries, e.key)
	}
}

// borrow notes which content e has taken over, none if dgst is empty.
func (t *ingestTable) borrow(e *ingest, dgst digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.borrowLocked(e, dgst)
}

func (t *ingestTable) borrowLocked(e *ingest, dgst digest.Digest) {
	if old := e.record.borrowed; old != "" {
		if t.borrowed[old]--; t.borrowed[old] == 0 {
			delete(t.borrowed, old)
		}
	}
	e.record.borrowed, e.proven = dgst, false
	if dgst == "" {
		return
	}
	if t.borrowed == nil {
		t.borrowed = map[digest.Digest]int{}
	}
	t.borrowed[dgst]++
}

func (t *ingestTable) isBorrowed(dgst digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.borrowed[dgst] > 0
}

// lookup returns the entry of key and its writer, nil if there are none.
func (t *ingestTable) lookup(key ingestKey) (*ingest, *writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil {
		return nil, nil
	}
	return e, e.writer
}

// list returns the entries for which keep is true, ordered by namespace and ref.
func (t *ingestTable) list(keep func(*ingest) bool) []*ingest {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*ingest
	for _, e := range t.entries {
		if keep(e) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *ingest) int {
		return strings.Compare(a.key.ns+"/"+a.key.ref, b.key.ns+"/"+b.key.ref)
	})
	return all
}

// snapshot returns what is to be stored of the ingestion of key, nil if it is
// not there or from before the last of so many deletions of its namespace.
func (t *ingestTable) snapshot(key ingestKey, deletions int) *ingestRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil || e.deletions != deletions {
		return nil
	}
	record := e.record
	record.open = e.writer != nil
	return &record
}

// saveIngest brings the stored record of key in line with the table, in the
// background.
func (db *DB) saveIngest(key ingestKey) { db.mutateLater(db.ingestMutation(key)) }

// ingestMutation brings the stored record of key in line with what the table
// has when the mutation is applied.
func (db *DB) ingestMutation(key ingestKey) *mutation {
	m := &mutation{}
	if record := db.ingests.snapshot(key, db.deletions.of(key.ns)); record != nil {
		m.expires = record.expires
	}
	m.apply = func(tx *bolt.Tx) error {
		record := db.ingests.snapshot(key, db.deletions.of(key.ns))
		if record == nil {
			return forgetIngest(tx, key)
		}
		if err := ensureNamespace(tx, key.ns, db.now()); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(ingestsPrefix + key.ns))
		if err != nil {
			return err
		}
		return b.Put([]byte(key.ref), record.encode())
	}
	return m
}

// forgetIngest deletes the stored record of key, if there is one.
func forgetIngest(tx *bolt.Tx, key ingestKey) error {
	b := ingestsBucket(tx, key.ns)
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key.ref))
}

// state returns what is known of e, and whether a writer has it open.
func (t *ingestTable) state(e *ingest) (record ingestRecord, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return e.record, e.writer != nil
}

// borrowedKeys returns the content that ingestions have taken over, by
// namespace.
func (t *ingestTable) borrowedKeys() map[string][]digestKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string][]digestKey{}
	for _, e := range t.entries {
		if key, err := newDigestKey(e.record.borrowed); err == nil {
			all[e.key.ns] = append(all[e.key.ns], key)
		}
	}
	return all
}

// status describes e, and whether it is to be seen: one that has taken over
// content, and received nothing before, has nothing to show.
func (t *ingestTable) status(e *ingest) (cellar.Status, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return e.record.status(e.key.ref, e.offset), e.record.borrowed == "" || e.stored
}

func (r *ingestRecord) status(ref string, offset int64) cellar.Status {
	return cellar.Status{Ref: ref, Offset: offset, Total: r.total, Expected: r.expected, StartedAt: r.started, UpdatedAt: r.updated}
}

// Status implements [cellar.IngestManager].
func (v *view) Status(ctx context.Context, ref string) (cellar.Status, error) {
	if err := v.db.ready(ctx); err != nil {
		return cellar.Status{}, err
	}
	if err := cellar.ValidateRef(ref); err != nil {
		return cellar.Status{}, err
	}
	if e, _ := v.db.ingests.lookup(ingestKey{v.ns, ref}); e != nil {
		if status, visible := v.db.ingests.status(e); visible {
			return status, nil
		}
	}
	return cellar.Status{}, v.errNoIngest(ref)
}

func (v *view) errNoIngest(ref string) error {
	return fmt.Errorf("ingestion %s in %q: %w", cellar.Shorten(ref), v.ns, errdefs.ErrNotFound)
}

// ListStatuses implements [cellar.IngestManager].
func (v *view) ListStatuses(ctx context.Context, fs ...string) ([]cellar.Status, error) {
	if err := v.db.ready(ctx); err != nil {
		return nil, err
	}
	filter, err := v.db.parseFilters(fs)
	if err != nil {
		return nil, err
	}
	var statuses []cellar.Status
	for _, e := range v.db.ingests.list(func(e *ingest) bool { return e.key.ns == v.ns }) {
		if status, visible := v.db.ingests.status(e); visible && filter.Match(&status) {
			statuses = append(statuses, status)
		}
	}
	return statuses, nil
}

// Abort implements [cellar.IngestManager].
func (v *view) Abort(ctx context.Context, ref string) error {
	if err := v.db.ready(ctx); err != nil {
		return err
	}
	if err := cellar.ValidateRef(ref); err != nil {
		return err
	}
	key := ingestKey{v.ns, ref}
	found, err := v.db.abort(ctx, key)
	if err == nil && !found {
		return v.errNoIngest(ref)
	}
	if lease, leased := v.leaseIn(ctx); leased && err == nil {
		v.db.releaseIngest(ctx, key, lease)
	}
	return err
}

// abort drops the ingestion of key and revokes its writer. It reports whether
// there was one.
func (db *DB) abort(ctx context.Context, key ingestKey) (found bool, err error) {
	for {
		e, w := db.ingests.lookup(key)
		switch {
		case e == nil:
			return false, nil
		case w == nil:
			// Holding the ref as a writer does keeps others off while bytes are removed.
			holder := &writer{state: writerAborted}
			held, err := db.ingests.acquire(key, holder, db.now())
			if err == nil && held == e {
				return true, db.discard(ctx, e, holder)
			}
			if err == nil {
				db.ingests.release(held, holder, false)
			}
		default:
			if found, err := w.revoke(ctx); found {
				return true, err
			}
			// It was about to let go of the ref, and may have left something.
			if err := db.ingests.waitFreed(ctx, key, w); err != nil {
				return false, err
			}
		}
	}
}

// waitFreed waits until w no longer has the ingestion of key.
func (t *ingestTable) waitFreed(ctx context.Context, key ingestKey, w *writer) error {
	t.mu.Lock()
	e := t.entries[key]
	if e == nil || e.writer != w {
		t.mu.Unlock()
		return nil
	}
	freed := e.freed
	t.mu.Unlock()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discard removes an ingestion that w holds, bytes and record, and frees its
// ref. If the bytes can't be removed the ingestion is left.
func (db *DB) discard(ctx context.Context, e *ingest, w *writer) error {
	var err error
	if e.stored {
		if err = db.blobs.Abort(ctx, e.key.rawRef()); errdefs.IsNotFound(err) {
			err = nil
		}
	}
	db.ingests.release(e, w, err != nil)
	db.saveIngest(e.key)
	return err
}

// WaitRef implements [cellar.RefWaiter].
func (v *view) WaitRef(ctx context.Context, ref string) error {
	for {
		if err := v.db.ready(ctx); err != nil {
			return err
		}
		freed := v.db.ingests.holder(ingestKey{v.ns, ref})
		if freed == nil {
			return nil
		}
		select {
		case <-freed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// holder returns a channel that is closed when the writer of key lets go, nil
// if it has none.
func (t *ingestTable) holder(key ingestKey) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[key]; e != nil && e.writer != nil {
		return e.freed
	}
	return nil
}

// ready returns why nothing can be done: a context that is done, or a closed
// database.
func (db *DB) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.alive()
}

// closeWriters leaves every open ingestion to be resumed.
func (db *DB) closeWriters() error {
	var errs []error
	for _, e := range db.ingests.list(func(e *ingest) bool { return e.writer != nil }) {
		if _, w := db.ingests.lookup(e.key); w != nil {
			errs = append(errs, w.Close())
		}
	}
	return errors.Join(errs...)
}
