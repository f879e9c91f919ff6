package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// Options say how a store is opened. The zero value is the default.
type Options struct {
	// Now tells the time, by default time.Now.
	Now func() time.Time

	// FS is the file system, by default the operating system's.
	FS vfs.FS
}

// Store is a raw content store in a directory. It implements
// [cellar.RawStore] and [cellar.RefWaiter] and keeps no labels: Commit ignores
// those in its options, and Update is FailedPrecondition. All methods may be
// called concurrently.
type Store struct {
	root string
	fs   vfs.FS
	now  func() time.Time
	lock io.Closer

	refs    refTable
	algs    map[digest.Algorithm]*algDir // one for each of algorithms; not changed after Open
	ingests syncGroup                    // syncs ingest/
	digests keyLocks                     // held while content is put in place, settled or removed
	trusted trustTable
	journal journal
	temps   atomic.Uint64
	boot    string
	closed  atomic.Bool

	checkpointEvery int64

	// condemned holds the folders of ingestions whose data is lost and which
	// could not be removed yet.
	condemned sync.Map
}

var (
	_ cellar.RawStore  = (*Store)(nil)
	_ cellar.RefWaiter = (*Store)(nil)
)

// Open opens the store in the directory root and makes what is missing of it:
// root with its parents, blobs/ and ingest/. What it makes is durable when it
// returns nil. Half-made ingestions that a crash left are removed.
//
// A root that another store has open, in this process or another one, is
// Unavailable, and the error names the process; Open does not wait. A root
// that can't be written is PermissionDenied, and nothing is made in it. Where
// root, blobs or ingest is there but no directory, the error is
// FailedPrecondition. The caller ends the store with Close.
func Open(root string, opts Options) (*Store, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fserr.Wrap(err, "store %s", root)
	}
	s := &Store{root: abs, fs: opts.FS, now: opts.Now, algs: map[digest.Algorithm]*algDir{}, checkpointEvery: checkpointEvery}
	if s.fs == nil {
		s.fs = vfs.OS
		s.root = resolve(abs)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.boot = s.fs.BootID()
	if err := s.open(); err != nil {
		s.release()
		return nil, fserr.Wrap(err, "store %s", abs)
	}
	return s, nil
}

// resolve follows the symbolic links in path as far as it is there: where the
// root lies is the caller's choice, but inside it no link is followed.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

func (s *Store) open() error {
	if err := s.makeRoot(s.root); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.makeDirs(s.blobsPath(), s.ingestsPath()); err != nil {
		return err
	}
	// A process that died may have made blobs/<alg> and not synced it.
	if err := vfs.SyncDir(s.fs, s.blobsPath()); err != nil {
		return err
	}
	if err := s.probe(); err != nil {
		return err
	}
	s.ingests.sync = func() error { return vfs.SyncDir(s.fs, s.ingestsPath()) }
	for _, alg := range algorithms {
		s.algs[alg] = newAlgDir(s, alg)
		if err := s.algs[alg].openExisting(); err != nil {
			return err
		}
	}
	return s.removeHalfMade()
}

// makeRoot makes a directory, its parents first, and syncs each new entry.
func (s *Store) makeRoot(path string) error {
	info, err := s.fs.Lstat(path)
	switch {
	case err == nil && !info.Mode.IsDir():
		return notDirectory(path)
	case err == nil:
		return s.syncParent(path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(path)
	if parent == path {
		return err
	}
	if err := s.makeRoot(parent); err != nil {
		return err
	}
	return s.makeDirs(path)
}

// syncParent makes the entry of a directory durable that is there: a process
// that died may have made it and not come to that. Where the parent is none of
// ours to open, others made the entry.
func (s *Store) syncParent(path string) error {
	dir, err := s.fs.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// makeDirs makes the directories where they are missing and syncs the one that
// they are all in. If that fails those that were made are removed again:
// nothing may rely on them.
func (s *Store) makeDirs(paths ...string) error {
	var made []string
	err := func() error {
		for _, path := range paths {
			fresh, err := s.makeDir(path)
			if err != nil {
				return err
			}
			if fresh {
				made = append(made, path)
			}
		}
		return vfs.SyncDir(s.fs, filepath.Dir(paths[0]))
	}()
	if err != nil {
		for _, path := range made {
			_ = s.fs.Remove(path)
		}
	}
	return err
}

// makeDir reports whether it had to make the directory.
func (s *Store) makeDir(path string) (fresh bool, err error) {
	if err = s.fs.Mkdir(path, dirMode); err == nil {
		return true, nil
	}
	info, lerr := s.fs.Lstat(path)
	switch {
	case lerr != nil:
		return false, err
	case !info.Mode.IsDir():
		return false, notDirectory(path)
	}
	return false, nil
}

func notDirectory(path string) error {
	return fmt.Errorf("%s is not a directory: %w", path, errdefs.ErrFailedPrecondition)
}

func (s *Store) takeLock() error {
	lock, err := s.fs.Lock(s.root)
	var held *vfs.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	s.lock = lock
	return err
}

// probe finds out now, and not at the first write, that the store can't be
// written. A full disk is no reason not to open: it has to be emptied.
func (s *Store) probe() error {
	name := s.tempPath()
	f, err := s.fs.OpenFile(name, createFlags, openMode)
	if err != nil {
		if errdefs.IsPermissionDenied(fserr.Class(err)) {
			return err
		}
		return nil
	}
	_ = f.Close()
	_ = s.fs.Remove(name)
	return nil
}

// removeHalfMade removes what a crash left in ingest/ and nothing can use. What
// can't be removed is for Strays to report.
func (s *Store) removeHalfMade() error {
	return vfs.ReadNames(s.fs, s.ingestsPath(), func(names []string) error {
		for _, name := range names {
			path := filepath.Join(s.ingestsPath(), name)
			switch {
			case strings.HasPrefix(name, tempPrefix):
				_ = s.fs.Remove(path)
			case isHex(name, 64) && s.isHalfMade(path):
				_ = vfs.RemoveAll(s.fs, path)
			}
		}
		return nil
	})
}

// Close closes writers that are still open, as their Close does, and gives the
// root free. Readers stay usable. Everything that starts afterwards is
// FailedPrecondition. Closing twice is no error.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, w := range s.refs.writers() {
		errs = append(errs, w.Close())
	}
	errs = append(errs, s.release())
	return errors.Join(errs...)
}

func (s *Store) release() error {
	for _, a := range s.algs {
		a.close()
	}
	if s.lock == nil {
		return nil
	}
	return fserr.Wrap(s.lock.Close(), "store %s", s.root)
}

// usable is the check that every method begins with.
func (s *Store) usable(ctx interface{ Err() error }) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return fmt.Errorf("store %s is closed: %w: %w", s.root, errdefs.ErrFailedPrecondition, fs.ErrClosed)
	}
	return nil
}
