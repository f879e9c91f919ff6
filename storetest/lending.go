package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var isolationPromises = []tenantPromise{
	{"a digest that another namespace holds opens an empty ingestion", func(e *tenants) {
		for _, n := range sizes {
			p := blob("isolated", n)
			dgst := e.as("a").put(p)
			var w cellar.Writer
			b := e.as("b")
			ref := fmt.Sprint(n)
			opened := during(e, func() { w = b.open(ref, cellar.WithDescriptor(describe(dgst, int64(n)))) })
			b.requireEmpty(w)
			opened(b.status(w).StartedAt)
			if n > 0 {
				requireClass(e, w.Commit(e.ctx, 0, dgst), errdefs.ErrFailedPrecondition)
				b.requireAbsent(dgst)
			}
			w = b.open(fmt.Sprint("full ", n), withDigest(dgst))
			b.write(w, p)
			require.NoError(e, w.Commit(e.ctx, int64(n), dgst))
			b.requireContent(dgst, p)
		}
	}},
	{"knowing the digest gives nothing, whatever one's own labels are", func(e *tenants) {
		p := blob("secret", 1000)
		dgst := e.as("a").put(p)
		e.lend("b", "true")
		b := e.as("b")
		b.requireEmpty(b.open("ref", withDigest(dgst)))
		b.put([]byte("bait"), cellar.WithLabels(map[string]string{"containerd.io/gc.ref.content.0": dgst.String()}))
		b.requireAbsent(dgst)
		b.requireEmpty(b.open("again", withDigest(dgst)))
	}},
	{"bytes that nobody holds any more cannot be taken over", func(e *tenants) {
		p := blob("orphan", 1000)
		dgst := e.as("a").put(p)
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		for _, name := range []string{"a", "b"} {
			e.as(name).requireEmpty(e.as(name).open("ref", withDigest(dgst)))
		}
	}},
}

var lendingPromises = []tenantPromise{
	{"a namespace lends while its label is true, and only what it holds", func(e *tenants) {
		held, other := blob("held", 1000), blob("other", 1000)
		e.as("lender").put(held)
		e.as("other").put(other)
		for i, value := range []string{"", "false", "TRUE", "1", "true ", "true", "no", "true", ""} {
			e.lend("lender", value)
			b := e.as("b")
			w := b.open(fmt.Sprint("held ", i), withDigest(digest.FromBytes(held)))
			want := int64(0)
			if value == "true" {
				want = 1000
			}
			require.Equal(e, want, b.status(w).Offset, "label %q", value)
			b.requireEmpty(b.open(fmt.Sprint("other ", i), withDigest(digest.FromBytes(other))))
		}
	}},
	{"content that the lender deleted is lent no more", func(e *tenants) {
		p := blob("lent", 1000)
		e.lend("lender", "true")
		dgst := e.as("lender").put(p)
		e.as("third").put(p)
		require.NoError(e, e.as("lender").store.Delete(e.ctx, dgst))
		e.as("b").requireEmpty(e.as("b").open("ref", withDigest(dgst)))
		e.as("third").requireContent(dgst, p)
	}},
	{"a lender takes nothing from those that lend not", func(e *tenants) {
		e.lend("lender", "true")
		dgst := e.as("a").put(blob("private", 1000))
		e.as("lender").requireEmpty(e.as("lender").open("ref", withDigest(dgst)))
	}},
	{"lending outlives opening the store again", func(e *tenants) {
		e.lend("lender", "true")
		dgst := e.as("lender").put(blob("lent", 1000))
		e.reopen()
		require.Equal(e, int64(1000), e.as("b").status(e.as("b").open("ref", withDigest(dgst))).Offset)
	}},
}

// takeOverPromises hold where b may have what a holds without sending it.
var takeOverPromises = []tenantPromise{
	{"Commit without bytes makes a record of one's own", func(e *tenants) {
		for i, n := range sizes {
			for j, expected := range []bool{true, false} {
				p := blob(fmt.Sprint("taken ", expected), n)
				if n == 0 && j > 0 {
					continue
				}
				dgst := e.as("a").put(p, cellar.WithLabels(map[string]string{"of": "a"}))
				b := e.as("b")
				w := b.open("ref", cellar.WithDescriptor(describe(dgst, int64(n)*int64(i%2))))
				var want digest.Digest
				if expected {
					want = dgst
				}
				require.NoError(e, w.Commit(e.ctx, int64(n)*int64(j), want, cellar.WithLabels(map[string]string{"of": "b"})))
				require.Equal(e, dgst, w.Digest())
				b.requireClosed(w)
				b.requireContent(dgst, p)
				require.Equal(e, map[string]string{"of": "b"}, b.info(dgst).Labels)
				require.Equal(e, map[string]string{"of": "a"}, e.as("a").info(dgst).Labels)
				b.requireNoIngestion("ref")
				require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
				e.collect()
				b.requireContent(dgst, p)
			}
		}
		e.reopen()
		e.collect()
		e.as("b").requireContent(digest.FromBytes(blob("taken true", 500)), blob("taken true", 500))
	}},
	{"the writer has all bytes already, since it was opened", func(e *tenants) {
		dgst := e.as("a").put(blob("all there", 70_000))
		b := e.as("b")
		var w cellar.Writer
		opened := during(e, func() { w = b.open("ref", withDigest(dgst)) })
		st := b.status(w)
		require.Equal(e, int64(70_000), st.Offset)
		require.Equal(e, int64(70_000), st.Total)
		require.Equal(e, dgst, st.Expected)
		require.Equal(e, dgst, w.Digest())
		require.Equal(e, "ref", st.Ref)
		opened(st.StartedAt)
		require.Equal(e, st.StartedAt, st.UpdatedAt)
	}},
	{"WriteBlob reads nothing from its source", func(e *tenants) {
		p := blob("not read", 1000)
		dgst := e.as("a").put(p)
		src := iotest.ErrReader(errors.New("read"))
		b := e.as("b")
		require.NoError(e, cellar.WriteBlob(e.ctx, b.store, "ref", src, describe(dgst, 1000)))
		b.requireContent(dgst, p)
	}},
	{"it holds the ref, against others of its kind and against plain ones (W-R6)", func(e *tenants) {
		dgst := e.as("a").put(blob("held", 1000))
		b := e.as("b")
		taker := b.open("taken", withDigest(dgst))
		b.openErr(errdefs.ErrUnavailable, "taken", withDigest(dgst))
		b.openErr(errdefs.ErrUnavailable, "taken")
		require.NoError(e, taker.Close())
		plain := b.open("plain")
		b.openErr(errdefs.ErrUnavailable, "plain", withDigest(dgst))
		require.NoError(e, plain.Close())
		taker = b.open("taken", withDigest(dgst))
		require.NoError(e, taker.Commit(e.ctx, 0, ""))
	}},
	{"Status and ListStatuses do not show it until it has bytes of its own", func(e *tenants) {
		dgst := e.as("a").put(blob("unseen", 1000))
		b := e.as("b")
		w := b.open("ref", withDigest(dgst))
		_, err := b.store.Status(e.ctx, "ref")
		requireClass(e, err, errdefs.ErrNotFound)
		require.Empty(e, b.statuses())
		b.write(w, nil)
		require.Empty(e, b.statuses(), "an empty Write changes nothing")
		require.Equal(e, dgst, w.Digest())
		b.write(w, []byte("!"))
		st, err := b.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, int64(1001), st.Offset)
		require.Equal(e, []string{"ref"}, b.refs())
	}},
	{"bytes are appended to a copy of the content", func(e *tenants) {
		for _, n := range sizes {
			p := blob("base", n)
			dgst := e.as("a").put(p)
			b := e.as("b")
			w := b.open("ref", withDigest(dgst))
			appended := append(append([]byte{}, p...), "and more"...)
			b.write(w, []byte("and more"))
			require.Equal(e, digest.FromBytes(appended), w.Digest())
			require.NoError(e, w.Close())
			b.requireLeft("ref", appended)
			require.NoError(e, b.open("ref").Commit(e.ctx, int64(len(appended)), digest.FromBytes(appended)))
			b.requireContent(digest.FromBytes(appended), appended)
			b.requireAbsent(dgst)
			e.as("a").requireContent(dgst, p)
			e.as("a").requireAbsent(digest.FromBytes(appended))
		}
	}},
	{"Truncate(0) makes it an empty ingestion, another size is InvalidArgument", func(e *tenants) {
		dgst := e.as("a").put(blob("dropped", 1000))
		b := e.as("b")
		w := b.open("ref", withDigest(dgst))
		for _, size := range []int64{1, 999, 1000, 1001, -1} {
			requireClass(e, w.Truncate(size), errdefs.ErrInvalidArgument)
		}
		require.Equal(e, dgst, w.Digest())
		require.NoError(e, w.Truncate(0))
		b.requireEmpty(w)
		b.openErr(errdefs.ErrUnavailable, "ref")
		b.write(w, []byte("own"))
		require.NoError(e, w.Commit(e.ctx, 3, ""))
		b.requireContent(digest.FromString("own"), []byte("own"))
		b.requireAbsent(dgst)
	}},
	{"another size than the content's opens an empty ingestion", func(e *tenants) {
		dgst := e.as("a").put(blob("sized", 1000))
		b := e.as("b")
		for _, size := range []int64{1, 999, 1001} {
			w := b.open("ref", cellar.WithDescriptor(describe(dgst, size)))
			b.requireEmpty(w)
			require.Equal(e, size, b.status(w).Total)
			require.NoError(e, w.Close())
			require.NoError(e, b.store.Abort(e.ctx, "ref"))
		}
	}},
	{"a Commit of a wrong size or digest is FailedPrecondition; the next one may be right", func(e *tenants) {
		p := blob("wrong", 1000)
		dgst := e.as("a").put(p)
		b := e.as("b")
		for _, wrong := range []struct {
			size     int64
			expected digest.Digest
		}{{999, ""}, {1001, dgst}, {0, digest.FromString("other")}, {1000, digest.SHA512.FromString("other")}} {
			w := b.open("ref", withDigest(dgst))
			requireClass(e, w.Commit(e.ctx, wrong.size, wrong.expected), errdefs.ErrFailedPrecondition)
			b.requireClosed(w)
			b.requireAbsent(dgst)
		}
		require.NoError(e, b.open("ref", withDigest(dgst)).Commit(e.ctx, 1000, dgst))
		b.requireContent(dgst, p)
	}},
	{"closed without bytes of its own it leaves nothing to resume", func(e *tenants) {
		dgst := e.as("a").put(blob("closed", 1000))
		b := e.as("b")
		require.NoError(e, b.open("ref", withDigest(dgst)).Close())
		_, err := b.store.Status(e.ctx, "ref")
		requireClass(e, err, errdefs.ErrNotFound)
		require.Empty(e, b.statuses())
		b.requireEmpty(b.open("ref"))
	}},
	{"what the ref had received stays beside it until Commit, Write or Truncate", func(e *tenants) {
		dgst := e.as("a").put(blob("beside", 1000))
		b := e.as("b")
		b.leave("ref", []byte("received"), withSize(70))
		left, err := b.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		w := b.open("ref", withDigest(dgst))
		require.Equal(e, int64(1000), b.status(w).Offset)
		require.Equal(e, []cellar.Status{left}, b.statuses())
		require.NoError(e, w.Close())
		b.requireLeft("ref", []byte("received"))
		require.NoError(e, b.open("ref", withDigest(dgst)).Commit(e.ctx, 0, dgst))
		b.requireNoIngestion("ref")

		require.NoError(e, b.store.Delete(e.ctx, dgst))
		for name, change := range map[string]func(cellar.Writer){
			"write":    func(w cellar.Writer) { b.write(w, []byte("!")) },
			"truncate": func(w cellar.Writer) { require.NoError(e, w.Truncate(0)) },
		} {
			b.leave(name, []byte("received"))
			w := b.open(name, withDigest(dgst))
			change(w)
			st, err := b.store.Status(e.ctx, name)
			require.NoError(e, err)
			require.Equal(e, b.status(w), st)
			require.NotEqual(e, int64(8), st.Offset)
		}
	}},
	{"what was taken over and given up keeps no bytes alive (W-R5, W-G3)", func(e *tenants) {
		dgst := e.as("a").put(blob("given up", 1000))
		b := e.as("b")
		require.NoError(e, b.open("ref", withDigest(dgst)).Close())
		b.leave("ref", []byte("plain now"))
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		e.collect()
		e.requireBlobs()
		b.requireLeft("ref", []byte("plain now"))
		require.NoError(e, b.store.Abort(e.ctx, "ref"))
		b.requireNoIngestion("ref")
	}},
	{"aborted, its Commit is Aborted and makes no record of bytes that are gone (W-D5)", func(e *tenants) {
		p := blob("pulled away", 1000)
		dgst := e.as("a").put(p)
		b := e.as("b")
		w := b.open("ref", withDigest(dgst))
		require.NoError(e, b.store.Abort(e.ctx, "ref"))
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		e.collect()
		b.requireAborted(w)
		b.requireAbsent(dgst)
		require.NoError(e, cellar.WriteBlob(e.ctx, b.store, "ref", cellar.NewReader(memoryReader(p)), describe(dgst, 1000)))
		b.requireContent(dgst, p)
	}},
	{"with its source deleted and collected, Commit makes a sound record or none (W-D5)", func(e *tenants) {
		for _, n := range sizes {
			p := blob("gone meanwhile", n)
			dgst := e.as("a").put(p)
			b := e.as("b")
			w := b.open("ref", withDigest(dgst))
			require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
			e.collect()
			if err := w.Commit(e.ctx, 0, dgst); err != nil {
				requireClass(e, err, errdefs.ErrNotFound)
				b.requireAbsent(dgst)
			}
			require.NoError(e, cellar.WriteBlob(e.ctx, b.store, "again", cellar.NewReader(memoryReader(p)), describe(dgst, int64(n))))
			b.requireContent(dgst, p)
		}
	}},
	{"with its source deleted and collected, Write copies all of it or fails", func(e *tenants) {
		p := blob("gone before the copy", 1000)
		dgst := e.as("a").put(p)
		b := e.as("b")
		w := b.open("ref", withDigest(dgst))
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		e.collect()
		if _, err := w.Write([]byte("!")); err != nil {
			requireClass(e, err, errdefs.ErrNotFound)
			return
		}
		require.Equal(e, digest.FromBytes(append(p, '!')), w.Digest())
	}},
	{"taken over, deleted, collected and committed by many at once, no record is without its bytes", func(e *tenants) {
		p := blob("contended", 1000)
		dgst := digest.FromBytes(p)
		taken := 0
		for round := range 30 {
			e.as("a").put(p)
			b := e.as("b")
			w := b.open(fmt.Sprint(round), withDigest(dgst))
			var wg sync.WaitGroup
			var committed error
			wg.Go(func() { committed = w.Commit(e.ctx, 0, dgst) })
			wg.Go(func() {
				if err := errors.Join(e.as("a").store.Delete(e.ctx, dgst), e.tryCollect(e.ctx)); err != nil {
					e.Error(err)
				}
			})
			wg.Wait()
			if committed != nil {
				requireClass(e, committed, errdefs.ErrNotFound)
				b.requireAbsent(dgst)
				continue
			}
			taken++
			b.requireContent(dgst, p)
			require.NoError(e, b.store.Delete(e.ctx, dgst))
		}
		require.Positive(e, taken)
	}},
}

// requireEmpty checks that w has no bytes.
func (e *env) requireEmpty(w cellar.Writer) {
	e.Helper()
	require.Zero(e, e.status(w).Offset)
	alg := w.Digest().Algorithm()
	require.Equal(e, alg.FromBytes(nil), w.Digest())
}
