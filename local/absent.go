package local

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar/internal/fserr"
)

// absent returns AlreadyExists if the content of dgst is there. What this
// process did not commit is hashed and synced before it counts; what does not
// hash to dgst is debris.
func (s *Store) absent(ctx context.Context, dgst digest.Digest) error {
	info, err := s.lstat(dgst)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !s.trusted.has(dgst, info) {
		unlock, err := s.digests.lock(ctx, dgst)
		if err != nil {
			return err
		}
		right, err := s.examine(ctx, dgst)
		unlock()
		if err != nil || !right {
			return err
		}
	}
	return fmt.Errorf("content %s: %w", dgst, errdefs.ErrAlreadyExists)
}

// examine reports whether the file under dgst, whose lock the caller holds, has
// the right bytes, and makes them durable and trusted if so.
func (s *Store) examine(ctx context.Context, dgst digest.Digest) (bool, error) {
	f, info, err := s.openBlob(dgst)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if s.trusted.has(dgst, info) {
		return true, nil
	}
	h := dgst.Algorithm().Hash()
	if err := hashRange(ctx, h, f, 0, info.Size); err != nil {
		if errdefs.IsDataLoss(fserr.Class(err)) {
			return false, nil // it can't be read: debris
		}
		return false, fserr.Wrap(err, "content %s", dgst)
	}
	if digest.NewDigest(dgst.Algorithm(), h) != dgst {
		return false, nil
	}
	if err := f.Sync(); err != nil {
		return false, nil // it may be lost with the power: write it again
	}
	if err := s.algs[dgst.Algorithm()].sync(); err != nil {
		return false, fserr.Wrap(err, "content %s", dgst)
	}
	s.trusted.add(dgst, info)
	return true, nil
}
