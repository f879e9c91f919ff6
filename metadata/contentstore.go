package metadata

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/namespaces"
)

// contextStore is a store that finds the namespace in the context of each call.
type contextStore struct {
	db *DB
}

var (
	_ cellar.Store     = (*contextStore)(nil)
	_ cellar.RefWaiter = (*contextStore)(nil)
)

// ContentStore returns a store that works in the namespace which the context of
// each call carries (see package namespaces). Without one, every method is
// FailedPrecondition; with a name that breaks the rules, InvalidArgument.
func (db *DB) ContentStore() cellar.Store { return &contextStore{db} }

func (s *contextStore) view(ctx context.Context) (*view, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	return &view{db: s.db, ns: ns}, nil
}

func (s *contextStore) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	v, err := s.view(ctx)
	if err != nil {
		return cellar.Info{}, err
	}
	return v.Info(ctx, dgst)
}

func (s *contextStore) Update(ctx context.Context, info cellar.Info, fieldpaths ...string) (cellar.Info, error) {
	v, err := s.view(ctx)
	if err != nil {
		return cellar.Info{}, err
	}
	return v.Update(ctx, info, fieldpaths...)
}

func (s *contextStore) Walk(ctx context.Context, fn cellar.WalkFunc, filters ...string) error {
	v, err := s.view(ctx)
	if err != nil {
		return err
	}
	return v.Walk(ctx, fn, filters...)
}

func (s *contextStore) Delete(ctx context.Context, dgst digest.Digest) error {
	v, err := s.view(ctx)
	if err != nil {
		return err
	}
	return v.Delete(ctx, dgst)
}

func (s *contextStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	return v.ReaderAt(ctx, desc)
}

func (s *contextStore) Status(ctx context.Context, ref string) (cellar.Status, error) {
	v, err := s.view(ctx)
	if err != nil {
		return cellar.Status{}, err
	}
	return v.Status(ctx, ref)
}

func (s *contextStore) ListStatuses(ctx context.Context, filters ...string) ([]cellar.Status, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	return v.ListStatuses(ctx, filters...)
}

func (s *contextStore) Abort(ctx context.Context, ref string) error {
	v, err := s.view(ctx)
	if err != nil {
		return err
	}
	return v.Abort(ctx, ref)
}

func (s *contextStore) Writer(ctx context.Context, opts ...cellar.WriterOpt) (cellar.Writer, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	return v.Writer(ctx, opts...)
}

func (s *contextStore) WaitRef(ctx context.Context, ref string) error {
	v, err := s.view(ctx)
	if err != nil {
		return err
	}
	return v.WaitRef(ctx, ref)
}
