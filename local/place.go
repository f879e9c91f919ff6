package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

const createFlags = os.O_WRONLY | os.O_CREATE | os.O_EXCL

// algDir is blobs/<alg>, held open: reads go through the handle, so that a
// link put in its place leads nowhere, and syncs need not open it.
type algDir struct {
	s       *Store
	path    string
	entries syncGroup
	// unsynced says that removals wait for a sync, or that the last sync failed.
	unsynced atomic.Bool

	mu   sync.Mutex
	dir  vfs.Dir   // nil until the directory is there and durable
	gone []vfs.Dir // handles of directories that somebody removed; readers may still use them
}

func newAlgDir(s *Store, alg digest.Algorithm) *algDir {
	a := &algDir{s: s, path: s.algPath(alg)}
	a.entries.sync = a.syncNow
	return a
}

// openExisting opens the directory if it is there. What has its name but is
// none is left for Strays to report.
func (a *algDir) openExisting() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	info, err := a.s.fs.Lstat(a.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode.IsDir():
		return nil
	case err != nil:
		return err
	}
	a.dir, err = a.s.fs.OpenDir(a.path)
	return err
}

// handle returns the open directory, nil if there is none.
func (a *algDir) handle() vfs.Dir {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dir
}

// ensure makes the directory where it is missing and its entry durable.
func (a *algDir) ensure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dir != nil {
		return nil
	}
	err := a.s.makeDirs(a.path)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed blobs/
		if err = a.s.makeDirs(a.s.blobsPath()); err == nil {
			err = a.s.makeDirs(a.path)
		}
	}
	if err == nil {
		a.dir, err = a.s.fs.OpenDir(a.path)
	}
	return err
}

// forget makes the next ensure look again: the directory was removed.
func (a *algDir) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dir != nil {
		a.gone = append(a.gone, a.dir)
		a.dir = nil
	}
}

func (a *algDir) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, dir := range append(a.gone, a.dir) {
		if dir != nil {
			_ = dir.Close()
		}
	}
	a.dir, a.gone = nil, nil
}

// sync makes the entries durable, together with others who wait for that.
func (a *algDir) sync() error { return a.entries.do() }

func (a *algDir) syncNow() error {
	dir := a.handle()
	if dir == nil {
		return nil
	}
	a.unsynced.Store(false)
	err := dir.Sync()
	if err != nil {
		a.unsynced.Store(true)
	}
	return err
}

// openBlob opens the content of dgst. What is no regular file is no content.
func (s *Store) openBlob(dgst digest.Digest) (vfs.File, vfs.Info, error) {
	dir := s.algs[dgst.Algorithm()].handle()
	if dir == nil {
		return nil, vfs.Info{}, notFound(dgst)
	}
	f, err := dir.Open(dgst.Encoded())
	if err != nil {
		return nil, vfs.Info{}, s.readError(dgst, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode.IsRegular() {
		err = errNotFile
	}
	if err != nil {
		_ = f.Close()
		return nil, vfs.Info{}, s.readError(dgst, err)
	}
	return f, info, nil
}

// lstat describes the file of dgst. What is no regular file is no content.
func (s *Store) lstat(dgst digest.Digest) (vfs.Info, error) {
	if s.algs[dgst.Algorithm()].handle() == nil {
		return vfs.Info{}, notFound(dgst)
	}
	info, err := s.fs.Lstat(s.blobPath(dgst))
	if err == nil && !info.Mode.IsRegular() {
		err = errNotFile
	}
	if err != nil {
		return vfs.Info{}, s.readError(dgst, err)
	}
	return info, nil
}

func notFound(dgst digest.Digest) error {
	return fmt.Errorf("content %s: %w", dgst, errdefs.ErrNotFound)
}

var errNotFile = fmt.Errorf("what lies there is no regular file: %w", errdefs.ErrNotFound)

func (s *Store) readError(dgst digest.Digest, err error) error {
	if isLink(err) {
		err = errNotFile
	}
	return fserr.Wrap(err, "content %s", dgst)
}

// put moves the file at from into place as dgst, whose lock the caller holds.
// Nothing is synced but a directory that has to be made.
func (s *Store) put(from string, dgst digest.Digest) error {
	a := s.algs[dgst.Algorithm()]
	s.trusted.drop(dgst)
	for attempt := 1; ; attempt++ {
		if err := a.ensure(); err != nil {
			return err
		}
		err := s.fs.Rename(from, s.blobPath(dgst))
		switch {
		case err == nil:
			return nil
		case attempt > 1:
			return err
		case errors.Is(err, fs.ErrNotExist):
			a.forget()
		case !s.removeEmptyDir(s.blobPath(dgst)):
			return err
		}
	}
}

// removeEmptyDir removes a directory that has the name of content and reports
// whether it did. One with something in it stays.
func (s *Store) removeEmptyDir(path string) bool {
	info, err := s.fs.Lstat(path)
	return err == nil && info.Mode.IsDir() && s.fs.Remove(path) == nil
}

// Place puts p in place as the content of dgst. It syncs nothing, but for the
// first content of an algorithm the new directory. See [cellar.RawStore].
func (s *Store) Place(ctx context.Context, dgst digest.Digest, p []byte) error {
	if err := s.begin(ctx, dgst); err != nil {
		return err
	}
	unlock, err := s.digests.lock(ctx, dgst)
	if err != nil {
		return err
	}
	defer unlock()
	temp := s.tempPath()
	err = s.writeTemp(temp, p)
	if err == nil {
		err = s.put(temp, dgst)
	}
	if err != nil {
		_ = s.fs.Remove(temp)
	}
	return fserr.Wrap(err, "place %s", dgst)
}

// begin is the check that methods about one digest begin with.
func (s *Store) begin(ctx context.Context, dgst digest.Digest) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return cellar.ValidateDigest(dgst)
}

func (s *Store) writeTemp(name string, p []byte) error {
	f, err := s.fs.OpenFile(name, createFlags, blobMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.remakeIngests(); err == nil {
			f, err = s.fs.OpenFile(name, createFlags, blobMode)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, 0)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// settlers is how many files Settle syncs at once.
const settlers = 8

// Settle makes the content of each digest durable: the files several at a
// time, then each directory once. See [cellar.RawStore].
func (s *Store) Settle(ctx context.Context, dgsts []digest.Digest) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	errs := make([]error, len(dgsts))
	s.settleFiles(ctx, dgsts, errs)
	s.settleDirs(dgsts, errs)
	var joined []error
	for i, err := range errs {
		if err != nil {
			joined = append(joined, &cellar.SettleError{Digest: dgsts[i], Err: err})
		}
	}
	return errors.Join(joined...)
}

func (s *Store) settleFiles(ctx context.Context, dgsts []digest.Digest, errs []error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(settlers, len(dgsts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(dgsts); i = int(next.Add(1)) - 1 {
				errs[i] = s.settleFile(ctx, dgsts[i])
			}
		})
	}
	wg.Wait()
}

func (s *Store) settleFile(ctx context.Context, dgst digest.Digest) error {
	if err := s.begin(ctx, dgst); err != nil {
		return err
	}
	unlock, err := s.digests.lock(ctx, dgst)
	if err != nil {
		return err
	}
	defer unlock()
	f, _, err := s.openBlob(dgst)
	if err != nil {
		return err
	}
	defer f.Close()
	return fserr.Wrap(f.Sync(), "content %s", dgst)
}

// settleDirs syncs the directories of the digests that have no error yet.
func (s *Store) settleDirs(dgsts []digest.Digest, errs []error) {
	for _, alg := range algorithms {
		var of []int
		for i, dgst := range dgsts {
			if errs[i] == nil && dgst.Algorithm() == alg {
				of = append(of, i)
			}
		}
		if len(of) == 0 {
			continue
		}
		if err := s.algs[alg].sync(); err != nil {
			for _, i := range of {
				errs[i] = fserr.Wrap(err, "content %s", dgsts[i])
			}
		}
	}
}

// Committed returns what was committed through Writer and IngestFile since the
// last call, in no order. See [cellar.RawStore].
func (s *Store) Committed() []digest.Digest { return s.journal.take() }
