package metadata

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
)

// smallBlob is the length up to which content is kept in memory while it is
// written and made durable inside the metadata transaction.
const smallBlob = 64 << 10

// writer is an open ingestion of one namespace. Its bytes are in one of three
// places: in memory while they are few, in an ingestion of the raw store, or,
// when it has taken over content that is there already, nowhere of its own.
type writer struct {
	v   *view
	e   *ingest
	alg digest.Algorithm
	// deletions is how often the namespace had been deleted when the writer
	// was opened.
	deletions int
	// lease is the one that the writer was opened under, empty if there is none.
	lease string

	mu     sync.Mutex
	state  writerState
	record ingestRecord
	err    error // why no bytes are taken any more, while the writer is open

	small *smallBody
	raw   cellar.Writer
	size  int64 // bytes in raw
	loan  *loan
	// unheld is whether it is not recorded yet that the lease holds the
	// ingestion.
	unheld bool

	committed digest.Digest // the content's, once it is committed
}

type writerState int

const (
	writerOpen writerState = iota
	writerClosed
	writerAborted
)

var (
	_ cellar.Writer = (*writer)(nil)
	_ cellar.Syncer = (*writer)(nil)
	_ io.ReaderFrom = (*writer)(nil)
)

// smallBody is an ingestion in memory.
type smallBody struct {
	alg  digest.Algorithm
	data []byte
	hash hash.Hash
}

func newSmallBody(alg digest.Algorithm) *smallBody {
	// data is never nil: no bytes at all have to be made durable as well.
	return &smallBody{alg: alg, hash: alg.Hash(), data: []byte{}}
}

func (b *smallBody) write(p []byte) {
	b.data = append(b.data, p...)
	_, _ = b.hash.Write(p) // never fails
}

func (b *smallBody) digest() digest.Digest { return digest.NewDigest(b.alg, b.hash) }

// loan is content that an ingestion has taken over instead of being sent it.
type loan struct {
	dgst digest.Digest
	size int64
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.writable(); err != nil {
		return 0, err
	}
	if w.loan != nil {
		if len(p) == 0 {
			return 0, nil
		}
		if err := w.unshare(context.Background()); err != nil {
			return 0, err
		}
	}
	w.record.updated = w.v.db.now()
	defer w.publish()
	if w.small != nil {
		if len(w.small.data)+len(p) <= smallBlob {
			w.small.write(p)
			return len(p), nil
		}
		if err := w.spill(context.Background()); err != nil {
			return 0, err
		}
	}
	n, err := w.raw.Write(p)
	w.size += int64(n)
	return n, err
}

// publish lets others see how far the ingestion is.
func (w *writer) publish() {
	t := &w.v.db.ingests
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.loan != nil && w.e.stored {
		w.e.record.expires = w.record.expires // the rest is of what was received
		return
	}
	w.record.borrowed = w.e.record.borrowed
	w.e.record, w.e.offset = w.record, w.offset()
}

// ReadFrom implements io.ReaderFrom: a file that is read from its start is
// handed to the raw store, which may have a faster way than copying.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := r.(*os.File); ok {
		if n, err, done := w.readFile(f); done {
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{r})
}

func (w *writer) readFile(f *os.File) (n int64, err error, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writable() != nil || w.loan != nil {
		return 0, nil, false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || w.small != nil && info.Size() <= smallBlob {
		return 0, nil, false
	}
	if w.small != nil {
		if err := w.spill(context.Background()); err != nil {
			return 0, err, true
		}
	}
	from, ok := w.raw.(io.ReaderFrom)
	if !ok {
		return 0, nil, false
	}
	w.record.updated = w.v.db.now()
	defer w.publish()
	n, err = from.ReadFrom(f)
	w.size += n
	w.record.updated = w.v.db.now()
	return n, err, true
}

// spill moves bytes from memory into the raw store.
func (w *writer) spill(ctx context.Context) error {
	if err := w.openRaw(ctx); err != nil {
		return err
	}
	data := w.small.data
	w.small = nil
	n, err := w.raw.Write(data)
	w.size += int64(n)
	if err != nil {
		return w.fail(fmt.Errorf("ingestion %s in %q: %w", cellar.Shorten(w.e.key.ref), w.v.ns, err))
	}
	return nil
}

// fail remembers that bytes which were taken can't be relied on any more.
func (w *writer) fail(err error) error {
	w.err = err
	return err
}

// unshare gives an ingestion that took over content bytes of its own.
func (w *writer) unshare(ctx context.Context) error {
	ra, err := w.v.db.blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: w.loan.dgst})
	if err != nil {
		return fmt.Errorf("take over %s in %q: %w", w.loan.dgst, w.v.ns, err)
	}
	defer ra.Close()
	if err := w.dropStored(ctx); err != nil {
		return err
	}
	lent := w.loan
	w.loan = nil
	if err := w.openRaw(ctx); err != nil {
		w.loan = lent
		return err
	}
	w.v.db.ingests.borrow(w.e, "")
	n, err := io.Copy(struct{ io.Writer }{w.raw}, cellar.NewReader(ra))
	w.size += n
	if err != nil {
		return w.fail(fmt.Errorf("take over content in %q: %w", w.v.ns, err))
	}
	return nil
}

// Truncate implements [cellar.Writer].
func (w *writer) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == writerOpen && size != 0 {
		return fmt.Errorf("truncate ingestion %s to %d: only 0 is possible: %w", cellar.Shorten(w.e.key.ref), size, errdefs.ErrInvalidArgument)
	}
	if err := w.usable(); err != nil {
		return err
	}
	defer w.publish()
	if w.raw != nil {
		if err := w.raw.Truncate(0); err != nil {
			return err
		}
		w.size, w.err = 0, nil
		return nil
	}
	if w.loan != nil {
		if err := w.dropStored(context.Background()); err != nil {
			return err
		}
		w.loan = nil
		w.v.db.ingests.borrow(w.e, "")
	}
	w.err = nil
	if !stages(w.v.db.blobs) {
		return w.openRaw(context.Background())
	}
	w.small = newSmallBody(w.alg)
	return nil
}

// usable returns why the writer is not open.
func (w *writer) usable() error {
	switch w.state {
	case writerClosed:
		return fmt.Errorf("writer is closed: %w: %w", errdefs.ErrFailedPrecondition, os.ErrClosed)
	case writerAborted:
		return fmt.Errorf("ingestion was aborted: %w", errdefs.ErrAborted)
	}
	return nil
}

// writable returns why no bytes are taken.
func (w *writer) writable() error {
	if err := w.usable(); err != nil {
		return err
	}
	return w.err
}

// Digest implements [cellar.Writer].
func (w *writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.digest()
}

func (w *writer) digest() digest.Digest {
	switch {
	case w.committed != "":
		return w.committed
	case w.loan != nil:
		return w.loan.dgst
	case w.small != nil:
		return w.small.digest()
	case w.raw != nil:
		return w.raw.Digest()
	}
	return ""
}

func (w *writer) offset() int64 {
	switch {
	case w.loan != nil:
		return w.loan.size
	case w.small != nil:
		return int64(len(w.small.data))
	}
	return w.size
}

// Status implements [cellar.Writer].
func (w *writer) Status() (cellar.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record.status(w.e.key.ref, w.offset()), nil
}

// Sync implements [cellar.Syncer].
func (w *writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.writable(); err != nil || w.loan != nil {
		return err
	}
	if w.small != nil {
		if err := w.spill(context.Background()); err != nil {
			return err
		}
	}
	if syncer, ok := w.raw.(cellar.Syncer); ok {
		return syncer.Sync()
	}
	return nil
}

// Close implements io.Closer.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writerOpen {
		return nil
	}
	return w.leave()
}

// leave closes the writer so that its ingestion can be resumed.
func (w *writer) leave() error {
	w.state = writerClosed
	var err error
	if w.small != nil {
		err = w.spill(context.Background())
	}
	keep := w.loan != nil
	if w.raw != nil {
		err = errors.Join(err, w.raw.Close())
		// What is left is for the raw store to say: a failed flush leaves nothing.
		if status, gone := w.v.db.blobs.Status(context.Background(), w.e.key.rawRef()); gone == nil {
			w.size, keep = status.Offset, true
		}
	}
	w.postpone(context.Background())
	w.publish()
	w.v.db.ingests.release(w.e, w, keep)
	w.v.db.saveIngest(w.e.key)
	return err
}

// revoke ends the writer because its ingestion is aborted. It reports whether
// there was anything to abort.
func (w *writer) revoke(ctx context.Context) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writerOpen {
		return false, nil
	}
	w.state = writerAborted
	err := w.v.db.discard(ctx, w.e, w)
	if w.raw != nil {
		_ = w.raw.Close() // its bytes are gone; only its descriptor is left
	}
	return true, err
}
