package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
)

// part is one piece of content that must be there.
type part struct {
	dgst digest.Digest
	body string
}

func (p part) verify(ctx context.Context, store cellar.Store) error {
	got, err := cellar.ReadBlob(ctx, store, ocispec.Descriptor{Digest: p.dgst})
	if err == nil && string(got) != p.body {
		err = fmt.Errorf("has the wrong bytes")
	}
	return err
}

// image is a root, the last of its parts, with what it refers to.
type image struct {
	space *space
	parts []part
}

func (i image) root() digest.Digest { return i.parts[len(i.parts)-1].dgst }

// ledger knows which images are live. An image is in it from after its root was
// committed until before it is deleted.
type ledger struct {
	mu     sync.Mutex
	images []image
}

func (l *ledger) add(i image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images = append(l.images, i)
}

func (l *ledger) has(i image) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.images, func(other image) bool {
		return other.space == i.space && other.root() == i.root()
	})
}

func (l *ledger) pick(r *rand.Rand) (image, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.images) == 0 {
		return image{}, false
	}
	return l.images[r.IntN(len(l.images))], true
}

// take removes an image, as long as there are enough of them.
func (l *ledger) take(r *rand.Rand) (image, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.images) < 20 {
		return image{}, false
	}
	at := r.IntN(len(l.images))
	i := l.images[at]
	l.images = slices.Delete(l.images, at, at+1)
	return i, true
}

// live returns what each namespace must have, and nothing else.
func (l *ledger) live() map[*space]map[digest.Digest]part {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[*space]map[digest.Digest]part{}
	for _, i := range l.images {
		if all[i.space] == nil {
			all[i.space] = map[digest.Digest]part{}
		}
		for _, p := range i.parts {
			all[i.space][p.dgst] = p
		}
	}
	return all
}

func (l *ledger) size() (n int) {
	for _, parts := range l.live() {
		n += len(parts)
	}
	return n
}

// audit compares records, bytes and files with the ledger.
func (s *soak) audit(ctx context.Context) error {
	live := s.ledger.live()
	files := map[digest.Digest]bool{}
	for _, sp := range s.spaces {
		for _, p := range live[sp] {
			files[p.dgst] = true
			if err := p.verify(ctx, sp.store); err != nil {
				return fmt.Errorf("lost: %s in %s: %w", p.dgst, sp.name, err)
			}
		}
		err := sp.store.Walk(ctx, func(info cellar.Info) error {
			if _, ok := live[sp][info.Digest]; !ok {
				return fmt.Errorf("garbage left: %s in %s, written %v, labels %v", info.Digest, sp.name, info.CreatedAt, info.Labels)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.blobs.Digests(ctx, func(dgst digest.Digest) error {
		if !files[dgst] {
			return fmt.Errorf("garbage left: file of %s", dgst)
		}
		return nil
	})
}
