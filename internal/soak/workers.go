package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// leaseTTL is how long a lease lasts that nobody deletes.
const leaseTTL = 2 * time.Second

// content makes up bytes: mostly small, some of which several writers choose.
func content(r *rand.Rand) string {
	switch r.IntN(10) {
	case 0:
		return fmt.Sprintf("common %d", r.IntN(20))
	case 1:
		return strings.Repeat(fmt.Sprintf("%016x", r.Uint64()), 8<<10) // 128 KiB
	}
	return strings.Repeat(fmt.Sprintf("%016x", r.Uint64()), 1+r.IntN(100))
}

func (s *soak) put(ctx context.Context, sp *space, body string, set map[string]string) (digest.Digest, error) {
	dgst := digest.FromString(body)
	desc := ocispec.Descriptor{Digest: dgst, Size: int64(len(body))}
	ref := fmt.Sprintf("%s-%d", dgst.Encoded()[:12], rand.Uint64())
	err := cellar.WriteBlob(ctx, sp.store, ref, strings.NewReader(body), desc, cellar.WithLabels(set))
	s.commits.Add(1)
	return dgst, err
}

func pause(ctx context.Context, r *rand.Rand, most time.Duration) {
	select {
	case <-time.After(time.Duration(r.Int64N(int64(most)))):
	case <-ctx.Done():
	}
}

func (s *soak) anySpace(r *rand.Rand) *space { return s.spaces[r.IntN(len(s.spaces))] }

// writeLeased commits children under a lease, refers to them after a while,
// and lets go of the lease, or leaves it to expire.
func (s *soak) writeLeased(ctx context.Context, r *rand.Rand) error {
	sp := s.anySpace(r)
	lease, err := sp.leases.Create(ctx, leases.WithTTL(time.Minute))
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	defer sp.leases.Delete(context.WithoutCancel(ctx), lease.ID, leases.IfExists()) //nolint:errcheck // a lease left behind shows as garbage
	return s.writeImage(leases.WithLease(ctx, lease.ID), r, sp, time.Second)
}

// writeBare does the same within the grace period, without a lease.
func (s *soak) writeBare(ctx context.Context, r *rand.Rand) error {
	return s.writeImage(ctx, r, s.anySpace(r), s.grace/4)
}

// writeImage commits some blobs and, after a delay, a root that refers to them.
func (s *soak) writeImage(ctx context.Context, r *rand.Rand, sp *space, delay time.Duration) error {
	image := image{space: sp}
	refs := map[string]string{labels.GCRoot: "soak"}
	for i := range 1 + r.IntN(4) {
		body := content(r)
		child, err := s.put(ctx, sp, body, nil)
		if err != nil {
			return fmt.Errorf("commit child: %w", err)
		}
		refs[fmt.Sprintf("%s.l.%d", labels.GCRefContent, i)] = child.String()
		image.parts = append(image.parts, part{child, body})
	}
	pause(ctx, r, delay)
	body := fmt.Sprintf("root %016x %v", r.Uint64(), refs)
	root, err := s.put(ctx, sp, body, refs)
	if err != nil {
		return fmt.Errorf("commit root: %w", err)
	}
	image.parts = append(image.parts, part{root, body})
	s.ledger.add(image)
	return nil
}

// read verifies everything that a live image refers to. What it finds missing
// counts only if the image is live still.
func (s *soak) read(ctx context.Context, r *rand.Rand) error {
	image, ok := s.ledger.pick(r)
	if !ok {
		pause(ctx, r, 10*time.Millisecond)
		return nil
	}
	for _, p := range image.parts {
		if err := p.verify(ctx, image.space.store); err != nil && s.ledger.has(image) {
			return fmt.Errorf("live %s in %s: %w", p.dgst, image.space.name, err)
		}
		s.reads.Add(1)
	}
	return nil
}

// delete ends an image: its root is deleted, or is a root no more.
func (s *soak) delete(ctx context.Context, r *rand.Rand) error {
	pause(ctx, r, 20*time.Millisecond)
	image, ok := s.ledger.take(r)
	if !ok {
		return nil
	}
	root := image.parts[len(image.parts)-1].dgst
	s.deletions.Add(1)
	ctx = context.WithoutCancel(ctx) // or the ledger would not know what happened
	if r.IntN(2) == 0 {
		return image.space.store.Delete(ctx, root)
	}
	_, err := image.space.store.Update(ctx, cellar.Info{Digest: root}, "labels."+labels.GCRoot)
	return err
}

// expire leases things that nobody refers to, and leaves the lease to its end.
func (s *soak) expire(ctx context.Context, r *rand.Rand) error {
	sp := s.anySpace(r)
	lease, err := sp.leases.Create(ctx, leases.WithTTL(leaseTTL))
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	_, err = s.put(leases.WithLease(ctx, lease.ID), sp, content(r), nil)
	if errdefs.IsNotFound(err) {
		err = nil // the machine was so slow that the lease is over
	}
	pause(ctx, r, 200*time.Millisecond)
	return err
}
