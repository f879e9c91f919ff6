package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
)

// proposal is a commit whose arguments are in order.
type proposal struct {
	size   int64 // of the content, not what the caller declared
	dgst   digest.Digest
	key    digestKey
	labels map[string]string
	// lease is what the content is to be held by, if leased is set.
	lease  string
	leased bool
	// staged is the content itself where the database answers for its
	// durability.
	staged []byte
	// exists is set when the transaction finds the record there already, and
	// mends when it finds one that can't be read or is not of this content.
	exists, mends bool
}

// Commit implements [cellar.Writer].
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	p, err := w.propose(ctx, size, expected, opts)
	if err == nil {
		err = w.commitBody(ctx, p, size, expected)
	}
	if err != nil && w.state == writerOpen {
		return errors.Join(err, w.leave())
	}
	return err
}

// propose checks everything about a commit that can be checked before bytes
// are put in place.
func (w *writer) propose(ctx context.Context, size int64, expected digest.Digest, opts []cellar.Opt) (*proposal, error) {
	if size < 0 {
		return nil, fmt.Errorf("commit with size %d: %w", size, errdefs.ErrInvalidArgument)
	}
	if expected != "" {
		if err := cellar.ValidateDigest(expected); err != nil {
			return nil, err
		}
	}
	var info cellar.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	p := &proposal{labels: labels.Clean(info.Labels)}
	if err := labels.Validate(p.labels); err != nil {
		return nil, err
	}
	if err := errors.Join(w.err, w.v.db.ready(ctx), w.v.db.shut()); err != nil {
		return nil, err
	}
	p.lease, p.leased = w.leaseOfCommit(ctx)
	if !p.leased {
		return p, nil
	}
	return p, w.v.requireLease(ctx, p.lease)
}

// commitBody puts the bytes in place and then the record. A digest is held
// from before the one until after the other, so that no collection sees the
// bytes without the record and takes them.
func (w *writer) commitBody(ctx context.Context, p *proposal, size int64, expected digest.Digest) error {
	if err := w.identify(p, size, expected); err != nil {
		return err
	}
	release, err := w.v.db.holdDigest(ctx, p.dgst)
	if err != nil {
		return err
	}
	defer release()
	if err := w.place(ctx, p, size, expected); err != nil {
		w.v.db.sweep.suspect(p.dgst) // something may be in place all the same
		return err
	}
	if err := w.v.db.crash("placed"); err != nil {
		return err
	}
	if err := w.writeRecord(ctx, p); err != nil {
		w.keepClaim(p)
		return err
	}
	if err := w.dropStored(context.WithoutCancel(ctx)); err != nil {
		// Content was taken over beside it. A collection removes it when it is old.
		w.v.db.log.Warn("remove what an ingestion had received", "namespace", w.v.ns, "ref", w.e.key.ref, "error", err)
	}
	w.state, w.committed = writerClosed, p.dgst
	w.v.db.ingests.release(w.e, w, false)
	if p.exists {
		return w.v.errExists(p.dgst)
	}
	return nil
}

// identify finds digest and size of the content and compares them with what
// the caller expects, as far as that takes no reading of files.
func (w *writer) identify(p *proposal, size int64, expected digest.Digest) (err error) {
	p.dgst, p.size = w.digest(), w.offset()
	if size > 0 && size != p.size {
		return fmt.Errorf("commit ingestion %s: it has %d bytes, not %d: %w", cellar.Shorten(w.e.key.ref), p.size, size, errdefs.ErrFailedPrecondition)
	}
	if expected != "" && expected != p.dgst {
		switch {
		case expected.Algorithm() == p.dgst.Algorithm():
			return fmt.Errorf("commit ingestion %s: its digest is %s, not %s: %w", cellar.Shorten(w.e.key.ref), p.dgst, expected, errdefs.ErrFailedPrecondition)
		case w.small != nil && expected.Algorithm().FromBytes(w.small.data) != expected, w.loan != nil:
			return fmt.Errorf("commit ingestion %s: its digest is not %s: %w", cellar.Shorten(w.e.key.ref), expected, errdefs.ErrFailedPrecondition)
		}
		p.dgst = expected
	}
	p.key, err = keyOf(p.dgst)
	return err
}

// place makes sure that the bytes are in place under the digest. Those of a
// small blob become durable with the record, others here.
func (w *writer) place(ctx context.Context, p *proposal, size int64, expected digest.Digest) error {
	db := w.v.db
	switch {
	case w.loan != nil:
		return w.checkLoan(ctx, p)
	case w.small != nil && db.staging.full():
		if err := w.spill(ctx); err != nil {
			return err
		}
	case w.small != nil:
		held, err := db.isHeld(ctx, p.dgst)
		if err != nil {
			return err
		}
		if held {
			if same, err := db.inPlace(ctx, p.dgst, w.small.data); same || err != nil {
				return err
			}
		}
		p.staged = w.small.data
		return db.blobs.Place(ctx, p.dgst, p.staged)
	}
	if err := w.raw.Commit(ctx, size, expected); err != nil {
		return fmt.Errorf("commit ingestion %s in %q: %w", cellar.Shorten(w.e.key.ref), w.v.ns, err)
	}
	w.setStored(false)
	return nil
}

// checkLoan makes sure that content which was taken over is still there.
func (w *writer) checkLoan(ctx context.Context, p *proposal) error {
	blob, err := w.v.db.blobs.Info(ctx, p.dgst)
	if err == nil && blob.Size != p.size {
		err = fmt.Errorf("it has %d bytes, not %d: %w", blob.Size, p.size, errdefs.ErrDataLoss)
	}
	if err == nil {
		err = w.v.db.trustworthy(ctx, p.dgst)
	}
	if err != nil {
		return fmt.Errorf("commit ingestion %s in %q, which took over %s: %w", cellar.Shorten(w.e.key.ref), w.v.ns, p.dgst, err)
	}
	return nil
}

// writeRecord is the commit point.
func (w *writer) writeRecord(ctx context.Context, p *proposal) error {
	v, key := w.v, w.e.key
	m := &mutation{
		check: func(tx *bolt.Tx) error {
			if v.db.deletions.of(v.ns) != w.deletions {
				return fmt.Errorf("namespace %q was deleted: %w", v.ns, errdefs.ErrAborted)
			}
			p.exists, p.mends = false, false
			if b := contentBucket(tx, v.ns); b != nil {
				p.meet(b.Get(p.key.bytes()))
			}
			if p.leased {
				if _, err := leaseOf(tx, v.ns, p.lease, v.db.now()); err != nil {
					return err
				}
			}
			_, err := holdersOf(tx, p.key.bytes())
			return err
		},
	}
	var seq uint64
	m.apply = func(tx *bolt.Tx) (err error) {
		if p.staged != nil {
			if seq, err = stage(tx, p.key.bytes(), p.staged); err != nil {
				return err
			}
		}
		v.db.barrier.note(v.ns, p.key)
		m.events = nil
		if err := errors.Join(forgetIngest(tx, key), w.swapLeased(tx, p)); err != nil || p.exists {
			return err
		}
		now := v.db.now()
		m.events = v.event(ContentCreated, p.dgst, p.size)
		if grace := v.db.opts.Grace; grace > 0 {
			m.expires = now.Add(grace)
		}
		return v.putNew(tx, p, now)
	}
	m.committed = func() {
		if p.exists {
			v.use(p.key)
		}
		if p.staged != nil {
			v.db.staging.add(p.dgst, seq, len(p.staged))
		}
	}
	m.abandoned = func() { v.db.sweep.suspect(p.dgst) }
	if w.lease != "" && transactionFrom(ctx, v.db) != nil {
		// What is recorded in the background comes after this transaction.
		m.after = func() { v.db.releaseIngest(context.Background(), key, w.lease) }
	}
	return v.db.mutate(ctx, m)
}

// meet looks at what is there under the key of the proposal's record.
func (p *proposal) meet(value []byte) {
	if value == nil {
		return
	}
	record, err := decodeContent(value)
	p.exists = err == nil && record.size == p.size
	p.mends = !p.exists
}

// putNew writes the record of content that the namespace did not hold.
func (v *view) putNew(tx *bolt.Tx, p *proposal, now time.Time) error {
	if err := ensureNamespace(tx, v.ns, now); err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists([]byte(contentPrefix + v.ns))
	if err != nil {
		return err
	}
	record := contentRecord{size: p.size, created: now, updated: now, labels: p.labels}
	if err := b.Put(p.key.bytes(), record.encode()); err != nil {
		return err
	}
	if p.mends {
		return nil // the damaged record was counted
	}
	return addHolder(tx, p.key.bytes(), p.size)
}

// keepClaim is called when bytes are in place but the record could not be
// written. The ingestion's own bytes are gone into the blob, so it becomes one
// that has taken the blob over: a retry finds everything there.
func (w *writer) keepClaim(p *proposal) {
	db := w.v.db
	db.sweep.suspect(p.dgst)
	if w.small != nil {
		return // still in memory, leave stores it
	}
	db.ingests.borrow(w.e, p.dgst)
	db.ingests.mu.Lock()
	w.e.proven = true
	db.ingests.mu.Unlock()
	w.raw, w.loan = nil, &loan{dgst: p.dgst, size: p.size}
}
