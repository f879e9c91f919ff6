package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// Info describes the content of dgst: what lies there, unread. Its times are
// that of the commit, Labels is nil. See [cellar.InfoProvider].
func (s *Store) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	if err := s.begin(ctx, dgst); err != nil {
		return cellar.Info{}, err
	}
	return s.info(dgst)
}

func (s *Store) info(dgst digest.Digest) (cellar.Info, error) {
	file, err := s.lstat(dgst)
	if err != nil {
		return cellar.Info{}, err
	}
	made := file.ModTime.UTC()
	return cellar.Info{Digest: dgst, Size: file.Size, CreatedAt: made, UpdatedAt: made}, nil
}

// Update is FailedPrecondition, or NotFound for content that is not there: the
// store keeps no labels.
func (s *Store) Update(ctx context.Context, info cellar.Info, _ ...string) (cellar.Info, error) {
	if _, err := s.Info(ctx, info.Digest); err != nil {
		return cellar.Info{}, err
	}
	return cellar.Info{}, fmt.Errorf("update %s: the raw store keeps no labels: %w", info.Digest, errdefs.ErrFailedPrecondition)
}

// Walk calls fn for the content that is there. It keeps the names of one
// algorithm's content in memory and looks at each file when its turn comes.
// What is no content is passed over; Strays tells of it. See [cellar.Manager].
func (s *Store) Walk(ctx context.Context, fn cellar.WalkFunc, exprs ...string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	filter, err := filters.ParseAll(exprs...)
	if err != nil {
		return err
	}
	for _, alg := range algorithms {
		names, err := s.names(alg)
		if err != nil {
			return fserr.Wrap(err, "walk %s", s.algPath(alg))
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := s.info(digest.NewDigestFromEncoded(alg, name))
			if errdefs.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			if !filter.Match(info) {
				continue
			}
			if err := fn(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// names returns what in blobs/<alg> has the name of content, in order.
func (s *Store) names(alg digest.Algorithm) ([]string, error) {
	if s.algs[alg].handle() == nil {
		return nil, nil
	}
	var names []string
	err := vfs.ReadNames(s.fs, s.algPath(alg), func(batch []string) error {
		for _, name := range batch {
			if isBlobName(alg, name) {
				names = append(names, name)
			}
		}
		return nil
	})
	if err != nil && !isAbsent(err) {
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Digests calls fn with every digest under which something lies. See
// [cellar.RawStore].
func (s *Store) Digests(ctx context.Context, fn func(dgst digest.Digest) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	var stop error // of ctx or fn, which are returned as they are
	for _, alg := range algorithms {
		if s.algs[alg].handle() == nil {
			continue
		}
		err := vfs.ReadNames(s.fs, s.algPath(alg), func(batch []string) error {
			stop = eachDigest(ctx, alg, batch, fn)
			return stop
		})
		switch {
		case stop != nil:
			return stop
		case err != nil && !isAbsent(err):
			return fserr.Wrap(err, "list %s", s.algPath(alg))
		}
	}
	return nil
}

func eachDigest(ctx context.Context, alg digest.Algorithm, names []string, fn func(dgst digest.Digest) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, name := range names {
		if !isBlobName(alg, name) {
			continue
		}
		if err := fn(digest.NewDigestFromEncoded(alg, name)); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the content of dgst for good. Readers that are open keep it.
// See [cellar.Manager].
func (s *Store) Delete(ctx context.Context, dgst digest.Digest) error {
	_, err := s.Remove(ctx, dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	// Also what is not there any more may come back until a sync succeeds.
	if a := s.algs[dgst.Algorithm()]; a.unsynced.Load() {
		if serr := a.sync(); serr != nil {
			return fserr.Wrap(serr, "delete %s", dgst)
		}
	}
	return err
}

// Remove removes the content of dgst and returns its length. Until Flush
// returns nil a power loss may bring the content back, whole. See
// [cellar.RawStore].
func (s *Store) Remove(ctx context.Context, dgst digest.Digest) (int64, error) {
	if err := s.begin(ctx, dgst); err != nil {
		return 0, err
	}
	unlock, err := s.digests.lock(ctx, dgst)
	if err != nil {
		return 0, err
	}
	defer unlock()
	info, err := s.lstat(dgst)
	if err != nil {
		return 0, err
	}
	s.trusted.drop(dgst)
	s.journal.drop(dgst)
	if err := s.fs.Remove(s.blobPath(dgst)); err != nil {
		return 0, fserr.Wrap(err, "delete %s", dgst)
	}
	s.algs[dgst.Algorithm()].unsynced.Store(true)
	return info.Size, nil
}

// Flush makes every Remove that has returned durable. Without any since the
// last Flush it costs nothing.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	var errs []error
	for _, alg := range algorithms {
		if a := s.algs[alg]; a.unsynced.Load() {
			errs = append(errs, fserr.Wrap(a.sync(), "flush %s", a.path))
		}
	}
	return errors.Join(errs...)
}
