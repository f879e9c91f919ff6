package metadata

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
)

// Writer implements [cellar.Ingester].
func (v *view) Writer(ctx context.Context, opts ...cellar.WriterOpt) (cellar.Writer, error) {
	var o cellar.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	lease, leased := v.leaseIn(ctx)
	if err := v.admit(ctx, o, lease, leased); err != nil {
		return nil, err
	}
	now := v.db.now()
	w := &writer{v: v, alg: digest.SHA256, deletions: v.db.deletions.of(v.ns), lease: lease, unheld: leased}
	if o.Desc.Digest != "" {
		w.alg = o.Desc.Digest.Algorithm()
	}
	e, err := v.db.ingests.acquire(ingestKey{v.ns, o.Ref}, w, now)
	if err != nil {
		return nil, err
	}
	w.e = e
	w.mu.Lock() // an Abort may have found the writer already
	defer w.mu.Unlock()
	if err := w.open(ctx, o.Desc); err != nil {
		v.db.ingests.release(e, w, e.stored || e.record.borrowed != "")
		w.state = writerClosed
		return nil, err
	}
	w.publish()
	w.recordHold(ctx)
	return w, nil
}

// admit refuses a write before anything of it exists.
func (v *view) admit(ctx context.Context, o cellar.WriterOpts, lease string, leased bool) error {
	if err := cellar.ValidateRef(o.Ref); err != nil {
		return err
	}
	if err := errors.Join(v.db.ready(ctx), v.db.shut()); err != nil {
		return err
	}
	if leased {
		if err := v.requireLease(ctx, lease); err != nil {
			return err
		}
	}
	if o.Desc.Digest == "" {
		return nil
	}
	sound, err := v.rely(ctx, o.Desc.Digest)
	if sound && leased {
		sound, err = v.leaseExisting(ctx, lease, o.Desc.Digest)
	}
	if err != nil {
		return err
	}
	if sound {
		return v.errExists(o.Desc.Digest)
	}
	return nil
}

// holds reports whether the namespace has dgst with bytes of the right length.
// If the bytes are missing or cut, writing the content again mends it.
func (v *view) holds(ctx context.Context, dgst digest.Digest) (bool, error) {
	record, err := v.lookupDurable(ctx, dgst)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil && !errdefs.IsDataLoss(err) {
		return false, err
	}
	blob, rawErr := v.db.blobs.Info(ctx, dgst)
	if rawErr != nil && !errdefs.IsNotFound(rawErr) && !errdefs.IsDataLoss(rawErr) {
		return false, rawErr
	}
	return err == nil && rawErr == nil && blob.Size == record.size, nil
}

// open finds where the bytes of the ingestion are, or will be.
func (w *writer) open(ctx context.Context, desc ocispec.Descriptor) error {
	w.record = w.e.record
	w.postpone(ctx)
	lent, err := w.borrow(ctx, desc)
	if err != nil {
		return err
	}
	if lent != nil {
		w.lend(lent)
		return nil
	}
	if err := w.restart(ctx, desc); err != nil {
		return err
	}
	// One that took content over before is shown only if the raw store has it.
	if w.e.stored || w.e.record.borrowed != "" || desc.Size > smallBlob || !stages(w.v.db.blobs) {
		return w.openRaw(ctx)
	}
	w.small = newSmallBody(w.alg)
	return nil
}

// restart notes what is known of the content, and drops what the ingestion has
// from before if it was of another size.
func (w *writer) restart(ctx context.Context, desc ocispec.Descriptor) error {
	if w.record.total > 0 && desc.Size > 0 && w.record.total != desc.Size {
		if err := w.dropStored(ctx); err != nil {
			return err
		}
		w.anew()
	}
	if w.record.total == 0 && !w.e.stored {
		w.record.total = max(desc.Size, 0)
	}
	if desc.Digest != "" {
		w.record.expected = desc.Digest
	}
	return nil
}

// anew makes the record that of an ingestion which begins now.
func (w *writer) anew() {
	w.record = ingestRecord{started: w.e.since, updated: w.e.since, expires: w.record.expires}
}

func (w *writer) dropStored(ctx context.Context) error {
	if !w.e.stored {
		return nil
	}
	if err := w.v.db.blobs.Abort(ctx, w.e.key.rawRef()); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	w.setStored(false)
	return nil
}

func (w *writer) setStored(stored bool) {
	w.v.db.ingests.mu.Lock()
	defer w.v.db.ingests.mu.Unlock()
	w.e.stored = stored
}

// lend makes the ingestion one that has all of the content already.
func (w *writer) lend(l *loan) {
	w.loan = l
	w.record.total, w.record.expected = l.size, l.dgst
	w.record.started, w.record.updated = w.e.since, w.e.since
	w.save()
}

// openRaw opens the ingestion in the raw store.
func (w *writer) openRaw(ctx context.Context) error {
	raw, err := w.v.db.blobs.Ingest(ctx, w.e.key.rawRef(), w.record.total, w.alg)
	if err != nil {
		return fmt.Errorf("open ingestion %s in %q: %w", cellar.Shorten(w.e.key.ref), w.v.ns, err)
	}
	status, err := raw.Status()
	if err != nil {
		return errors.Join(err, raw.Close())
	}
	w.raw, w.size = raw, status.Offset
	w.setStored(true)
	w.save()
	return nil
}
