package storetest

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
)

type writerState int

const (
	writerOpen writerState = iota
	writerClosed
	writerAborted
)

// modelWriter is a writer of the model. Its tenant's lock guards it.
type modelWriter struct {
	t     *tenant
	ing   *ingestion
	alg   digest.Algorithm
	lease string // the one it was opened under, empty for none
	state writerState

	// What it answers when it is not open any more.
	status cellar.Status
	digest digest.Digest
}

func (t *tenant) Writer(ctx context.Context, opts ...cellar.WriterOpt) (cellar.Writer, error) {
	var o cellar.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if err := cellar.ValidateRef(o.Ref); err != nil {
		return nil, err
	}
	var dgsts []digest.Digest
	alg := digest.SHA256
	if o.Desc.Digest != "" {
		dgsts = append(dgsts, o.Desc.Digest)
	}
	if err := t.start(ctx, dgsts...); err != nil {
		return nil, err
	}
	defer t.m.mu.Unlock()
	if o.Desc.Digest != "" {
		alg = o.Desc.Digest.Algorithm()
	}
	held, err := t.leaseIn(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := t.content[o.Desc.Digest]; ok {
		return nil, t.exists(o.Desc.Digest, held)
	}
	ing := t.ingests[o.Ref]
	if ing != nil && ing.writer != nil {
		return nil, &cellar.LockedError{Ref: o.Ref, Since: ing.since}
	}
	ing = t.resume(ing, o)
	w := &modelWriter{t: t, ing: ing, alg: alg}
	if held != nil {
		w.lease = held.ID
		held.holds[ingestResource(o.Ref)] = true
	}
	w.postpone()
	ing.writer, ing.since = w, t.m.now()
	t.ingests[o.Ref] = ing
	return w, nil
}

// exists answers that content is there. It is as new as if it had just been
// written, and held by the lease if there is one.
func (t *tenant) exists(dgst digest.Digest, held *modelLease) error {
	t.told[dgst] = t.m.now()
	if held != nil {
		held.holds[contentResource(dgst)] = true
	}
	return fmt.Errorf("content %s in %q: %w", dgst, t.name, errdefs.ErrAlreadyExists)
}

// postpone gives an ingestion that no lease keeps an expiry of its own. That of
// one which a lease keeps stays as it is.
func (w *modelWriter) postpone() {
	if w.lease == "" || w.t.lease(w.lease) == nil {
		w.ing.expires = w.t.m.now().Add(ingestExpiry)
	}
}

// resume returns the ingestion that a writer opened with o works on: left if
// that can be continued, otherwise a new one.
func (t *tenant) resume(before *ingestion, o cellar.WriterOpts) *ingestion {
	now, total := t.m.now(), max(o.Desc.Size, 0)
	fresh := &ingestion{status: cellar.Status{Ref: o.Ref, Total: total, Expected: o.Desc.Digest, StartedAt: now, UpdatedAt: now}}
	left := before.received()
	if before != nil {
		fresh.expires = before.expires
	}
	if size, ok := t.mayAdopt(o.Desc); ok {
		fresh.adopted, fresh.status.Total, fresh.beside = o.Desc.Digest, size, left
		return fresh
	}
	if left == nil {
		return fresh
	}
	fresh.claim = before.claimed()
	if left.status.Total > 0 && total > 0 && left.status.Total != total {
		return fresh
	}
	left.claim, left.expires = fresh.claim, fresh.expires
	if o.Desc.Digest != "" {
		left.status.Expected = o.Desc.Digest
	}
	return left
}

// mayAdopt tells whether the tenant may have the content without sending it,
// and its size: the pool has it in the size that is asked for, and either the
// policy is to share, or a namespace that holds it lends.
func (t *tenant) mayAdopt(desc ocispec.Descriptor) (int64, bool) {
	p, ok := t.m.pool[desc.Digest]
	size := int64(len(p))
	if !ok || desc.Size > 0 && desc.Size != size {
		return 0, false
	}
	lent := t.m.rules.Shared
	for _, other := range t.m.tenants {
		_, holds := other.content[desc.Digest]
		lent = lent || holds && other.labels["containerd.io/namespace.shareable"] == "true"
	}
	return size, lent
}

// usable returns why the writer takes no more calls.
func (w *modelWriter) usable() error {
	switch w.state {
	case writerClosed:
		return fmt.Errorf("writer is closed: %w: %w", errdefs.ErrFailedPrecondition, os.ErrClosed)
	case writerAborted:
		return fmt.Errorf("ingestion was aborted: %w", errdefs.ErrAborted)
	}
	return nil
}

// end closes the writer and frees its ref. The caller holds the lock.
func (w *modelWriter) end(state writerState) {
	w.status, w.digest = w.t.m.statusOf(w.ing), w.sum()
	w.state = state
	w.postpone()
	w.t.m.free(w.ing)
}

// sum is the digest of the bytes so far.
func (w *modelWriter) sum() digest.Digest {
	if w.ing.adopted != "" {
		return w.ing.adopted
	}
	return w.alg.FromBytes(w.ing.data)
}

func (w *modelWriter) Write(p []byte) (int, error) {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if err := w.usable(); err != nil {
		return 0, err
	}
	if w.ing.adopted != "" {
		if len(p) == 0 {
			return 0, nil
		}
		w.ing.data, w.ing.adopted, w.ing.beside = []byte(w.t.m.pool[w.ing.adopted]), "", nil
	}
	w.ing.data = append(w.ing.data, p...)
	w.ing.status.UpdatedAt = w.t.m.now()
	return len(p), nil
}

func (w *modelWriter) Truncate(size int64) error {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	if size != 0 {
		return fmt.Errorf("truncate to %d: %w", size, errdefs.ErrInvalidArgument)
	}
	w.ing.data, w.ing.adopted, w.ing.beside = nil, "", nil
	return nil
}

func (w *modelWriter) Close() error {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if w.state == writerOpen {
		w.end(writerClosed)
	}
	return nil
}

func (w *modelWriter) Digest() digest.Digest {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if w.state != writerOpen {
		return w.digest
	}
	return w.sum()
}

func (w *modelWriter) Status() (cellar.Status, error) {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if w.state != writerOpen {
		return w.status, nil
	}
	return w.t.m.statusOf(w.ing), nil
}

// Sync implements [cellar.Syncer]: there is nothing to be made durable.
func (w *modelWriter) Sync() error {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	return w.usable()
}

func (w *modelWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	w.t.m.mu.Lock()
	defer w.t.m.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	held, info, err := w.propose(ctx, size, expected, opts)
	w.end(writerClosed)
	if err != nil {
		return err
	}
	t := w.t
	delete(t.ingests, w.status.Ref)
	w.digest = info.Digest
	for _, l := range []*modelLease{t.lease(w.lease), held} {
		if l != nil {
			delete(l.holds, ingestResource(w.status.Ref))
		}
	}
	if _, ok := t.content[info.Digest]; ok {
		return t.exists(info.Digest, held)
	}
	t.content[info.Digest] = info
	if held != nil {
		held.holds[contentResource(info.Digest)] = true
	}
	if w.ing.adopted == "" {
		t.m.pool[info.Digest] = string(w.ing.data)
	}
	return nil
}

// propose describes what a commit makes and the lease that is to hold it, or
// says why it can't be: what is malformed before what does not match.
func (w *modelWriter) propose(ctx context.Context, size int64, expected digest.Digest, opts []cellar.Opt) (held *modelLease, info cellar.Info, err error) {
	if err := ctx.Err(); err != nil {
		return nil, info, err
	}
	if size < 0 {
		return nil, info, fmt.Errorf("commit of %d bytes: %w", size, errdefs.ErrInvalidArgument)
	}
	if expected != "" {
		if err := cellar.ValidateDigest(expected); err != nil {
			return nil, info, err
		}
	}
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, info, err
		}
	}
	kept, err := keep(info.Labels)
	if w.t.m.rules.NoLabels {
		kept, err = nil, nil
	}
	if err != nil {
		return nil, info, err
	}
	if _, other := leases.FromContext(ctx); !other && w.lease != "" {
		ctx = leases.WithLease(ctx, w.lease)
	}
	if held, err = w.t.leaseIn(ctx); err != nil {
		return nil, info, err
	}
	dgst, err := w.verify(size, expected)
	now := w.t.m.now()
	return held, cellar.Info{Digest: dgst, Size: w.t.m.statusOf(w.ing).Offset, CreatedAt: now, UpdatedAt: now, Labels: kept}, err
}

// verify compares the ingestion with what is expected of it, and returns the
// digest that it has.
func (w *modelWriter) verify(size int64, expected digest.Digest) (digest.Digest, error) {
	have := w.t.m.statusOf(w.ing).Offset
	if size > 0 && size != have {
		return "", fmt.Errorf("ingestion has %d bytes, not %d: %w", have, size, errdefs.ErrFailedPrecondition)
	}
	dgst := w.sum()
	if expected != "" && w.ing.adopted == "" {
		dgst = expected.Algorithm().FromBytes(w.ing.data)
	}
	if expected != "" && dgst != expected {
		return "", fmt.Errorf("ingestion has digest %s, not %s: %w", dgst, expected, errdefs.ErrFailedPrecondition)
	}
	return dgst, nil
}
