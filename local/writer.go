package local

import (
	"encoding"
	"fmt"
	"hash"
	"io/fs"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// writer implements [cellar.Writer] and [cellar.Syncer].
type writer struct {
	s      *Store
	path   string // the folder of the ingestion
	public bool
	hold   *hold
	alg    digest.Algorithm

	mu     sync.Mutex // held during every method but Status
	header *header
	data   vfs.File
	state  vfs.File
	hash   hash.Hash
	final  digest.Digest // after Commit that of the content
	// fate is nil while the writer is open, and then what its methods return.
	fate  error
	ended bool // files are closed and the ref is free
	// ragged says that the file may have bytes behind the offset, which a write
	// left that failed.
	ragged bool

	// Checkpoints; see checkpoint.go.
	last     *checkpoint // the newest that was written, or one of no data
	seq      uint64      // of the next
	started  int64       // offset at which the last one was begun
	flushed  int64       // offset up to which writing was asked for
	clean    bool        // last describes the files as they are
	anchored bool        // the entries of the folder and its files are durable
	running  chan error  // result of the checkpoint that is being made

	statusMu sync.Mutex
	status   cellar.Status
}

var (
	_ cellar.Writer = (*writer)(nil)
	_ cellar.Syncer = (*writer)(nil)
)

var errClosed = fmt.Errorf("the writer is closed: %w: %w", errdefs.ErrFailedPrecondition, fs.ErrClosed)

// newWriter returns a writer for an empty ingestion; its files are not open.
func newWriter(s *Store, path string, h *header, req request) *writer {
	return &writer{
		s: s, path: path, public: req.public, alg: req.alg, header: h,
		hash: req.alg.Hash(),
		seq:  1,
		status: cellar.Status{
			Ref: h.ref, Total: h.total, Expected: req.expected, StartedAt: h.started, UpdatedAt: h.started,
		},
	}
}

// check returns why the writer can't be used, nil if it can.
func (w *writer) check(op string) error {
	err := w.fate
	if err == nil {
		err = w.poll()
	}
	if err != nil {
		return fmt.Errorf("%s ingest %s: %w", op, cellar.Shorten(w.header.ref), err)
	}
	return nil
}

// Write implements [cellar.Writer].
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.check("write"); err != nil {
		return 0, err
	}
	n, err := w.append(p)
	w.advance(n)
	if err != nil {
		w.ragged = true
		return n, fserr.Wrap(err, "write ingest %s", cellar.Shorten(w.header.ref))
	}
	w.checkpointBeside()
	return n, nil
}

// hashBeside is the size from which on hashing beside the writing pays.
const hashBeside = 64 << 10

// append writes and hashes p, and returns how much of it is both.
func (w *writer) append(p []byte) (n int, err error) {
	w.unclean()
	off := w.offset()
	if len(p) < hashBeside {
		n, err = w.data.WriteAt(p, off)
		w.hash.Write(p[:n])
		return n, err
	}
	before := hashState(w.hash)
	hashed := make(chan struct{})
	go func() {
		w.hash.Write(p)
		close(hashed)
	}()
	n, err = w.data.WriteAt(p, off)
	<-hashed
	if n < len(p) {
		if rerr := w.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(before); rerr != nil {
			return 0, w.condemn(rerr)
		}
		w.hash.Write(p[:n])
	}
	return n, err
}

func (w *writer) offset() int64 {
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	return w.status.Offset
}

// advance counts n bytes more.
func (w *writer) advance(n int) {
	w.clean = false
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	w.status.Offset += int64(n)
	w.status.UpdatedAt = w.s.time()
}

// Digest implements [cellar.Writer].
func (w *writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final != "" {
		return w.final
	}
	return digest.NewDigest(w.alg, w.hash)
}

// Status implements [cellar.Writer]. It waits for no other method.
func (w *writer) Status() (cellar.Status, error) {
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	return w.status, nil
}

// current returns the status if the ingestion is there through this writer. It
// does not wait for a method that runs.
func (w *writer) current() (cellar.Status, bool) {
	if !w.mu.TryLock() {
		st, _ := w.Status()
		return st, true
	}
	defer w.mu.Unlock()
	st, _ := w.Status()
	return st, w.fate == nil
}

// Sync implements [cellar.Syncer].
func (w *writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.check("sync"); err != nil {
		return err
	}
	return fserr.Wrap(w.save(false), "sync ingest %s", cellar.Shorten(w.header.ref))
}

// Close implements [cellar.Writer]. An error tells that what was written may
// not survive a power loss, or, as DataLoss, that it is dropped.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil
	}
	defer w.end()
	err := w.fate
	if err == nil {
		err = w.leave()
	}
	return fserr.Wrap(err, "close ingest %s", cellar.Shorten(w.header.ref))
}

// leave makes the ingestion durable as it is, to be resumed, and closes the
// writer.
func (w *writer) leave() error {
	err := w.save(true)
	if w.fate == nil {
		w.fate = errClosed
	}
	return err
}

// end closes the files and frees the ref.
func (w *writer) end() {
	if w.ended {
		return
	}
	w.ended = true
	w.closeFiles()
	w.s.refs.release(w.hold)
}

func (w *writer) closeFiles() {
	w.wait()
	for _, f := range []vfs.File{w.data, w.state} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// abort ends the ingestion under its writer. It reports false if that was
// closed already.
func (w *writer) abort() (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false, nil
	}
	w.fate = fmt.Errorf("the ingestion was aborted: %w", errdefs.ErrAborted)
	err := w.s.drop(w.path)
	w.end()
	return true, err
}

// condemn drops data that can't be relied on, and returns what the writer
// returns from now on.
func (w *writer) condemn(cause error) error {
	w.fate = fmt.Errorf("the data could not be made durable and is dropped: %w: %w", errdefs.ErrDataLoss, cause)
	if w.s.drop(w.path) != nil {
		_ = w.state.Truncate(0) // so that no other process resumes it either
	}
	return w.fate
}

// Truncate implements [cellar.Writer]. If it fails the data may be gone and
// the writer with it; the ref then starts again from zero.
func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("truncate to %d, only 0 is possible: %w", size, errdefs.ErrInvalidArgument)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.check("truncate"); err != nil {
		return err
	}
	return fserr.Wrap(w.reset(), "truncate ingest %s", cellar.Shorten(w.header.ref))
}

// reset begins a new generation in new files, so that neither a checkpoint nor
// a sync of the old ones can be taken for one of the new.
func (w *writer) reset() error {
	w.wait()
	st, _ := w.Status()
	fresh, err := w.s.create(w.path, request{ref: st.Ref, total: st.Total, alg: w.alg, expected: st.Expected}, st.StartedAt)
	if err != nil {
		w.fate = fmt.Errorf("a truncation failed: %w", classed(err))
		_ = w.s.drop(w.path)
		return w.fate
	}
	w.closeFiles()
	w.header, w.data, w.state, w.hash = fresh.header, fresh.data, fresh.state, fresh.hash
	w.last, w.seq, w.started, w.flushed, w.clean, w.anchored, w.ragged = nil, 1, 0, 0, false, false, false
	w.setOffset(0)
	return nil
}

func (w *writer) setOffset(n int64) {
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	w.status.Offset = n
}

// classed gives err its class, so that it can be told again later.
func classed(err error) error { return fserr.Wrap(err, "files of the ingestion") }

// seal gives the file the mode and the time of content.
func (w *writer) seal(now time.Time) error {
	if err := w.data.Chmod(blobMode); err != nil {
		return err
	}
	w.clean = false
	return w.data.SetModTime(now)
}

func (w *writer) unseal() { _ = w.data.Chmod(openMode) }
