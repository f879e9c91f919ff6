package local

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
)

// Commit implements [cellar.Writer]. If another writer has put the same
// content in place from an ingestion of its own, the bytes that are there
// afterwards are right and durable in any case.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.end()
	if err := w.check("commit"); err != nil {
		return err
	}
	if err := runOpts(opts); err != nil {
		return errors.Join(err, w.leave())
	}
	dgst, err := w.verify(ctx, size, expected)
	if err == nil {
		err = w.commit(ctx, dgst)
	}
	if w.fate == nil {
		if lerr := w.leave(); lerr != nil {
			err = errors.Join(err, lerr)
		}
	}
	return fserr.Wrap(err, "commit ingest %s", cellar.Shorten(w.header.ref))
}

// runOpts runs the options, whose labels this store does not keep, for their
// errors.
func runOpts(opts []cellar.Opt) error {
	var info cellar.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return err
		}
	}
	return nil
}

// verify checks what the caller knows against what was written, and returns
// the digest to store it under.
func (w *writer) verify(ctx context.Context, size int64, expected digest.Digest) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if size < 0 {
		return "", fmt.Errorf("size %d: %w", size, errdefs.ErrInvalidArgument)
	}
	if expected != "" {
		if err := cellar.ValidateDigest(expected); err != nil {
			return "", err
		}
	}
	off := w.offset()
	if size != 0 && size != off {
		return "", fmt.Errorf("size is %d, not %d: %w", off, size, errdefs.ErrFailedPrecondition)
	}
	dgst := digest.NewDigest(w.alg, w.hash)
	if expected != "" && expected.Algorithm() != w.alg {
		h := expected.Algorithm().Hash()
		if err := hashRange(ctx, h, w.data, 0, off); err != nil {
			return "", err
		}
		dgst = digest.NewDigest(expected.Algorithm(), h)
	}
	if expected != "" && expected != dgst {
		return "", fmt.Errorf("digest is %s, not %s: %w", dgst, expected, errdefs.ErrFailedPrecondition)
	}
	return dgst, nil
}

// commit makes the ingestion the content of dgst. When it returns with w.fate
// nil, the ingestion is still there.
func (w *writer) commit(ctx context.Context, dgst digest.Digest) error {
	unlock, err := w.s.digests.lock(ctx, dgst)
	if err != nil {
		return err
	}
	defer unlock()
	there, err := w.s.lstat(dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	existed := err == nil && there.Size == w.offset()
	if existed && w.s.trusted.has(dgst, there) {
		_ = w.s.drop(w.path)
		return w.committed(dgst, existed)
	}
	created := w.s.time()
	if existed {
		created = there.ModTime // for whoever asks, nothing has changed
	}
	if err := w.makeDurable(created); err != nil {
		return err
	}
	if err := w.s.put(w.dataPath(), dgst); err != nil {
		w.unseal()
		return err
	}
	if err := w.s.algs[dgst.Algorithm()].sync(); err != nil {
		w.takeBack(dgst, existed)
		return err
	}
	if info, err := w.data.Stat(); err == nil {
		w.s.trusted.add(dgst, info)
	}
	_ = w.s.drop(w.path)
	return w.committed(dgst, existed)
}

// committed ends the ingestion as the content of dgst.
func (w *writer) committed(dgst digest.Digest, existed bool) error {
	w.fate, w.final = errClosed, dgst
	switch {
	case !w.public:
		return nil
	case existed:
		return fmt.Errorf("content %s: %w", dgst, errdefs.ErrAlreadyExists)
	}
	w.s.journal.add(dgst)
	return nil
}

// makeDurable gives the file the mode of content, and the time at which it
// became that, and syncs it.
func (w *writer) makeDurable(created time.Time) error {
	if err := w.wait(); err != nil {
		return err
	}
	if err := w.fit(); err != nil {
		return err
	}
	if err := w.seal(created); err != nil {
		w.unseal()
		return err
	}
	if err := w.data.Sync(); err != nil {
		return w.condemn(err)
	}
	return nil
}

// fit makes sure that the file has as many bytes as were hashed.
func (w *writer) fit() error {
	if err := w.trim(); err != nil {
		return err
	}
	info, err := w.data.Stat()
	if err != nil {
		return err
	}
	if off := w.offset(); info.Size != off {
		return w.condemn(fmt.Errorf("%s has %d bytes, %d were written", w.dataPath(), info.Size, off))
	}
	return nil
}

// trim cuts off what a failed write left behind the offset.
func (w *writer) trim() error {
	if !w.ragged {
		return nil
	}
	if err := w.data.Truncate(w.offset()); err != nil {
		return err
	}
	w.ragged = false
	return nil
}

// takeBack undoes the placing of a file whose directory could not be synced,
// so that the ingestion can be resumed. Where the file replaced another of its
// size it stays: that one may have been content, with the same bytes.
func (w *writer) takeBack(dgst digest.Digest, existed bool) {
	if existed || w.s.fs.Rename(w.s.blobPath(dgst), w.dataPath()) != nil {
		w.fate = errClosed
		_ = w.s.drop(w.path)
		return
	}
	w.unseal()
}
