package storetest

import (
	"bytes"
	"io"
	"io/fs"
	"math"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var algorithms = []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}

var writerPromises = []promise{
	{"writers that are open together each get their own bytes", func(e *env) {
		sum := func(p []byte) cellar.WriterOpt { return withDigest(digest.FromBytes(p)) }
		contents := [][]byte{
			blob("nothing known", 1000), blob("size known", 2000), blob("digest known", 3000),
			blob("both known", 4000), blob("large", 5<<20+3),
		}
		all := func(p []byte) cellar.WriterOpt {
			return cellar.WithDescriptor(describe(digest.FromBytes(p), int64(len(p))))
		}
		writers := []cellar.Writer{
			e.open("0"), e.open("1", withSize(2000)), e.open("2", sum(contents[2])), e.open("3", all(contents[3])), e.open("4", all(contents[4])),
		}
		for i, w := range writers {
			chunk := min(len(contents[i])/20, 100_000)
			_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(contents[i])}, make([]byte, chunk))
			require.NoError(e, err)
		}
		for i, w := range writers {
			require.NoError(e, w.Commit(e.ctx, 0, ""))
			require.Equal(e, digest.FromBytes(contents[i]), w.Digest())
			e.requireContent(w.Digest(), contents[i])
		}
	}},
	{"Write appends, and offset, digest and UpdatedAt follow", func(e *env) {
		p := blob("appended", 256)
		var w cellar.Writer
		opened := during(e, func() { w = e.open("ref", withSize(256)) })
		st := e.status(w)
		opened(st.StartedAt)
		require.Equal(e, st.StartedAt, st.UpdatedAt)
		have := 0
		for _, n := range []int{64, 128, 0, 64} {
			written := during(e, func() { e.write(w, p[have:have+n]) })
			have += n
			got := e.status(w)
			written(got.UpdatedAt)
			require.Equal(e, st.StartedAt, got.StartedAt)
			require.Equal(e, int64(have), got.Offset)
			require.Equal(e, int64(256), got.Total)
			require.Equal(e, digest.FromBytes(p[:have]), w.Digest())
		}
	}},
	{"Write does not keep the caller's slice", func(e *env) {
		p := []byte("mine again after the call")
		w := e.open("ref")
		e.write(w, p)
		want := bytes.Clone(p)
		clear(p)
		require.NoError(e, w.Commit(e.ctx, 0, digest.FromBytes(want)))
		e.requireContent(digest.FromBytes(want), want)
	}},
	{"more bytes than the total may be written", func(e *env) {
		w := e.open("ref", withSize(10))
		e.write(w, blob("over", 20))
		require.Equal(e, int64(20), e.status(w).Offset)
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		e.requireContent(digest.FromBytes(blob("over", 20)), blob("over", 20))
	}},
	{"the digest is of the descriptor's algorithm, else sha256", func(e *env) {
		for _, n := range sizes {
			for _, alg := range algorithms {
				p := blob(string(alg), n)
				w := e.open(string(alg), withDigest(alg.FromString("something else")))
				require.Equal(e, alg.FromBytes(nil), w.Digest())
				e.write(w, p)
				require.Equal(e, alg.FromBytes(p), w.Digest())
				require.NoError(e, w.Commit(e.ctx, 0, ""))
				require.Equal(e, alg.FromBytes(p), w.Digest())
				e.requireContent(alg.FromBytes(p), p)
			}
		}
	}},
	{"a resumed ingestion hashes with the algorithm it is now opened with", func(e *env) {
		for _, first := range append(algorithms, "") {
			for _, then := range algorithms {
				p := blob(string(first+then), 70_000)
				ref := string(first + " " + then)
				if first == "" {
					e.leave(ref, p[:50_000])
				} else {
					e.leave(ref, p[:50_000], withDigest(first.FromBytes(p)))
				}
				w := e.open(ref, withDigest(then.FromBytes(p)))
				require.Equal(e, then.FromBytes(p[:50_000]), w.Digest())
				e.write(w, p[50_000:])
				require.NoError(e, w.Commit(e.ctx, 0, then.FromBytes(p)))
				e.requireContent(then.FromBytes(p), p)
			}
		}
	}},
	{"Close leaves the ingestion, is repeatable, and is no error after Commit", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("left"))
		for range 3 {
			require.NoError(e, w.Close())
		}
		st, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, int64(4), st.Offset)
		w = e.open("ref")
		require.NoError(e, w.Commit(e.ctx, 4, ""))
		require.NoError(e, w.Close())
		require.NoError(e, w.Close())
	}},
	{"after Close, Write, Truncate and Commit are FailedPrecondition and change nothing (W-R9)", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("left"))
		require.NoError(e, w.Close())
		before := e.status(w)
		e.requireClosed(w)
		require.Equal(e, before, e.status(w))
		require.Equal(e, digest.FromString("left"), w.Digest())
		w = e.open("ref")
		require.Equal(e, digest.FromString("left"), w.Digest())
	}},
	{"after Commit, Write, Truncate and Commit are FailedPrecondition and change nothing", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("done"))
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		e.requireClosed(w)
		require.Equal(e, digest.FromString("done"), w.Digest())
		require.Equal(e, int64(4), e.status(w).Offset)
		e.requireContent(digest.FromString("done"), []byte("done"))
		e.requireNoIngestion("ref")
	}},
	{"a closed writer never frees a ref that another one holds by now (W-R3)", func(e *env) {
		for how, end := range map[string]func(cellar.Writer){
			"closed":    func(w cellar.Writer) { require.NoError(e, w.Close()) },
			"committed": func(w cellar.Writer) { require.NoError(e, w.Commit(e.ctx, 0, "")) },
			"aborted":   func(cellar.Writer) { require.NoError(e, e.store.Abort(e.ctx, "aborted")) },
		} {
			old := e.open(how)
			e.write(old, []byte(how))
			end(old)
			held := e.open(how)
			_ = old.Commit(e.ctx, 0, "")
			e.openErr(errdefs.ErrUnavailable, how)
			require.NoError(e, old.Close())
			_, _ = old.Write([]byte("stolen"))
			_ = old.Truncate(0)
			e.openErr(errdefs.ErrUnavailable, how)
			e.write(held, []byte("held after "+how))
			require.NoError(e, held.Commit(e.ctx, 0, ""))
		}
	}},
	{"Truncate(0) drops data and digest state while the ref stays held", func(e *env) {
		for _, n := range []int{100, 100_000} {
			w := e.open("ref", withSize(int64(n)))
			e.write(w, blob("dropped", n))
			before := e.status(w)
			require.NoError(e, w.Truncate(0))
			e.openErr(errdefs.ErrUnavailable, "ref")
			after := e.status(w)
			require.Zero(e, after.Offset)
			require.Equal(e, before.Total, after.Total)
			require.Equal(e, before.StartedAt, after.StartedAt)
			require.Equal(e, digest.FromString(""), w.Digest())
			p := blob("second try", n/2)
			e.write(w, p)
			require.Equal(e, digest.FromBytes(p), w.Digest())
			require.NoError(e, w.Commit(e.ctx, int64(len(p)), digest.FromBytes(p)))
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"Truncate to another size is InvalidArgument and changes nothing", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("ten bytes!"))
		before := e.status(w)
		for _, size := range []int64{1, 5, 10, 11, -1, math.MinInt64, math.MaxInt64} {
			requireClass(e, w.Truncate(size), errdefs.ErrInvalidArgument)
		}
		require.Equal(e, before, e.status(w))
		require.NoError(e, w.Commit(e.ctx, 10, digest.FromString("ten bytes!")))
	}},
	{"Sync changes nothing that other methods show", func(e *env) {
		for _, n := range []int{0, 100, 100_000} {
			w := e.open("ref")
			syncer, ok := w.(cellar.Syncer)
			if !ok {
				e.Skip("writers are no Syncers")
			}
			p := blob("synced", n)
			e.write(w, p[:n/2])
			before := e.status(w)
			require.NoError(e, syncer.Sync())
			require.Equal(e, before, e.status(w))
			require.Equal(e, digest.FromBytes(p[:n/2]), w.Digest())
			e.write(w, p[n/2:])
			require.NoError(e, w.Commit(e.ctx, int64(n), digest.FromBytes(p)))
			require.Error(e, syncer.Sync(), "after Commit")
		}
	}},
}

// requireClosed checks that w takes nothing more.
func (e *env) requireClosed(w cellar.Writer) {
	e.Helper()
	n, err := w.Write([]byte("late"))
	require.Zero(e, n)
	truncated, committed := w.Truncate(0), w.Commit(e.ctx, 0, "")
	for _, err := range []error{err, truncated, committed} {
		requireClass(e, err, errdefs.ErrFailedPrecondition)
		require.ErrorIs(e, err, fs.ErrClosed)
	}
}
