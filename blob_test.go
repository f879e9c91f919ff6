package cellar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// fakeReader is content whose announced size may be a lie.
type fakeReader struct {
	io.ReaderAt
	size   int64
	closes int
	err    error // of Close
}

func (r *fakeReader) Size() int64  { return r.size }
func (r *fakeReader) Close() error { r.closes++; return r.err }

func newFakeReader(p string, size int64) *fakeReader {
	return &fakeReader{ReaderAt: strings.NewReader(p), size: size}
}

type fakeProvider struct {
	ra  *fakeReader
	err error
}

func (p fakeProvider) ReaderAt(context.Context, ocispec.Descriptor) (cellar.ReaderAt, error) {
	if p.err != nil {
		return nil, p.err
	}
	return p.ra, nil
}

// Two readers of one ReaderAt never share a position, and both end at Size.
func TestNewReaderIsIndependent(t *testing.T) {
	ra := newFakeReader(text+"beyond", int64(len(text)))
	a, b := cellar.NewReader(ra), cellar.NewReader(ra)
	require.NoError(t, iotest.TestReader(a, []byte(text)))
	require.NoError(t, iotest.TestReader(b, []byte(text)))
	a, b = cellar.NewReader(ra), cellar.NewReader(ra)
	var fromA, fromB strings.Builder
	for range text {
		_, err := io.CopyN(&fromA, a, 1)
		require.NoError(t, err)
		_, err = io.CopyN(&fromB, b, 1)
		require.NoError(t, err)
	}
	require.Equal(t, text, fromA.String())
	require.Equal(t, text, fromB.String())
	require.Zero(t, ra.closes)
}

// ReadBlob returns what the provider has, or says why not, and closes the
// reader in every case.
func TestReadBlob(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 5<<16) + "!"
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		ra   *fakeReader
		want string
		errs []error
	}{
		"whole":             {newFakeReader(text, int64(len(text))), text, nil},
		"empty":             {newFakeReader("", 0), "", nil},
		"large":             {newFakeReader(large, int64(len(large))), large, nil},
		"part of a file":    {newFakeReader(text, 3), text[:3], nil},
		"short":             {newFakeReader(text, int64(len(text))+1), "", []error{io.ErrUnexpectedEOF, errdefs.ErrDataLoss}},
		"lie of an exabyte": {newFakeReader(text, 1<<60), "", []error{io.ErrUnexpectedEOF}},
		"negative size":     {newFakeReader(text, -1), "", []error{errdefs.ErrResourceExhausted}},
		"read error":        {&fakeReader{ReaderAt: failingAt{broken}, size: 4}, "", []error{broken}},
		"close error":       {&fakeReader{ReaderAt: strings.NewReader(text), size: int64(len(text)), err: broken}, text, []error{broken}},
	} {
		t.Run(name, func(t *testing.T) {
			desc := ocispec.Descriptor{Digest: digest.FromString("any")}
			p, err := cellar.ReadBlob(t.Context(), fakeProvider{ra: tc.ra}, desc)
			for _, want := range tc.errs {
				require.ErrorIs(t, err, want)
			}
			if tc.errs == nil {
				require.NoError(t, err)
			}
			require.Equal(t, tc.want, string(p))
			require.Equal(t, 1, tc.ra.closes)
		})
	}
}

type failingAt struct{ err error }

func (f failingAt) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// Data in a descriptor is taken exactly if it has the descriptor's length and
// digest; a malformed digest is refused before anything else.
func TestReadBlobEmbedded(t *testing.T) {
	const stored = "from the provider"
	data := []byte(text)
	sum, n := digest.FromBytes(data), int64(len(data))
	empty := digest.FromString("")
	for name, tc := range map[string]struct {
		desc ocispec.Descriptor
		want string
		err  error
	}{
		"right":                {ocispec.Descriptor{Digest: sum, Size: n, Data: data}, text, nil},
		"right, sha512":        {ocispec.Descriptor{Digest: digest.SHA512.FromBytes(data), Size: n, Data: data}, text, nil},
		"right, empty":         {ocispec.Descriptor{Digest: empty, Data: []byte{}}, "", nil},
		"none":                 {ocispec.Descriptor{Digest: sum, Size: n}, stored, nil},
		"none, of size zero":   {ocispec.Descriptor{Digest: empty}, stored, nil},
		"too short":            {ocispec.Descriptor{Digest: sum, Size: n, Data: data[1:]}, stored, nil},
		"too long":             {ocispec.Descriptor{Digest: sum, Size: n - 1, Data: data}, stored, nil},
		"size unknown":         {ocispec.Descriptor{Digest: sum, Data: data}, stored, nil},
		"other content":        {ocispec.Descriptor{Digest: sum, Size: n, Data: bytes.ToUpper(data)}, stored, nil},
		"other algorithm":      {ocispec.Descriptor{Digest: digest.SHA512.FromString("x"), Size: n, Data: data}, stored, nil},
		"zero descriptor":      {ocispec.Descriptor{}, "", errdefs.ErrInvalidArgument},
		"digest without colon": {ocispec.Descriptor{Digest: "abc", Size: n, Data: data}, "", errdefs.ErrInvalidArgument},
		"unknown algorithm":    {ocispec.Descriptor{Digest: "md5:900150983cd24fb0d6963f7d28e17f72", Size: n, Data: data}, "", errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			provider := fakeProvider{ra: newFakeReader(stored, int64(len(stored)))}
			p, err := cellar.ReadBlob(t.Context(), provider, tc.desc)
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.want, string(p))
		})
	}
	p, err := cellar.ReadBlob(t.Context(), nil, ocispec.Descriptor{Digest: sum, Size: n, Data: data})
	require.NoError(t, err)
	p[0] = '?'
	require.Equal(t, text, string(data), "the result is the caller's own")
}

// ReadBlob returns the provider's error, and the context's.
func TestReadBlobErrors(t *testing.T) {
	desc := ocispec.Descriptor{Digest: digest.FromString(text)}
	_, err := cellar.ReadBlob(t.Context(), fakeProvider{err: errdefs.ErrNotFound}, desc)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cellar.ReadBlob(ctx, fakeProvider{ra: newFakeReader("", 0)}, desc)
	require.ErrorIs(t, err, context.Canceled)
}

type infoFunc func() error

func (f infoFunc) Info(context.Context, digest.Digest) (cellar.Info, error) {
	return cellar.Info{}, f()
}

// Exists is false for NotFound, and passes every other error on.
func TestExists(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		err, want error
		exists    bool
	}{
		{nil, nil, true},
		{fmt.Errorf("blob: %w", errdefs.ErrNotFound), nil, false},
		{broken, broken, false},
		{errdefs.ErrInvalidArgument, errdefs.ErrInvalidArgument, false},
	} {
		ok, err := cellar.Exists(t.Context(), infoFunc(func() error { return tc.err }), ocispec.Descriptor{})
		require.Equal(t, tc.exists, ok)
		require.ErrorIs(t, err, tc.want)
	}
}

// fakeIngester hands out w after its errors are used up.
type fakeIngester struct {
	w     *fakeWriter
	errs  []error
	calls int
	opts  cellar.WriterOpts
}

func (in *fakeIngester) Writer(_ context.Context, opts ...cellar.WriterOpt) (cellar.Writer, error) {
	in.calls++
	for _, opt := range opts {
		if err := opt(&in.opts); err != nil {
			return nil, err
		}
	}
	if err := pop(&in.errs); err != nil {
		return nil, err
	}
	return in.w, nil
}

// waitingIngester also tells when a ref is free: at once.
type waitingIngester struct {
	fakeIngester
	waits []string
	err   error
}

func (in *waitingIngester) WaitRef(_ context.Context, ref string) error {
	in.waits = append(in.waits, ref)
	return in.err
}

// WriteBlob opens the ref with the descriptor, copies, commits and closes;
// what is there already is success and reads nothing.
func TestWriteBlob(t *testing.T) {
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	in := &fakeIngester{w: &fakeWriter{data: []byte(text[:4])}}
	err := cellar.WriteBlob(t.Context(), in, "ref", strings.NewReader(text), desc, cellar.WithLabels(map[string]string{"k": "v"}))
	require.NoError(t, err)
	require.Equal(t, cellar.WriterOpts{Ref: "ref", Desc: desc}, in.opts)
	require.Equal(t, text, string(in.w.data))
	require.Equal(t, map[string]string{"k": "v"}, in.w.labels)
	require.Equal(t, 1, in.w.closes)

	in = &fakeIngester{errs: []error{errdefs.ErrAlreadyExists}}
	require.NoError(t, cellar.WriteBlob(t.Context(), in, "ref", nil, desc))

	in = &fakeIngester{errs: []error{errdefs.ErrPermissionDenied}}
	require.ErrorIs(t, cellar.WriteBlob(t.Context(), in, "ref", nil, desc), errdefs.ErrPermissionDenied)

	in = &fakeIngester{w: &fakeWriter{}}
	err = cellar.WriteBlob(t.Context(), in, "ref", strings.NewReader(text[:3]), desc)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 1, in.w.closes, "closed, to be resumed")
	require.Equal(t, text[:3], string(in.w.data))

	in = &fakeIngester{w: &fakeWriter{}}
	require.NoError(t, cellar.WriteBlob(t.Context(), in, "ref", strings.NewReader(text), ocispec.Descriptor{Size: -1}),
		"a negative size in a descriptor means unknown")
}

func locked() error { return fmt.Errorf("open: %w", &cellar.LockedError{Ref: "inner name"}) }

// OpenWriter asks a RefWaiter to be woken, under the name the caller gave; it
// neither waits nor tries again for another Unavailable.
func TestOpenWriterWoken(t *testing.T) {
	in := &waitingIngester{fakeIngester: fakeIngester{w: &fakeWriter{}, errs: repeat(locked(), 3)}}
	w, err := cellar.OpenWriter(t.Context(), in, cellar.WithRef("outer name"))
	require.NoError(t, err)
	require.Same(t, in.w, w)
	require.Equal(t, 4, in.calls)
	require.Equal(t, []string{"outer name", "outer name", "outer name"}, in.waits)

	in = &waitingIngester{fakeIngester: fakeIngester{errs: []error{errdefs.ErrUnavailable}}}
	_, err = cellar.OpenWriter(t.Context(), in, cellar.WithRef("ref"))
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
	require.Equal(t, 1, in.calls)
	require.Empty(t, in.waits)

	in = &waitingIngester{fakeIngester: fakeIngester{errs: []error{locked()}}, err: context.DeadlineExceeded}
	_, err = cellar.OpenWriter(t.Context(), in, cellar.WithRef("ref"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, errdefs.IsUnavailable(err), "the wait ended, the ref is not the cause")
}

// OpenWriter slows down when a RefWaiter says free and the ref never is.
func TestOpenWriterDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in := &waitingIngester{fakeIngester: fakeIngester{errs: repeat(locked(), 100_000)}}
		_, err := cellar.OpenWriter(ctx, in, cellar.WithRef("ref"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, in.calls, 1000)
	})
}

// Without a RefWaiter OpenWriter tries again at growing intervals until ctx
// ends.
func TestOpenWriterBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &fakeIngester{w: &fakeWriter{}, errs: repeat(errdefs.ErrUnavailable, 5)}
		start := time.Now()
		_, err := cellar.OpenWriter(t.Context(), in, cellar.WithRef("ref"))
		require.NoError(t, err)
		require.Equal(t, 6, in.calls)
		require.Less(t, time.Since(start), time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in = &fakeIngester{errs: repeat(errdefs.ErrUnavailable, 100_000)}
		_, err = cellar.OpenWriter(ctx, in, cellar.WithRef("ref"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, in.calls, 1000)
		require.Greater(t, in.calls, 30)
	})
}

// OpenWriter tries nothing once ctx is done, and passes errors other than
// Unavailable on at once, those of options too.
func TestOpenWriterErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in := &fakeIngester{}
	_, err := cellar.OpenWriter(ctx, in, cellar.WithRef("ref"))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, in.calls)

	in = &fakeIngester{errs: []error{errdefs.ErrAlreadyExists}}
	_, err = cellar.OpenWriter(t.Context(), in, cellar.WithRef("ref"))
	require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
	require.Equal(t, 1, in.calls)

	broken := errors.New("bad option")
	_, err = cellar.OpenWriter(t.Context(), in, func(*cellar.WriterOpts) error { return broken })
	require.Equal(t, broken, err)
}
