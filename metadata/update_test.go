package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// update runs fn in one commit.
func (w *world) update(fn func(ctx context.Context)) {
	w.Helper()
	require.NoError(w, w.db.Update(w.Context(), func(ctx context.Context) error {
		fn(ctx)
		return nil
	}))
}

// Everything done inside an Update is one commit, seen by others only when it
// is over, durable when Update returns.
func TestUpdateIsOneCommit(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			gone := w.put("a", blob("gone", size))
			p, q := blob("p", size), blob("q", size)
			before := w.txs.Load()
			w.update(func(ctx context.Context) {
				w.putIn(ctx, "a", p)
				w.putIn(ctx, "b", q, cellar.WithLabels(map[string]string{"k": "v"}))
				require.NoError(t, w.ns("a").Delete(ctx, gone))
				require.NoError(t, w.db.Namespaces().Create(ctx, "c", nil))
				_, err := w.ns("b").Update(ctx, cellar.Info{Digest: digest.FromBytes(q), Labels: map[string]string{"l": "w"}}, "labels.l")
				require.NoError(t, err)

				w.requireAbsent("a", digest.FromBytes(p)) // with another context
				_, err = w.ns("a").Info(t.Context(), gone)
				require.NoError(t, err)
			})
			require.EqualValues(t, 1, w.txs.Load()-before)
			w.powerLoss(1, 0)
			w.requireContent("a", p)
			w.requireContent("b", q)
			w.requireAbsent("a", gone)
			info, err := w.ns("b").Info(t.Context(), digest.FromBytes(q))
			require.NoError(t, err)
			require.Equal(t, map[string]string{"k": "v", "l": "w"}, info.Labels)
			names, err := w.db.Namespaces().List(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"a", "b", "c"}, names)
		})
	}
}

// Reads through Update's context see what was done so far.
func TestUpdateReadsItsOwn(t *testing.T) {
	w := newWorld(t)
	p := blob("p", small)
	dgst := digest.FromBytes(p)
	w.update(func(ctx context.Context) {
		w.putIn(ctx, "a", p)
		store := w.ns("a")
		info, err := store.Info(ctx, dgst)
		require.NoError(t, err)
		require.EqualValues(t, small, info.Size)
		ra, err := store.ReaderAt(ctx, describe(dgst, 0))
		require.NoError(t, err)
		require.Equal(t, p, readAll(t, ra))
		var seen []digest.Digest
		require.NoError(t, store.Walk(ctx, func(info cellar.Info) error {
			_, err := store.Info(ctx, info.Digest) // no lock is held
			seen = append(seen, info.Digest)
			return err
		}))
		require.Equal(t, []digest.Digest{dgst}, seen)
		_, err = store.Writer(ctx, cellar.WithRef("again"), withDigest(dgst))
		requireClass(t, err, errExists)
		names, err := w.db.Namespaces().List(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, names)
		require.NoError(t, store.Delete(ctx, dgst))
		_, err = store.Info(ctx, dgst)
		requireClass(t, err, errNotFound)
	})
	w.requireAbsent("a", dgst)
	w.collect()
	require.Empty(t, w.stored())
}

// An error or a panic of the function undoes everything; the panic goes on; the
// database works; bytes that were placed are garbage for the next collection.
func TestUpdateUndone(t *testing.T) {
	boom := errors.New("boom")
	for _, size := range []int{small, large} {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d panics %v", size, panics), func(t *testing.T) {
				w := newWorld(t)
				kept := blob("kept", size)
				dgst := w.put("a", kept)
				w.collect() // the next one has to know by itself what to look for
				undone := func(ctx context.Context) error {
					w.putIn(ctx, "a", blob("undone", size))
					require.NoError(t, w.ns("a").Delete(ctx, dgst))
					require.NoError(t, w.db.Namespaces().Create(ctx, "new", nil))
					require.NoError(t, w.db.Namespaces().Delete(ctx, "a", withContent()))
					if panics {
						panic(boom)
					}
					return boom
				}
				if panics {
					require.PanicsWithValue(t, boom, func() { _ = w.db.Update(t.Context(), undone) })
				} else {
					require.ErrorIs(t, w.db.Update(t.Context(), undone), boom)
				}
				w.requireContent("a", kept)
				w.requireAbsent("a", digest.FromBytes(blob("undone", size)))
				names, err := w.db.Namespaces().List(t.Context())
				require.NoError(t, err)
				require.Equal(t, []string{"a"}, names)
				require.Len(t, w.stored(), 2)
				w.collect()
				require.Equal(t, []digest.Digest{dgst}, w.stored())
				w.put("a", blob("goes on", size))
				w.powerLoss(1, 0)
				w.requireContent("a", kept)
				w.requireContent("a", blob("goes on", size))
			})
		}
	}
}

// A commit inside an Update whose error the function passes over is left out,
// and the rest is committed.
func TestUpdateWithAFailingCall(t *testing.T) {
	w := newWorld(t)
	w.update(func(ctx context.Context) {
		w.putIn(ctx, "a", []byte("p"))
		requireClass(t, w.ns("a").Delete(ctx, digest.FromString("absent")), errNotFound)
		cw := w.openIn(ctx, "a", "r")
		requireClass(t, cw.Commit(ctx, 0, "sha256:12"), errInvalid)
		requireClass(t, w.db.Namespaces().Create(ctx, "a", nil), errExists)
	})
	w.requireContent("a", []byte("p"))
}

// When the commit of an Update fails nothing of it has happened, and Update
// says so.
func TestUpdateCommitFails(t *testing.T) {
	w := newWorld(t)
	kept := w.put("a", []byte("kept"))
	w.failAt("before commit", errDisk)
	err := w.db.Update(t.Context(), func(ctx context.Context) error {
		w.putIn(ctx, "a", []byte("lost"))
		return w.ns("a").Delete(ctx, kept)
	})
	require.ErrorIs(t, err, errUnavailable)
	w.reopen()
	w.requireContent("a", []byte("kept"))
	w.requireAbsent("a", digest.FromString("lost"))
	w.collect()
	require.Equal(t, []digest.Digest{kept}, w.stored())
}

// A context whose Update is over works for nothing.
func TestUpdateContextAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	dgst := w.put("a", []byte("p"))
	var stale context.Context
	w.update(func(ctx context.Context) { stale = ctx })
	store := w.ns("a")
	_, err := store.Info(stale, dgst)
	requireClass(t, err, errPrecondition)
	requireClass(t, store.Delete(stale, dgst), errPrecondition)
	requireClass(t, store.Walk(stale, func(cellar.Info) error { return nil }), errPrecondition)
	_, err = store.Update(stale, cellar.Info{Digest: dgst})
	requireClass(t, err, errPrecondition)
	requireClass(t, w.db.Namespaces().Create(stale, "new", nil), errPrecondition)
	cw := w.begin("a", "r", blob("kept", large))
	requireClass(t, cw.Commit(stale, 0, ""), errPrecondition)
	again := w.open("a", "r")
	require.EqualValues(t, large, w.status(again).Offset)
	require.NoError(t, again.Commit(t.Context(), 0, ""))
}

// An Update inside an Update joins it: one commit, undone as one.
func TestUpdateNested(t *testing.T) {
	w := newWorld(t)
	before := w.txs.Load()
	w.update(func(ctx context.Context) {
		w.putIn(ctx, "a", []byte("outer"))
		require.NoError(t, w.db.Update(ctx, func(ctx context.Context) error {
			w.putIn(ctx, "a", []byte("inner"))
			return nil
		}))
		_, err := w.ns("a").Info(ctx, digest.FromString("inner"))
		require.NoError(t, err)
	})
	require.EqualValues(t, 1, w.txs.Load()-before)
	boom := errors.New("boom")
	err := w.db.Update(t.Context(), func(ctx context.Context) error {
		require.NoError(t, w.db.Update(ctx, func(ctx context.Context) error {
			w.putIn(ctx, "a", []byte("undone"))
			return nil
		}))
		return boom
	})
	require.ErrorIs(t, err, boom)
	w.requireContent("a", []byte("inner"))
	w.requireAbsent("a", digest.FromString("undone"))
	w.collect()
}

// Writers, Status and Abort work inside an Update; an ingestion is none of the
// commit, and stays as it is if that does not come about.
func TestUpdateAndIngestions(t *testing.T) {
	w := newWorld(t)
	left := w.begin("a", "left", blob("left", large))
	require.NoError(t, left.Close())
	boom := errors.New("boom")
	require.ErrorIs(t, w.db.Update(t.Context(), func(ctx context.Context) error {
		cw := w.openIn(ctx, "a", "inside")
		w.write(cw, blob("inside", large))
		require.NoError(t, cw.Close())
		require.NoError(t, w.ns("a").Abort(ctx, "left"))
		_, err := w.ns("a").Status(ctx, "left")
		requireClass(t, err, errNotFound)
		statuses, err := w.ns("a").ListStatuses(ctx)
		require.NoError(t, err)
		require.Len(t, statuses, 1)
		return boom
	}), boom)
	require.Equal(t, []string{"inside"}, w.listed("a"))
	w.reopen()
	require.Equal(t, []string{"inside"}, w.listed("a"))
}

// Commits that were made inside an Update which then fails can be made again.
func TestUpdateRetry(t *testing.T) {
	for _, size := range []int{small, large} {
		w := newWorld(t)
		p := blob("again", size)
		boom := errors.New("boom")
		require.ErrorIs(t, w.db.Update(t.Context(), func(ctx context.Context) error {
			w.putIn(ctx, "a", p)
			return boom
		}), boom)
		w.update(func(ctx context.Context) { w.putIn(ctx, "a", p) })
		w.requireContent("a", p)
		w.powerLoss(1, 0)
		w.requireContent("a", p)
	}
}

// A context that is done at entry changes nothing and does not call the
// function; one that ends inside lets reads and writes fail.
func TestUpdateCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := w.db.Update(ctx, func(ctx context.Context) error {
		cancel()
		return w.db.Namespaces().Create(ctx, "new", nil)
	})
	requireClass(t, err, context.Canceled)
	requireClass(t, w.db.Update(ctx, func(context.Context) error { panic("called") }), context.Canceled)
	names, err := w.db.Namespaces().List(t.Context())
	require.NoError(t, err)
	require.Empty(t, names)
}

// A collection inside an Update is refused rather than wait for its own end.
func TestUpdateRefusesCollection(t *testing.T) {
	w := newWorld(t)
	w.update(func(ctx context.Context) {
		_, err := w.db.GarbageCollect(ctx)
		requireClass(t, err, errPrecondition)
	})
}

// Other writers wait for an Update and then go on; readers wait for nobody.
func TestUpdateAndOthers(t *testing.T) {
	w := newWorld(t)
	dgst := w.put("a", []byte("there"))
	other := make(chan error, 1)
	w.update(func(ctx context.Context) {
		w.putIn(ctx, "a", []byte("inside"))
		cw := w.begin("a", "other", []byte("other"))
		go func() { other <- cw.Commit(context.Background(), 0, "") }()
		left := w.begin("pending", "r", blob("left", large))
		within(t, 10*time.Second, func() {
			for _, read := range readMethods(w.db, w.ns("a"), dgst) {
				require.NoError(t, read(t.Context()))
			}
			names, err := w.db.Namespaces().List(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"a", "pending"}, names)
			labels, err := w.db.Namespaces().Labels(t.Context(), "pending")
			require.NoError(t, err)
			require.Empty(t, labels)
			_, err = w.db.Namespaces().Labels(t.Context(), "other")
			requireClass(t, err, errNotFound)
		})
		require.NoError(t, left.Close())
	})
	require.NoError(t, <-other)
	w.requireContent("a", []byte("other"))
}

// Two databases have nothing to do with one another: the context of one
// Update is an ordinary one for the other.
func TestUpdateOfAnotherDatabase(t *testing.T) {
	v, w := newWorld(t), newWorld(t)
	boom := errors.New("boom")
	require.ErrorIs(t, v.db.Update(t.Context(), func(ctx context.Context) error {
		v.putIn(ctx, "a", []byte("undone"))
		w.putIn(ctx, "a", []byte("done"))
		return boom
	}), boom)
	v.requireAbsent("a", digest.FromString("undone"))
	w.requireContent("a", []byte("done"))
}
