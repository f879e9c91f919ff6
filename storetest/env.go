package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// env is a store under test with the calls that tests make all the time. Its
// methods end the test where a call fails that should not.
type env struct {
	*testing.T
	impl  Implementation
	dir   string
	ctx   context.Context
	store cellar.Store
	close func() error
}

func newEnv(t *testing.T, impl Implementation) *env {
	e := &env{T: t, impl: impl, dir: t.TempDir(), ctx: t.Context()}
	if impl.Context != nil {
		e.ctx = impl.Context(e.ctx)
	}
	e.start()
	t.Cleanup(func() { require.NoError(t, e.close()) })
	return e
}

func (e *env) start() {
	e.Helper()
	h := e.impl.Open(e.T, e.dir, nil)
	e.store, e.close = h.Store, h.Close
}

// reopen closes the store and opens it again on the same files.
func (e *env) reopen() {
	e.Helper()
	require.NoError(e, e.close())
	e.start()
}

// open opens a writer on ref that is closed when the test ends.
func (e *env) open(ref string, opts ...cellar.WriterOpt) cellar.Writer {
	e.Helper()
	w, err := e.store.Writer(e.ctx, append([]cellar.WriterOpt{cellar.WithRef(ref)}, opts...)...)
	require.NoError(e, err)
	e.Cleanup(func() { require.NoError(e, w.Close()) })
	return w
}

// openErr opens a writer that must fail with class.
func (e *env) openErr(class error, ref string, opts ...cellar.WriterOpt) {
	e.Helper()
	w, err := e.store.Writer(e.ctx, append([]cellar.WriterOpt{cellar.WithRef(ref)}, opts...)...)
	requireClass(e, err, class)
	require.Nil(e, w)
}

// write writes p to w.
func (e *env) write(w cellar.Writer, p []byte) {
	e.Helper()
	n, err := w.Write(p)
	require.NoError(e, err)
	require.Equal(e, len(p), n)
}

// put commits p, under a ref of its own, and returns its digest.
func (e *env) put(p []byte, opts ...cellar.Opt) digest.Digest {
	e.Helper()
	return putIn(e, e.ctx, e.store, p, opts...)
}

// leave leaves an ingestion of ref that holds p.
func (e *env) leave(ref string, p []byte, opts ...cellar.WriterOpt) {
	e.Helper()
	w := e.open(ref, opts...)
	e.write(w, p)
	require.NoError(e, w.Close())
}

// status returns what w says of its ingestion.
func (e *env) status(w cellar.Writer) cellar.Status {
	e.Helper()
	st, err := w.Status()
	require.NoError(e, err)
	return st
}

// info returns the description of content that is there.
func (e *env) info(dgst digest.Digest) cellar.Info {
	e.Helper()
	info, err := e.store.Info(e.ctx, dgst)
	require.NoError(e, err)
	return info
}

// requireContent checks that want can be read under dgst, and is described.
func (e *env) requireContent(dgst digest.Digest, want []byte) {
	e.Helper()
	requireContentIn(e, e.ctx, e.store, dgst, want)
}

// requireAbsent checks that nobody sees dgst.
func (e *env) requireAbsent(dgst digest.Digest) {
	e.Helper()
	requireAbsentIn(e, e.ctx, e.store, dgst)
}

// requireNoIngestion checks that ref has no ingestion and is free.
func (e *env) requireNoIngestion(ref string) {
	e.Helper()
	_, err := e.store.Status(e.ctx, ref)
	requireClass(e, err, errdefs.ErrNotFound)
	all, err := e.store.ListStatuses(e.ctx)
	require.NoError(e, err)
	for _, st := range all {
		require.NotEqual(e, ref, st.Ref)
	}
	w := e.open(ref)
	require.Zero(e, e.status(w).Offset)
	require.NoError(e, w.Close())
	require.NoError(e, e.store.Abort(e.ctx, ref))
}

func putIn(t testing.TB, ctx context.Context, store cellar.Store, p []byte, opts ...cellar.Opt) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(p)
	w, err := store.Writer(ctx, cellar.WithRef("put "+dgst.String()))
	require.NoError(t, err)
	n, err := w.Write(p)
	require.NoError(t, err)
	require.Equal(t, len(p), n)
	require.NoError(t, w.Commit(ctx, int64(len(p)), dgst, opts...))
	return dgst
}

func requireContentIn(t testing.TB, ctx context.Context, store cellar.Store, dgst digest.Digest, want []byte) {
	t.Helper()
	got, err := cellar.ReadBlob(ctx, store, describe(dgst, 0))
	require.NoError(t, err)
	requireBytes(t, want, got)
	info, err := store.Info(ctx, dgst)
	require.NoError(t, err)
	require.Equal(t, dgst, info.Digest)
	require.Equal(t, int64(len(want)), info.Size)
}

func requireAbsentIn(t testing.TB, ctx context.Context, store cellar.Store, dgst digest.Digest) {
	t.Helper()
	_, err := store.Info(ctx, dgst)
	requireClass(t, err, errdefs.ErrNotFound)
	_, err = store.ReaderAt(ctx, describe(dgst, 0))
	requireClass(t, err, errdefs.ErrNotFound)
	for _, info := range walk(t, ctx, store) {
		require.NotEqual(t, dgst, info.Digest)
	}
}

// walk returns what Walk shows.
func walk(t testing.TB, ctx context.Context, store cellar.Store, filters ...string) []cellar.Info {
	t.Helper()
	var infos []cellar.Info
	err := store.Walk(ctx, func(info cellar.Info) error {
		infos = append(infos, info)
		return nil
	}, filters...)
	require.NoError(t, err)
	return infos
}

// requireBytes compares without printing megabytes.
func requireBytes(t testing.TB, want, got []byte) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	if len(want) <= 64 {
		require.Equal(t, string(want), string(got))
		return
	}
	require.Equal(t, digest.FromBytes(want), digest.FromBytes(got), "bytes differ")
}

// classes are those that a store's errors may belong to.
var classes = []error{
	errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition,
	errdefs.ErrAborted, errdefs.ErrUnavailable, errdefs.ErrResourceExhausted, errdefs.ErrPermissionDenied,
	errdefs.ErrDataLoss, errdefs.ErrInternal, context.Canceled, context.DeadlineExceeded,
}

// requireClass checks that err belongs to class, and to no other.
func requireClass(t testing.TB, err, class error) {
	t.Helper()
	require.Equal(t, []error{class}, classesOf(err), "error: %v", err)
}

func classesOf(err error) []error {
	var found []error
	for _, class := range classes {
		if errors.Is(err, class) {
			found = append(found, class)
		}
	}
	return found
}

// blob returns n bytes that depend on name alone.
func blob(name string, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(p)
	return p
}

func describe(dgst digest.Digest, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: dgst, Size: size}
}

func withDigest(dgst digest.Digest) cellar.WriterOpt { return cellar.WithDescriptor(describe(dgst, 0)) }

func withSize(size int64) cellar.WriterOpt { return cellar.WithDescriptor(describe("", size)) }

// during calls fn and returns a check that a time lies within the call and is
// UTC. The monotonic part is dropped: stores keep the wall clock alone.
func during(t testing.TB, fn func()) func(time.Time) {
	t.Helper()
	before := time.Now().Round(0)
	fn()
	after := time.Now().Round(0)
	return func(at time.Time) {
		t.Helper()
		require.Equal(t, time.UTC, at.Location())
		require.False(t, at.Before(before) || at.After(after), "%v is not from %v to %v", at, before, after)
	}
}
