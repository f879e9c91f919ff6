package metadata

import (
	"context"
	"crypto/rand"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
)

// rawStore returns what the metadata layer works with: blobs itself if it can
// do all of it, otherwise an adaptor that makes do with the plain contract.
func rawStore(blobs cellar.Store) cellar.RawStore {
	if raw, ok := blobs.(cellar.RawStore); ok {
		return raw
	}
	return plainStore{blobs}
}

// plainStore makes a raw store of any Store, at the price of flushing each
// small blob by itself.
type plainStore struct{ cellar.Store }

// stages reports whether the raw store takes bytes whose durability the
// database answers for.
func stages(raw cellar.RawStore) bool {
	_, plain := raw.(plainStore)
	return !plain
}

// Ingest names a digest that nothing has, so that the store hashes with its
// algorithm and does not answer that the content is there.
func (s plainStore) Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (cellar.Writer, error) {
	desc := ocispec.Descriptor{Size: total}
	if alg != "" && alg != digest.Canonical {
		desc.Digest = alg.FromString(rand.Text())
	}
	w, err := s.Writer(ctx, cellar.WithRef(ref), cellar.WithDescriptor(desc))
	if err != nil {
		return nil, err
	}
	return plainWriter{w}, nil
}

type plainWriter struct{ cellar.Writer }

func (w plainWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (s plainStore) Place(ctx context.Context, dgst digest.Digest, p []byte) error {
	w, err := s.Ingest(ctx, "place-"+dgst.String(), int64(len(p)), dgst.Algorithm())
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil {
		return err
	}
	if _, err := w.Write(p); err != nil {
		return err
	}
	return w.Commit(ctx, int64(len(p)), dgst)
}

// Settle has nothing to do: what Place has placed is durable already.
func (s plainStore) Settle(context.Context, []digest.Digest) error { return nil }

func (s plainStore) Digests(ctx context.Context, fn func(dgst digest.Digest) error) error {
	return s.Walk(ctx, func(info cellar.Info) error { return fn(info.Digest) })
}

func (s plainStore) Remove(ctx context.Context, dgst digest.Digest) (int64, error) {
	info, err := s.Info(ctx, dgst)
	if err != nil {
		return 0, err
	}
	return info.Size, s.Delete(ctx, dgst)
}

// Committed reports nothing: a collection lists such a store every time.
func (s plainStore) Committed() []digest.Digest { return nil }
