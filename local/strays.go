package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// Strays calls fn for what lies in blobs/ and ingest/ and is neither content
// nor a usable ingestion, with its path and the reason. The store passes over
// it everywhere else and never changes it, but for two cases: content and
// ingestions replace what lies in their place, and half-made ingestions are
// removed by Abort and by Open.
//
// The reason is DataLoss for an ingestion that is made by half or damaged, and
// FailedPrecondition for what is foreign. An error from fn ends the listing
// and is returned as it is. What comes or goes meanwhile may be told or not.
func (s *Store) Strays(ctx context.Context, fn func(path string, why error) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := s.strayAlgorithms(ctx, fn); err != nil {
		return err
	}
	for _, alg := range algorithms {
		if err := s.strayBlobs(ctx, alg, fn); err != nil {
			return err
		}
	}
	return s.strayIngests(ctx, fn)
}

// each calls look for every name in a directory, which need not be there, and
// fn where look gives a reason.
func (s *Store) each(ctx context.Context, dir string, fn func(string, error) error, look func(name, path string) error) error {
	var stop error
	err := vfs.ReadNames(s.fs, dir, func(names []string) error {
		for _, name := range names {
			if stop = ctx.Err(); stop != nil {
				return stop
			}
			path := filepath.Join(dir, name)
			if why := look(name, path); why != nil {
				if stop = fn(path, why); stop != nil {
					return stop
				}
			}
		}
		return nil
	})
	if stop != nil || isAbsent(err) {
		return stop
	}
	return fserr.Wrap(err, "list %s", dir)
}

func foreign(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}

func (s *Store) strayAlgorithms(ctx context.Context, fn func(string, error) error) error {
	return s.each(ctx, s.blobsPath(), fn, func(name, path string) error {
		if s.algs[digest.Algorithm(name)] == nil {
			return foreign("no algorithm of content")
		}
		if info, err := s.fs.Lstat(path); err == nil && !info.Mode.IsDir() {
			return foreign("no directory")
		}
		return nil
	})
}

func (s *Store) strayBlobs(ctx context.Context, alg digest.Algorithm, fn func(string, error) error) error {
	if s.algs[alg].handle() == nil {
		return nil
	}
	return s.each(ctx, s.algPath(alg), fn, func(name, path string) error {
		if !isBlobName(alg, name) {
			return foreign("no name of content")
		}
		if info, err := s.fs.Lstat(path); err == nil && !info.Mode.IsRegular() {
			return foreign("no regular file")
		}
		return nil
	})
}

func (s *Store) strayIngests(ctx context.Context, fn func(string, error) error) error {
	open := map[string]bool{}
	for _, w := range s.refs.writers() {
		open[filepath.Base(w.path)] = true
	}
	return s.each(ctx, s.ingestsPath(), fn, func(name, path string) error {
		switch {
		case strings.HasPrefix(name, tempPrefix) || open[name]:
			return nil
		case !isHex(name, 64):
			return foreign("no name of an ingestion")
		}
		_, err := s.load(path)
		switch {
		case errors.Is(err, errHalfMade):
			if _, gone := s.fs.Lstat(path); isAbsent(gone) {
				return nil
			}
			return fmt.Errorf("%w: %w", errdefs.ErrDataLoss, err)
		case err != nil:
			return fserr.Wrap(err, "ingestion")
		}
		return nil
	})
}
