package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// oddRefs are refs that a careless store would take for something else than a
// name.
var oddRefs = []string{
	" ", ".", "..", "/", "../../../etc/passwd", "a/b", "a//b", "a\\b", "tenant/1/ref", "\x00", "a\x00b", "\xff\xfe", "Ünïcode",
	"ref\n", "*", "%2e%2e", "labels.a==b", strings.Repeat("x", 300), strings.Repeat("y", cellar.MaxRefLength),
}

var ingesterPromises = []promise{
	{"an empty or missing ref is InvalidArgument", func(e *env) {
		e.openErr(errdefs.ErrInvalidArgument, "")
		_, err := e.store.Writer(e.ctx)
		requireClass(e, err, errdefs.ErrInvalidArgument)
	}},
	{"a ref over MaxRefLength is InvalidArgument (W-R13)", func(e *env) {
		e.openErr(errdefs.ErrInvalidArgument, strings.Repeat("x", cellar.MaxRefLength+1))
		e.openErr(errdefs.ErrInvalidArgument, strings.Repeat("x", 1<<20))
		statuses, err := e.store.ListStatuses(e.ctx)
		require.NoError(e, err)
		require.Empty(e, statuses)
	}},
	{"refs are arbitrary strings, each an ingestion of its own", func(e *env) {
		for i, ref := range oddRefs {
			e.leave(ref, blob(ref, i))
		}
		e.reopen()
		for i, ref := range oddRefs {
			st, err := e.store.Status(e.ctx, ref)
			require.NoError(e, err, "%q", ref)
			require.Equal(e, ref, st.Ref)
			require.Equal(e, int64(i), st.Offset)
			w := e.open(ref)
			require.Equal(e, digest.FromBytes(blob(ref, i)), w.Digest())
			require.NoError(e, w.Commit(e.ctx, int64(i), ""))
			e.requireContent(digest.FromBytes(blob(ref, i)), blob(ref, i))
		}
	}},
	{"the error of an option is returned and opens nothing", func(e *env) {
		refused := errors.New("refused")
		_, err := e.store.Writer(e.ctx, cellar.WithRef("ref"), func(*cellar.WriterOpts) error { return refused })
		require.ErrorIs(e, err, refused)
		e.requireNoIngestion("ref")
	}},
	{"a new ingestion is empty", func(e *env) {
		w := e.open("ref")
		require.Equal(e, digest.FromString(""), w.Digest())
		st := e.status(w)
		require.Equal(e, "ref", st.Ref)
		require.Zero(e, st.Offset)
		require.Zero(e, st.Total)
		require.Empty(e, st.Expected)
	}},
	{"a size of zero or less is unknown", func(e *env) {
		for _, size := range []int64{0, -1, -1 << 60} {
			w := e.open(fmt.Sprint("size ", size), withSize(size))
			require.Zero(e, e.status(w).Total)
			e.write(w, []byte(fmt.Sprint(size)))
			require.NoError(e, w.Commit(e.ctx, 0, ""))
		}
	}},
	{"while a writer holds the ref another is Unavailable, as LockedError, at once", func(e *env) {
		var held cellar.Writer
		opened := during(e, func() { held = e.open("ref") })
		start := time.Now()
		_, err := e.store.Writer(e.ctx, cellar.WithRef("ref"))
		requireClass(e, err, errdefs.ErrUnavailable)
		require.Less(e, time.Since(start), 5*time.Second)
		var locked *cellar.LockedError
		require.ErrorAs(e, err, &locked)
		require.Equal(e, "ref", locked.Ref)
		opened(locked.Since.UTC())
		e.write(held, []byte("unharmed"))
		require.NoError(e, held.Commit(e.ctx, 8, ""))
	}},
	{"other refs are not held", func(e *env) {
		e.open("ref")
		e.open("ref2")
		e.open("re")
	}},
	{"a digest that is there already is AlreadyExists and opens nothing", func(e *env) {
		p := blob("there", 1000)
		dgst := e.put(p)
		for _, size := range []int64{0, 1000, 999, -1} {
			e.openErr(errdefs.ErrAlreadyExists, "ref", cellar.WithDescriptor(describe(dgst, size)))
		}
		e.requireNoIngestion("ref")
	}},
	{"AlreadyExists leaves an ingestion of the ref as it was", func(e *env) {
		p := blob("there", 1000)
		e.leave("ref", p[:300])
		e.openErr(errdefs.ErrAlreadyExists, "ref", withDigest(e.put(p)))
		w := e.open("ref")
		require.Equal(e, digest.FromBytes(p[:300]), w.Digest())
	}},
	{"a digest that was deleted can be written again", func(e *env) {
		for _, n := range sizes {
			p := blob("again", n)
			require.NoError(e, e.store.Delete(e.ctx, e.put(p)))
			e.requireAbsent(digest.FromBytes(p))
			e.requireContent(e.put(p), p)
		}
	}},
	{"the context governs opening alone", func(e *env) {
		ctx, cancel := context.WithCancel(e.ctx)
		w, err := e.store.Writer(ctx, cellar.WithRef("ref"))
		require.NoError(e, err)
		defer w.Close()
		cancel()
		e.write(w, []byte("written later"))
		require.NoError(e, w.Commit(e.ctx, 0, ""))
	}},
	{"OpenWriter waits for a busy ref and gets it", func(e *env) {
		for how, free := range map[string]func(cellar.Writer) error{
			"close":  cellar.Writer.Close,
			"commit": func(w cellar.Writer) error { return w.Commit(e.ctx, 0, "") },
			"abort":  func(cellar.Writer) error { return e.store.Abort(e.ctx, "ref abort") },
		} {
			held := e.open("ref " + how)
			e.write(held, []byte(how))
			ctx, cancel := context.WithTimeout(e.ctx, 30*time.Second)
			defer cancel()
			got := make(chan error)
			go func() {
				w, err := cellar.OpenWriter(ctx, e.store, cellar.WithRef("ref "+how))
				if err == nil {
					err = w.Close()
				}
				got <- err
			}()
			time.Sleep(10 * time.Millisecond) // most likely it waits by now
			require.NoError(e, free(held))
			require.NoError(e, <-got, how)
		}
	}},
	{"OpenWriter gives up with the context's error", func(e *env) {
		held := e.open("ref")
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Millisecond)
		defer cancel()
		_, err := cellar.OpenWriter(ctx, e.store, cellar.WithRef("ref"))
		requireClass(e, err, context.DeadlineExceeded)
		e.write(held, []byte("unharmed"))
		require.NoError(e, held.Commit(e.ctx, 0, ""))
	}},
	{"WaitRef returns at once for a free ref and waits for a busy one", func(e *env) {
		waiter, ok := e.store.(cellar.RefWaiter)
		if !ok {
			e.Skip("the store is no RefWaiter")
		}
		require.NoError(e, waiter.WaitRef(e.ctx, "never opened"))
		e.leave("ref", nil)
		require.NoError(e, waiter.WaitRef(e.ctx, "ref"))
		held := e.open("ref")
		ctx, cancel := context.WithTimeout(e.ctx, 10*time.Millisecond)
		defer cancel()
		require.ErrorIs(e, waiter.WaitRef(ctx, "ref"), context.DeadlineExceeded)
		woken := make(chan error)
		for range 3 {
			go func() { woken <- waiter.WaitRef(e.ctx, "ref") }()
		}
		require.NoError(e, held.Close())
		for range 3 {
			require.NoError(e, <-woken)
		}
	}},
}
