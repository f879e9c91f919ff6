package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// request is what a writer is opened with.
type request struct {
	ref      string
	total    int64 // 0 if unknown
	alg      digest.Algorithm
	expected digest.Digest
	public   bool // by Writer: Commit tells what was there, and journals what was not
}

// Writer opens the ingestion of a ref. See [cellar.Ingester].
//
// Content that lies under the descriptor's digest counts as there if this
// process committed it; if not, it is read and hashed first, and made durable.
// What turns out to be debris does not count, and Commit replaces it.
func (s *Store) Writer(ctx context.Context, opts ...cellar.WriterOpt) (cellar.Writer, error) {
	w, err := s.newWriter(ctx, opts)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (s *Store) newWriter(ctx context.Context, opts []cellar.WriterOpt) (*writer, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	var wo cellar.WriterOpts
	for _, opt := range opts {
		if err := opt(&wo); err != nil {
			return nil, err
		}
	}
	if err := cellar.ValidateRef(wo.Ref); err != nil {
		return nil, err
	}
	req := request{ref: wo.Ref, total: max(wo.Desc.Size, 0), alg: digest.SHA256, expected: wo.Desc.Digest, public: true}
	if req.expected != "" {
		if err := cellar.ValidateDigest(req.expected); err != nil {
			return nil, err
		}
		req.alg = req.expected.Algorithm()
		if err := s.absent(ctx, req.expected); err != nil {
			return nil, err
		}
	}
	return s.openIngest(ctx, req)
}

// Ingest opens a writer for ref without a look at what is there. See
// [cellar.RawStore].
func (s *Store) Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (cellar.Writer, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := cellar.ValidateRef(ref); err != nil {
		return nil, err
	}
	if alg == "" {
		alg = digest.SHA256
	}
	if !slices.Contains(algorithms, alg) {
		return nil, fmt.Errorf("hash algorithm %s: %w", cellar.Shorten(string(alg)), errdefs.ErrInvalidArgument)
	}
	w, err := s.openIngest(ctx, request{ref: ref, total: max(total, 0), alg: alg})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (s *Store) openIngest(ctx context.Context, req request) (*writer, error) {
	now := s.time()
	h, err := s.refs.take(req.ref, now)
	if err != nil {
		return nil, err
	}
	var w *writer
	if err = s.usable(ctx); err == nil { // again: Close looks at the holds that there are
		w, err = s.openHeld(ctx, req, now)
	}
	if err == nil {
		w.hold = h
	}
	h.attach(w)
	if err != nil {
		s.refs.release(h)
		return nil, fserr.Wrap(err, "ingest %s", cellar.Shorten(req.ref))
	}
	return w, nil
}

// time is the current time as it is kept: UTC, without a monotonic part.
func (s *Store) time() time.Time { return s.now().UTC().Round(0) }

// openHeld resumes the ingestion of a ref that the caller holds, or makes one.
func (s *Store) openHeld(ctx context.Context, req request, now time.Time) (*writer, error) {
	path := s.ingestPath(req.ref)
	saved, err := s.load(path)
	switch {
	case errors.Is(err, errHalfMade):
	case err != nil:
		return nil, err
	case saved.total > 0 && req.total > 0 && saved.total != req.total:
	default:
		return s.reopen(ctx, path, saved, req)
	}
	return s.create(path, req, now)
}

// create makes a new ingestion, and removes what lies in its place.
func (s *Store) create(path string, req request, started time.Time) (*writer, error) {
	h := &header{started: started, total: req.total, boot: s.boot, alg: req.alg, expected: req.expected, ref: req.ref}
	_, _ = rand.Read(h.generation[:])
	if err := s.makeIngestDir(path); err != nil {
		return nil, err
	}
	w := newWriter(s, path, h, req)
	if err := w.createFiles(); err != nil {
		w.closeFiles()
		_ = vfs.RemoveAll(s.fs, path)
		return nil, err
	}
	return w, nil
}

func (w *writer) createFiles() (err error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	if w.data, err = w.s.fs.OpenFile(w.dataPath(), flags, openMode); err != nil {
		return err
	}
	if w.state, err = w.s.fs.OpenFile(w.statePath(), flags, openMode); err != nil {
		return err
	}
	_, err = w.state.WriteAt(w.header.encode(), 0)
	return err
}

// makeIngestDir makes an empty folder. A new folder instead of the old one
// emptied: after a power loss files of the two can't be mixed.
func (s *Store) makeIngestDir(path string) error {
	err := s.fs.Mkdir(path, dirMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.remakeIngests(); err == nil {
			err = s.fs.Mkdir(path, dirMode)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		if err = vfs.RemoveAll(s.fs, path); err == nil {
			err = s.fs.Mkdir(path, dirMode)
		}
	}
	if err == nil {
		s.condemned.Delete(path)
	}
	return err
}

// remakeIngests makes ingest/ again, which somebody has removed.
func (s *Store) remakeIngests() error {
	return s.makeDirs(s.ingestsPath())
}

// errHalfMade says that there is no ingestion, or none that can be used.
var errHalfMade = errors.New("no usable ingestion")

// saved is an ingestion as it lies on disk.
type saved struct {
	*state
	data vfs.Info
}

// load reads what lies in a folder of ingest/. A folder that is missing, made
// by half, of another ref, or condemned is errHalfMade, and so is one whose
// data is reachable by another name as well: a crash in the midst of a Commit
// leaves that, and the other name is content.
func (s *Store) load(path string) (saved, error) {
	if _, lost := s.condemned.Load(path); lost {
		return saved{}, errHalfMade
	}
	st, err := s.loadState(filepath.Join(path, stateName))
	if err != nil {
		return saved{}, err
	}
	if ingestKey(st.ref) != filepath.Base(path) {
		return saved{}, errHalfMade
	}
	data, err := s.fs.Lstat(filepath.Join(path, dataName))
	switch {
	case isAbsent(err):
		return saved{}, errHalfMade
	case err != nil:
		return saved{}, err
	case !data.Mode.IsRegular() || data.Links > 1:
		return saved{}, errHalfMade
	}
	return saved{state: st, data: data}, nil
}

func (s *Store) loadState(name string) (*state, error) {
	f, err := s.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		if isAbsent(err) || isLink(err) {
			return nil, errHalfMade
		}
		return nil, err
	}
	defer f.Close()
	st, err := readState(f)
	switch {
	case errors.Is(err, errNewer):
		return nil, fmt.Errorf("%s: %w: %w", name, errdefs.ErrFailedPrecondition, err)
	case errors.Is(err, errRecord) || errors.Is(err, syscall.EISDIR):
		return nil, errHalfMade
	}
	return st, err
}

func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func isLink(err error) bool { return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) }

func (s *Store) isHalfMade(path string) bool {
	_, err := s.load(path)
	return errors.Is(err, errHalfMade)
}

// sameBoot reports whether the machine has been up since a writer of this
// store opened the ingestion last. If not, what no checkpoint covers was
// perhaps never durable.
func (v saved) sameBoot(boot string) bool {
	if boot == "" {
		return false
	}
	same := v.boot == boot
	for _, c := range v.slots {
		same = same || c.boot == boot
	}
	return same
}

// fits reports whether c can be a checkpoint of a data file like that.
func (c *checkpoint) fits(data vfs.Info) bool {
	return c.inode == data.Inode && c.offset <= data.Size
}

// untouched reports whether the data file is as the writer left it that closed
// with c.
func (c *checkpoint) untouched(data vfs.Info) bool {
	return c.clean && c.fits(data) && c.offset == data.Size &&
		c.mtime == data.ModTime.UnixNano() && c.ctime == data.ChangeTime.UnixNano()
}

// status says what a writer would find if it were opened now.
func (v saved) status(boot string) cellar.Status {
	st := cellar.Status{Ref: v.ref, Offset: v.data.Size, Total: v.total, Expected: v.expected, StartedAt: v.started, UpdatedAt: v.started}
	if len(v.slots) > 0 {
		st.Expected = v.slots[0].expected
	}
	if !v.sameBoot(boot) {
		st.Offset = v.durable()
	}
	covered := int64(0)
	if c := v.newest(); c != nil {
		st.UpdatedAt, covered = c.updated, c.offset
	}
	if covered < st.Offset {
		st.UpdatedAt = latest(st.UpdatedAt, v.data.ModTime.UTC())
	}
	return st
}

// newest returns the newest checkpoint that fits the data file, if any.
func (v saved) newest() *checkpoint {
	for _, c := range v.slots {
		if c.fits(v.data) {
			return c
		}
	}
	return nil
}

// durable is how much of the data a power loss can't have taken.
func (v saved) durable() int64 {
	if c := v.newest(); c != nil {
		return c.offset
	}
	return 0
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Status describes the ingestion of ref. See [cellar.IngestManager].
func (s *Store) Status(ctx context.Context, ref string) (cellar.Status, error) {
	if err := s.usable(ctx); err != nil {
		return cellar.Status{}, err
	}
	if err := cellar.ValidateRef(ref); err != nil {
		return cellar.Status{}, err
	}
	st, err := s.ingestStatus(s.ingestPath(ref), s.openWriter(ref))
	if errors.Is(err, errHalfMade) {
		err = errNoIngest
	}
	return st, fserr.Wrap(err, "ingest %s", cellar.Shorten(ref))
}

var errNoIngest = fmt.Errorf("no such ingestion: %w", errdefs.ErrNotFound)

// openWriter returns the writer that is open on ref, if any.
func (s *Store) openWriter(ref string) *writer {
	h := s.refs.holder(ref)
	if h == nil {
		return nil
	}
	select {
	case <-h.ready:
		return h.w
	default:
		return nil
	}
}

func (s *Store) ingestStatus(path string, w *writer) (cellar.Status, error) {
	if w != nil {
		if st, open := w.current(); open {
			return st, nil
		}
	}
	saved, err := s.load(path)
	if err != nil {
		return cellar.Status{}, err
	}
	return saved.status(s.boot), nil
}

// ListStatuses describes the ingestions. What is half-made or strange is left
// out; Strays tells of it. See [cellar.IngestManager].
func (s *Store) ListStatuses(ctx context.Context, exprs ...string) ([]cellar.Status, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	filter, err := filters.ParseAll(exprs...)
	if err != nil {
		return nil, err
	}
	open := map[string]*writer{}
	for _, w := range s.refs.writers() {
		open[filepath.Base(w.path)] = w
	}
	var out []cellar.Status
	err = vfs.ReadNames(s.fs, s.ingestsPath(), func(names []string) error {
		for _, name := range names {
			if !isHex(name, 64) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			st, err := s.ingestStatus(filepath.Join(s.ingestsPath(), name), open[name])
			switch {
			case err == nil && filter.Match(st):
				out = append(out, st)
			case err != nil && !skippable(err):
				return err
			}
		}
		return nil
	})
	if err != nil && !isAbsent(err) {
		return nil, fserr.Wrap(err, "ingests of %s", s.root)
	}
	slices.SortFunc(out, func(a, b cellar.Status) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}

// skippable reports whether an error is about one ingestion alone. No file
// descriptors left, say, is not.
func skippable(err error) bool {
	class := fserr.Class(err)
	return errors.Is(err, errHalfMade) || errdefs.IsNotFound(class) || errdefs.IsDataLoss(class) ||
		errdefs.IsFailedPrecondition(class) || errdefs.IsPermissionDenied(class)
}

// Abort drops the ingestion of ref. If a Commit of it is running, Abort waits
// for that and then finds nothing. What a crash left of an ingestion is removed
// too, newer versions' ingestions included. See [cellar.IngestManager].
func (s *Store) Abort(ctx context.Context, ref string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := cellar.ValidateRef(ref); err != nil {
		return err
	}
	for {
		done, err := s.tryAbort(ctx, ref)
		if done || err != nil {
			return fserr.Wrap(err, "abort %s", cellar.Shorten(ref))
		}
	}
}

// tryAbort reports false if somebody else was faster.
func (s *Store) tryAbort(ctx context.Context, ref string) (done bool, err error) {
	other := s.refs.holder(ref)
	if other == nil {
		h, err := s.refs.take(ref, s.time())
		if err != nil {
			return false, nil
		}
		defer s.refs.release(h)
		h.attach(nil)
		return true, s.removeIngest(ref)
	}
	select {
	case <-other.ready:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if other.w != nil {
		if done, err := other.w.abort(); done {
			return true, err
		}
	}
	select {
	case <-other.freed:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *Store) removeIngest(ref string) error {
	path := s.ingestPath(ref)
	if _, err := s.fs.Lstat(path); err != nil {
		if isAbsent(err) {
			return errNoIngest
		}
		return err
	}
	return s.drop(path)
}

// drop removes an ingestion. If that fails it can't be used all the same.
func (s *Store) drop(path string) error {
	s.condemned.Store(path, nil)
	if err := vfs.RemoveAll(s.fs, path); err != nil {
		return err
	}
	s.condemned.Delete(path)
	return nil
}
