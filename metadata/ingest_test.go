package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

// Status tells the same, to the nanosecond, to the writer, to others, after
// Close, after reopening, and, for a writer that had left, after a kill.
func TestStatusIsExact(t *testing.T) {
	for _, size := range []int{1, small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newClock()
			w := newWorld(t, withClock(c))
			started := c.now()
			expected := digest.FromString("whatever")
			cw := w.open("a", "r", cellar.WithDescriptor(describe(expected, int64(size)+5)))
			want := cellar.Status{Ref: "r", Total: int64(size) + 5, Expected: expected, StartedAt: started, UpdatedAt: started}
			require.Equal(t, want, w.status(cw))

			want.UpdatedAt = c.step(time.Minute + time.Nanosecond)
			want.Offset = int64(size)
			w.write(cw, blob("p", size))
			require.Equal(t, want, w.status(cw))
			w.requireStatus("a", want)
			c.step(time.Hour)
			require.NoError(t, cw.Close())
			require.Equal(t, want, w.status(cw), "also of a closed writer")
			w.requireStatus("a", want)
			c.step(time.Hour)
			w.reopen()
			w.requireStatus("a", want)
			w.kill()
			w.requireStatus("a", want)

			cw = w.open("a", "r")
			require.Equal(t, want, w.status(cw), "opening again changes nothing")
			want.UpdatedAt = c.step(time.Minute)
			w.write(cw, nil)
			require.Equal(t, want, w.status(cw), "a write of nothing is a write")
			require.NoError(t, cw.Close())
			w.requireStatus("a", want)
		})
	}
}

// requireStatus checks Status and ListStatuses.
func (w *world) requireStatus(ns string, want cellar.Status) {
	w.Helper()
	st, err := w.ns(ns).Status(w.Context(), want.Ref)
	require.NoError(w, err)
	require.Equal(w, want, st)
	all, err := w.ns(ns).ListStatuses(w.Context())
	require.NoError(w, err)
	require.Contains(w, all, want)
}

// After the death of its process an ingestion that was being written is there,
// with all bytes that had reached the raw store and its times.
func TestStatusAfterKill(t *testing.T) {
	c := newClock()
	w := newWorld(t, withClock(c))
	started := c.now()
	p := blob("p", 3*large)
	cw := w.begin("a", "r", p[:large], withSize(3*large))
	c.step(time.Hour)
	w.write(cw, p[large:2*large])
	w.kill()
	st, err := w.ns("a").Status(t.Context(), "r")
	require.NoError(t, err)
	require.EqualValues(t, 2*large, st.Offset)
	require.EqualValues(t, 3*large, st.Total)
	require.Equal(t, started, st.StartedAt)
	require.False(t, st.UpdatedAt.Before(started))
	cw = w.open("a", "r")
	w.write(cw, p[2*large:])
	require.NoError(t, cw.Commit(t.Context(), 3*large, digest.FromBytes(p)))
	w.requireContent("a", p)
}

// What was only in memory is lost with the process; the ref starts again from
// zero and nothing is left of it.
func TestSmallIngestionIsLostWithTheProcess(t *testing.T) {
	w := newWorld(t)
	w.begin("a", "r", blob("p", small))
	w.kill()
	require.Empty(t, w.listed("a"))
	p := blob("q", small)
	cw := w.open("a", "r")
	require.Zero(t, w.status(cw).Offset)
	w.write(cw, p)
	require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(p)))

	synced := w.begin("a", "synced", p)
	require.NoError(t, synced.(cellar.Syncer).Sync())
	w.powerLoss(1, 0)
	require.EqualValues(t, small, w.status(w.open("a", "synced")).Offset, "Sync is what keeps it")
}

// The same ref in two namespaces is two ingestions.
func TestSameRefInTwoNamespaces(t *testing.T) {
	for _, size := range []int{small, large} {
		w := newWorld(t)
		p, q := blob("p", size), blob("q", size)
		a, b := w.begin("a", "r", p), w.begin("b", "r", q)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		w.reopen()
		require.NoError(t, w.ns("a").Abort(t.Context(), "r"))
		require.Empty(t, w.listed("a"))
		cw := w.open("b", "r")
		require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(q)))
		w.requireContent("b", q)
		w.requireAbsent("a", digest.FromBytes(q))
	}
}

// An ingestion that took content over keeps it over reopening and over the
// death of the process, and a collection: its commit needs no bytes.
func TestTakeoverPersists(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, withPolicy(metadata.Shared))
			p := blob("lent", size)
			dgst := w.put("a", p)
			require.NoError(t, w.open("b", "closed", withDigest(dgst)).Close())
			w.open("b", "open", withDigest(dgst))
			w.put("c", []byte("carries the background"))
			w.delete("a", dgst)
			w.kill()
			w.collect()
			require.Contains(t, w.stored(), dgst)
			for _, ref := range []string{"closed", "open"} {
				require.Empty(t, w.listed("b"))
				cw := w.open("b", ref, withDigest(dgst))
				require.EqualValues(t, size, w.status(cw).Offset)
				require.NoError(t, cw.Close())
				w.reopen()
				w.collect()
			}
			cw := w.open("b", "closed", withDigest(dgst))
			require.NoError(t, cw.Commit(t.Context(), 0, ""))
			w.requireContent("b", p)
			require.NoError(t, w.ns("b").Abort(t.Context(), "open"))
			w.delete("b", dgst)
			w.collect()
			require.NotContains(t, w.stored(), dgst)
		})
	}
}

// What was taken over is let go when its ingestion expires.
func TestTakeoverExpires(t *testing.T) {
	c := newClock()
	w := newWorld(t, withPolicy(metadata.Shared), withClock(c))
	dgst := w.put("a", blob("lent", large))
	require.NoError(t, w.open("b", "r", withDigest(dgst)).Close())
	w.delete("a", dgst)
	c.step(23 * time.Hour)
	w.collect()
	require.Equal(t, []digest.Digest{dgst}, w.stored())
	c.step(2 * time.Hour)
	w.collect()
	require.Empty(t, w.stored())
	_, err := w.ns("b").Writer(t.Context(), cellar.WithRef("r"), withDigest(dgst))
	require.NoError(t, err, "an ordinary ingestion")
}

// Isolated namespaces take nothing over, unless a namespace that holds it
// lends what it has; one that does not hold it lends nothing.
func TestLending(t *testing.T) {
	w := newWorld(t)
	p := blob("lent", small)
	dgst := w.put("a", p)
	offset := func(ref string) int64 {
		cw := w.open("b", ref, withDigest(dgst))
		defer func() { require.NoError(t, w.ns("b").Abort(t.Context(), ref)) }()
		return w.status(cw).Offset
	}
	require.Zero(t, offset("isolated"))
	names := w.db.Namespaces()
	require.NoError(t, names.SetLabel(t.Context(), "c", "containerd.io/namespace.shareable", "true"))
	require.Zero(t, offset("of one that has it not"))
	require.NoError(t, names.SetLabel(t.Context(), "a", "containerd.io/namespace.shareable", "true"))
	require.EqualValues(t, small, offset("lent"))
	w.reopen()
	names = w.db.Namespaces()
	require.EqualValues(t, small, offset("lent after reopening"))
	require.NoError(t, names.SetLabel(t.Context(), "a", "containerd.io/namespace.shareable", "yes"))
	require.Zero(t, offset("lent no more"))
	require.NoError(t, names.SetLabel(t.Context(), "a", "containerd.io/namespace.shareable", "true"))
	require.NoError(t, names.Delete(t.Context(), "a", withContent()))
	require.Zero(t, offset("of one that was deleted"))
}

// Deleting a namespace aborts its writers, and nothing that they do brings it
// back, whatever they were doing.
func TestNamespaceDeletedUnderWriters(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, withPolicy(metadata.Shared))
			lent := w.put("b", blob("lent", size))
			names := w.db.Namespaces()
			require.NoError(t, names.Create(t.Context(), "a", nil))
			writing := w.begin("a", "writing", blob("p", size))
			idle := w.open("a", "idle")
			borrowing := w.open("a", "borrowing", withDigest(lent))
			left := w.begin("a", "left", blob("q", size))
			require.NoError(t, left.Close())
			require.NoError(t, names.Delete(t.Context(), "a"))

			_, err := writing.Write([]byte("x"))
			requireClass(t, err, errAborted)
			requireClass(t, writing.Commit(t.Context(), 0, ""), errAborted)
			requireClass(t, idle.Commit(t.Context(), 0, ""), errAborted)
			requireClass(t, borrowing.Commit(t.Context(), 0, ""), errAborted)
			require.NoError(t, writing.Close())
			require.Empty(t, w.listed("a"))
			require.Empty(t, w.rawRefs())
			w.reopen()
			list, err := w.db.Namespaces().List(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"b"}, list)
			require.Empty(t, w.listed("a"))
			w.put("a", blob("new", size))
			w.requireContent("a", blob("new", size))
		})
	}
}

// A commit that waits in the queue behind the deletion of its namespace is
// Aborted and does not bring it back.
func TestNamespaceDeletedBeforeAWaitingCommit(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			require.NoError(t, w.db.Namespaces().Create(t.Context(), "a", nil))
			cw := w.begin("a", "r", blob("p", size))
			var wg sync.WaitGroup
			var deleted, committed error
			w.gatherWith(func() {
				n := w.db.Gathered()
				wg.Go(func() { deleted = w.db.Namespaces().Delete(context.Background(), "a") })
				eventually(t, 10*time.Second, "queued", func() bool { return w.db.Gathered() == n+1 })
				wg.Go(func() { committed = cw.Commit(context.Background(), 0, "") })
				eventually(t, 10*time.Second, "queued", func() bool { return w.db.Gathered() >= n+2 })
			})
			wg.Wait()
			require.NoError(t, deleted)
			require.ErrorIs(t, committed, errAborted)
			list, err := w.db.Namespaces().List(t.Context())
			require.NoError(t, err)
			require.Empty(t, list)
			w.collect()
			require.Empty(t, w.stored())
			require.Empty(t, w.rawRefs())
			require.Empty(t, w.listed("a"))
		})
	}
}

// A deletion that does not come about aborts nobody.
func TestNamespaceDeletionUndone(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.db.Namespaces().Create(t.Context(), "a", map[string]string{"k": "v"}))
	cw := w.begin("a", "r", blob("p", small))
	boom := errors.New("boom")
	require.ErrorIs(t, w.db.Update(t.Context(), func(ctx context.Context) error {
		require.NoError(t, w.db.Namespaces().Delete(ctx, "a"))
		return boom
	}), boom)
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.requireContent("a", blob("p", small))
	requireClass(t, w.db.Namespaces().Delete(t.Context(), "a"), errPrecondition)
	labels, err := w.db.Namespaces().Labels(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"k": "v"}, labels)
}

// A namespace goes with its content when asked, what others hold stays theirs,
// and the rest goes with the next collection.
func TestNamespaceDeletedWithContent(t *testing.T) {
	w := newWorld(t)
	p := blob("both", large)
	w.put("a", p)
	w.put("b", p)
	for i := range 300 {
		w.put("a", fmt.Append(nil, i))
	}
	require.NoError(t, w.db.Namespaces().Delete(t.Context(), "a", withContent()))
	w.kill()
	w.requireAbsent("a", digest.FromBytes(p))
	w.requireContent("b", p)
	w.collect()
	require.Equal(t, []digest.Digest{digest.FromBytes(p)}, w.stored())
	requireClass(t, w.db.Namespaces().Delete(t.Context(), "a"), errNotFound)
}

// Abort finds the ingestion also when its writer is just being closed.
func TestAbortRacesClose(t *testing.T) {
	w := newWorld(t)
	for range 200 {
		cw := w.begin("a", "r", blob("p", large))
		var wg sync.WaitGroup
		wg.Go(func() { _ = cw.Close() })
		err := w.ns("a").Abort(t.Context(), "r")
		wg.Wait()
		require.NoError(t, err)
		require.Empty(t, w.listed("a"))
	}
	require.Empty(t, w.rawRefs())
}
