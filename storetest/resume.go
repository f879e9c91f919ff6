package storetest

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// finishers bring a reopened ingestion, of which have bytes are there, to the
// whole of p.
var finishers = map[string]func(e *env, w cellar.Writer, p []byte, have int){
	"writing the rest": func(e *env, w cellar.Writer, p []byte, have int) {
		e.write(w, p[have:])
		require.NoError(e, w.Commit(e.ctx, int64(len(p)), digest.FromBytes(p)))
	},
	"truncating and writing all": func(e *env, w cellar.Writer, p []byte, _ int) {
		require.NoError(e, w.Truncate(0))
		require.Zero(e, e.status(w).Offset)
		e.write(w, p)
		require.NoError(e, w.Commit(e.ctx, int64(len(p)), digest.FromBytes(p)))
	},
	"copying a plain reader": func(e *env, w cellar.Writer, p []byte, _ int) {
		e.copy(w, struct{ io.Reader }{bytes.NewReader(p)}, p)
	},
	"copying a seeker": func(e *env, w cellar.Writer, p []byte, _ int) {
		e.copy(w, struct{ io.ReadSeeker }{bytes.NewReader(p)}, p)
	},
	"copying a reader at": func(e *env, w cellar.Writer, p []byte, _ int) {
		r := bytes.NewReader(p)
		e.copy(w, struct {
			io.Reader
			io.ReaderAt
		}{strings.NewReader("wrong"), r}, p)
	},
}

var resumePromises = []promise{
	{"a left ingestion is continued where it stopped, in every way", func(e *env) {
		for how, finish := range finishers {
			for _, n := range []int{500, 5000, 50_000, 200_000} {
				for _, percent := range []int{0, 10, 50, 90, 100} {
					e.resume(how, n, n*percent/100, finish)
				}
			}
		}
	}},
	{"it continues after closing and opening the store", func(e *env) {
		for _, n := range sizes {
			e.leave(fmt.Sprint(n), blob("restart", n)[:n/2])
		}
		e.reopen()
		for _, n := range sizes {
			p := blob("restart", n)
			w := e.open(fmt.Sprint(n))
			require.Equal(e, digest.FromBytes(p[:n/2]), w.Digest())
			finishers["writing the rest"](e, w, p, n/2)
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"total, expected digest and times are as they were left", func(e *env) {
		p := blob("unchanged", 256)
		w := e.open("ref", cellar.WithDescriptor(describe(digest.FromBytes(p), 256)))
		e.write(w, p[:128])
		left := e.status(w)
		require.NoError(e, w.Close())
		w = e.open("ref", cellar.WithDescriptor(describe(digest.FromBytes(p), 256)))
		require.Equal(e, left, e.status(w))
		require.NoError(e, w.Close())
		e.reopen()
		got, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, left, got)
		require.Equal(e, int64(256), got.Total)
		require.Equal(e, digest.FromBytes(p), got.Expected)
	}},
	{"another positive total starts afresh, with an empty file and a new start (W-R2)", func(e *env) {
		for _, n := range []int{50, 100_000} {
			ref := fmt.Sprint("ref ", n)
			e.leave(ref, blob("first", n), withSize(int64(n*2)))
			before, err := e.store.Status(e.ctx, ref)
			require.NoError(e, err)
			w := e.open(ref, withSize(77))
			st := e.status(w)
			require.Zero(e, st.Offset)
			require.Equal(e, int64(77), st.Total)
			require.True(e, st.StartedAt.After(before.StartedAt))
			require.Equal(e, st.StartedAt, st.UpdatedAt)
			require.Equal(e, digest.FromString(""), w.Digest())
			p := []byte(fmt.Sprint("shorter than it was: ", n))
			e.write(w, p)
			require.NoError(e, w.Commit(e.ctx, 0, ""))
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"the empty file of a fresh start commits as empty content (W-R2)", func(e *env) {
		e.leave("ref", blob("stale", 50), withSize(100))
		w := e.open("ref", withSize(77))
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		e.requireContent(digest.FromString(""), nil)
	}},
	{"a total that was unknown stays unknown, one that was known stays known", func(e *env) {
		for i, first := range []int64{0, 100} {
			ref := fmt.Sprint(i)
			e.leave(ref, []byte("kept"), withSize(first))
			w := e.open(ref, withSize(100-first))
			require.Equal(e, first, e.status(w).Total)
			require.Equal(e, int64(4), e.status(w).Offset)
		}
	}},
	{"the expected digest is that of the last writer which named one", func(e *env) {
		first, second := digest.FromString("first"), digest.FromString("second")
		for _, step := range []struct{ named, want digest.Digest }{{"", ""}, {first, first}, {"", first}, {second, second}, {"", second}} {
			w := e.open("ref", withDigest(step.named))
			require.Equal(e, step.want, e.status(w).Expected)
			e.write(w, []byte("x"))
			require.NoError(e, w.Close())
			st, err := e.store.Status(e.ctx, "ref")
			require.NoError(e, err)
			require.Equal(e, step.want, st.Expected)
		}
	}},
	{"a truncated ingestion stays empty", func(e *env) {
		for _, n := range []int{100, 100_000} {
			ref := fmt.Sprint(n)
			w := e.open(ref)
			e.write(w, blob("dropped", n))
			require.NoError(e, w.Truncate(0))
			require.NoError(e, w.Close())
			require.NoError(e, w.Close())
			w = e.open(ref)
			require.Zero(e, e.status(w).Offset)
			require.Equal(e, digest.FromString(""), w.Digest())
		}
	}},
	{"WriteBlob continues an ingestion and is repeatable", func(e *env) {
		p := blob("write blob", 90_000)
		desc := describe(digest.FromBytes(p), int64(len(p)))
		broken := io.MultiReader(bytes.NewReader(p[:40_000]), failingReader{})
		err := cellar.WriteBlob(e.ctx, e.store, "ref", broken, desc)
		require.ErrorIs(e, err, errBroken)
		st, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, int64(40_000), st.Offset)
		for range 2 {
			require.NoError(e, cellar.WriteBlob(e.ctx, e.store, "ref", bytes.NewReader(p), desc))
			e.requireContent(desc.Digest, p)
		}
		e.requireNoIngestion("ref")
	}},
	{"what a source gives beyond its size is not in the ingestion", func(e *env) {
		p := blob("too long", 1000)
		w := e.open("ref", withSize(900))
		requireClass(e, cellar.Copy(e.ctx, w, bytes.NewReader(p), 900, ""), errdefs.ErrFailedPrecondition)
		require.Equal(e, int64(900), e.status(w).Offset)
	}},
}

var errBroken = fmt.Errorf("broken source: %w", io.ErrUnexpectedEOF)

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errBroken }

// resume leaves an ingestion with have of n bytes, opens it again, finishes it
// and checks what was committed.
func (e *env) resume(how string, n, have int, finish func(*env, cellar.Writer, []byte, int)) {
	e.Helper()
	name := fmt.Sprintf("%s, %d of %d", how, have, n)
	p := blob(name, n)
	e.leave(name, p[:have])
	w := e.open(name)
	st := e.status(w)
	require.Equal(e, int64(have), st.Offset, name)
	require.Equal(e, digest.FromBytes(p[:have]), w.Digest(), name)
	finish(e, w, p, have)
	require.Equal(e, digest.FromBytes(p), w.Digest(), name)
	e.requireContent(digest.FromBytes(p), p)
}

// copy copies r, which holds p, to w.
func (e *env) copy(w cellar.Writer, r io.Reader, p []byte) {
	e.Helper()
	require.NoError(e, cellar.Copy(e.ctx, w, r, int64(len(p)), digest.FromBytes(p)))
}
