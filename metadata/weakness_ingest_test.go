package metadata_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

// W-G1: an ingestion that a writer has open is never collected, however old; its
// time begins anew when the writer leaves it, and then ends.
func TestW_G1_LiveWriterIsNeverCollected(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newClock()
			w := newWorld(t, withClock(c))
			p := blob("slow", size)
			cw := w.begin("a", "r", p[:size/2])
			c.step(100 * time.Hour)
			w.collect()
			w.write(cw, p[size/2:])
			require.NoError(t, cw.Close())

			c.step(23 * time.Hour)
			w.collect()
			require.Equal(t, []string{"r"}, w.listed("a"))
			w.kill()
			cw = w.open("a", "r")
			require.EqualValues(t, size, w.status(cw).Offset)
			c.step(100 * time.Hour)
			w.collect()
			require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(p)))
			w.requireContent("a", p)

			require.NoError(t, w.begin("a", "left", blob("left", size)).Close())
			c.step(25 * time.Hour)
			stats, err := w.db.GarbageCollect(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 1, stats.Ingests)
			require.Empty(t, w.listed("a"))
			require.Empty(t, w.rawRefs())
			require.NoError(t, w.open("a", "left").Close(), "the ref is free")
		})
	}
}

// The time of an ingestion is kept over reopening, and over the death of the
// process, which gives it a fresh one.
func TestExpiryOverReopen(t *testing.T) {
	c := newClock()
	w := newWorld(t, withClock(c))
	require.NoError(t, w.begin("a", "left", blob("left", large)).Close())
	c.step(23 * time.Hour)
	w.reopen()
	w.collect()
	require.Equal(t, []string{"left"}, w.listed("a"))
	c.step(2 * time.Hour)
	w.reopen()
	w.collect()
	require.Empty(t, w.listed("a"), "reopening the database gives no more time")
	require.Empty(t, w.rawRefs())

	w.begin("a", "open", blob("open", large))
	c.step(48 * time.Hour)
	w.kill()
	w.collect()
	require.Equal(t, []string{"open"}, w.listed("a"), "it was open until the process died")
	c.step(25 * time.Hour)
	w.collect()
	require.Empty(t, w.listed("a"))
}

// IngestExpiry is the option that says how long.
func TestIngestExpiryOption(t *testing.T) {
	c := newClock()
	w := newWorld(t, withClock(c), func(w *world) { w.opts.IngestExpiry = time.Minute })
	require.NoError(t, w.begin("a", "left", blob("left", small)).Close())
	c.step(59 * time.Second)
	w.collect()
	require.Equal(t, []string{"left"}, w.listed("a"))
	c.step(2 * time.Second)
	w.collect()
	require.Empty(t, w.listed("a"))
}

// W-G3: aborting an ingestion that took content over, and then got bytes of its
// own or was opened without, leaves nothing in the raw store.
func TestW_G3_AbortAfterTakingOver(t *testing.T) {
	p := blob("lent", large)
	dgst := digest.FromBytes(p)
	abort := func(t *testing.T, w *world) {
		require.NoError(t, w.ns("b").Abort(t.Context(), "r"))
		require.Empty(t, w.rawRefs())
		_, err := w.ns("b").Status(t.Context(), "r")
		requireClass(t, err, errNotFound)
		w.delete("a", dgst)
		w.collect()
		require.Empty(t, w.stored(), "nothing keeps what was taken over")
	}
	t.Run("unshared", func(t *testing.T) {
		w := newWorld(t, withPolicy(metadata.Shared))
		w.put("a", p)
		cw := w.open("b", "r", withDigest(dgst))
		w.write(cw, []byte("more"))
		require.EqualValues(t, large+4, w.status(cw).Offset)
		require.NoError(t, cw.Close())
		require.Equal(t, []string{"r"}, w.listed("b"))
		abort(t, w)
	})
	t.Run("reopened plain", func(t *testing.T) {
		w := newWorld(t, withPolicy(metadata.Shared))
		w.put("a", p)
		require.NoError(t, w.open("b", "r", withDigest(dgst)).Close())
		cw := w.open("b", "r", withSize(7))
		w.write(cw, []byte("other"))
		require.NoError(t, cw.Close())
		abort(t, w)
	})
	t.Run("as it is", func(t *testing.T) {
		w := newWorld(t, withPolicy(metadata.Shared))
		w.put("a", p)
		require.NoError(t, w.open("b", "r", withDigest(dgst)).Close())
		abort(t, w)
	})
	t.Run("truncated", func(t *testing.T) {
		w := newWorld(t, withPolicy(metadata.Shared))
		w.put("a", p)
		cw := w.open("b", "r", withDigest(dgst))
		require.NoError(t, cw.Truncate(0))
		require.Zero(t, w.status(cw).Offset)
		w.write(cw, blob("spilled", large))
		require.NoError(t, cw.Close())
		abort(t, w)
	})
}

// W-G4: ingestions of the raw store that no record stands for are found when
// the database is opened, as what they are if they are ours, and removed when
// they are old.
func TestW_G4_StrayRawIngestions(t *testing.T) {
	c := newClock()
	w := newWorld(t, withClock(c))
	for _, ref := range []string{"no namespace", "a/ours", "/empty"} {
		cw, err := w.blobs.Ingest(t.Context(), ref, 0, digest.SHA256)
		require.NoError(t, err)
		w.write(cw, blob("stray", small))
		require.NoError(t, cw.Close())
	}
	w.reopen()
	require.Equal(t, []string{"ours"}, w.listed("a"))
	cw := w.open("a", "ours")
	require.EqualValues(t, small, w.status(cw).Offset)
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.requireContent("a", blob("stray", small))
	w.collect()
	require.Len(t, w.rawRefs(), 2, "too young")
	c.step(25 * time.Hour)
	w.collect()
	require.Empty(t, w.rawRefs())
}

// W-G5: something half-made in the raw store's folder of ingestions breaks no
// listing, no opening and no collection.
func TestW_G5_HalfMadeIngestion(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.begin("a", "whole", blob("whole", large)).Close())
	w.die(w.mem.Clone)
	require.NoError(t, w.mem.Mkdir("/store/ingest/"+strings.Repeat("ab", 32), 0o700))
	require.NoError(t, w.mem.Mkdir("/store/ingest/strange", 0o700))
	w.start()
	require.Equal(t, []string{"whole"}, w.listed("a"))
	require.NoError(t, w.mem.Mkdir("/store/ingest/"+strings.Repeat("cd", 32), 0o700))
	w.collect()
	require.Equal(t, []string{"whole"}, w.listed("a"))
	w.put("a", blob("goes on", large))
}

// W-G6: strays among the blobs, or no blobs at all, stop no collection.
func TestW_G6_StraysDontStopTheSweep(t *testing.T) {
	w := newWorld(t)
	w.collect() // there is no directory of blobs yet
	dgst := w.put("a", blob("garbage", large))
	require.NoError(t, w.mem.Mkdir("/store/blobs/sha256/strange", 0o700))
	for _, name := range []string{"0-stray", strings.Repeat("0", 63), strings.Repeat("G", 64), "zzz"} {
		f, err := w.mem.OpenFile("/store/blobs/sha256/"+name, os.O_WRONLY|os.O_CREATE, 0o600)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	w.delete("a", dgst)
	w.kill()
	w.collect()
	require.Empty(t, w.stored())
	require.Empty(t, w.rawRefs())
}

// W-H2: a collection that fails leaves no goroutine (TestMain looks), and one
// record of an ingestion that can't be read fails no collection and no opening.
func TestW_H2_DamagedIngestRecord(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.begin("a", "damaged", blob("p", large)).Close())
	w.delete("a", w.put("a", blob("garbage", small)))
	w.reopen()
	require.NoError(t, w.db.PutRaw("ingests/a", []byte("damaged"), []byte("no record")))
	require.NoError(t, w.db.PutRaw("ingests/a", []byte("also"), nil))
	w.reopen()
	require.Equal(t, []string{"damaged"}, w.listed("a"), "its bytes are there")
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.db.GarbageCollect(ctx)
		requireClass(t, err, context.Canceled)
	}
	w.collect()
	require.Empty(t, w.stored())
	cw := w.open("a", "damaged")
	require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(blob("p", large))))
}

// W-R1: no digest, however malformed, makes a call panic, and each answers
// InvalidArgument.
func TestW_R1_MalformedDigests(t *testing.T) {
	w := newWorld(t)
	good := digest.FromString("x")
	for _, dgst := range []digest.Digest{
		":", "sha256", "sha256:", "x:y", good[:len(good)-1], good + "0", "sha256:../../../etc/passwd",
		"md5:d41d8cd98f00b204e9800998ecf8427e", "blake3:" + digest.Digest(good.Encoded()),
		digest.Digest(strings.ToUpper(good.String())), "sha256:" + digest.Digest(strings.ToUpper(good.Encoded())), "\x00", "sha512:" + digest.Digest(good.Encoded()),
	} {
		store := w.ns("a")
		_, err := store.Info(t.Context(), dgst)
		requireClass(t, err, errInvalid)
		_, err = store.ReaderAt(t.Context(), describe(dgst, 0))
		requireClass(t, err, errInvalid)
		_, err = store.Update(t.Context(), cellar.Info{Digest: dgst})
		requireClass(t, err, errInvalid)
		requireClass(t, store.Delete(t.Context(), dgst), errInvalid)
		_, err = store.Writer(t.Context(), cellar.WithRef("r"), withDigest(dgst))
		requireClass(t, err, errInvalid)
		cw := w.begin("a", "r", []byte("x"))
		requireClass(t, cw.Commit(t.Context(), 0, dgst), errInvalid)
		require.NoError(t, w.ns("a").Abort(t.Context(), "r"))
	}
	_, err := w.ns("a").Info(t.Context(), "")
	requireClass(t, err, errInvalid)
}

// W-R2: an ingestion that is opened with another total starts afresh, and what
// is committed then is what was written then.
func TestW_R2_OtherTotalStartsAfresh(t *testing.T) {
	for _, first := range []int{10, small, large} {
		for _, second := range []int{0, 5, small, large} {
			t.Run(fmt.Sprintf("%d then %d", first, second), func(t *testing.T) {
				w := newWorld(t)
				require.NoError(t, w.begin("a", "r", blob("first", first), withSize(int64(first)+100)).Close())
				w.reopen()
				p := blob("second", second)
				cw := w.open("a", "r", withSize(int64(second)+7))
				st := w.status(cw)
				require.Zero(t, st.Offset)
				require.EqualValues(t, second+7, st.Total)
				w.write(cw, p)
				require.NoError(t, cw.Commit(t.Context(), 0, ""))
				w.requireContent("a", p)
				require.Equal(t, inOrder(digest.FromBytes(p)), w.stored())
			})
		}
	}
}

// W-R3: what is done to a writer that is closed or committed does nothing to
// the one that has the ref now.
func TestW_R3_NoLockTheft(t *testing.T) {
	for _, size := range []int{small, large} {
		w := newWorld(t)
		first := w.begin("a", "r", blob("first", size))
		require.NoError(t, first.Commit(t.Context(), 0, ""))
		second := w.begin("a", "r", blob("second", size))
		requireClass(t, first.Commit(t.Context(), 0, ""), errPrecondition)
		require.NoError(t, first.Close())
		requireClass(t, first.Truncate(0), errPrecondition)
		_, err := first.Write([]byte("x"))
		requireClass(t, err, errPrecondition)
		_, err = w.ns("a").Writer(t.Context(), cellar.WithRef("r"))
		requireClass(t, err, errUnavailable)

		require.NoError(t, w.ns("a").Abort(t.Context(), "r"))
		third := w.begin("a", "r", blob("third", size))
		requireClass(t, second.Commit(t.Context(), 0, ""), errAborted)
		require.NoError(t, second.Close())
		_, err = w.ns("a").Writer(t.Context(), cellar.WithRef("r"))
		requireClass(t, err, errUnavailable)
		require.NoError(t, third.Commit(t.Context(), 0, ""))
		w.requireContent("a", blob("third", size))
	}
}

// W-R5: what an ingestion had taken over is forgotten when it is opened
// without.
func TestW_R5_StaleTakeover(t *testing.T) {
	w := newWorld(t, withPolicy(metadata.Shared))
	p := blob("lent", large)
	dgst := w.put("a", p)
	require.NoError(t, w.open("b", "r", withDigest(dgst)).Close())
	cw := w.open("b", "r")
	require.Zero(t, w.status(cw).Offset)
	w.delete("a", dgst)
	w.collect()
	require.Empty(t, w.stored(), "nothing keeps it any more")
	w.write(cw, blob("own", small))
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.requireContent("b", blob("own", small))
	require.Empty(t, w.listed("b"))
}

// W-R6: a writer that took content over holds its ref like any other.
func TestW_R6_TakeoverHoldsTheRef(t *testing.T) {
	w := newWorld(t, withPolicy(metadata.Shared))
	dgst := w.put("a", blob("lent", small))
	cw := w.open("b", "r", withDigest(dgst))
	for _, opts := range [][]cellar.WriterOpt{{}, {withDigest(dgst)}, {withSize(3)}} {
		_, err := w.ns("b").Writer(t.Context(), append(opts, cellar.WithRef("r"))...)
		requireClass(t, err, errUnavailable)
		var locked *cellar.LockedError
		require.ErrorAs(t, err, &locked)
	}
	require.Empty(t, w.listed("b"), "it has nothing to show")
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	require.NoError(t, w.open("b", "r").Close())
}

// W-R10: folders that somebody removes while the store is open are made again.
func TestW_R10_FoldersRemoved(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.mem.Remove("/store/ingest"))
	w.put("a", blob("small", small))
	w.put("a", blob("large", large))
	w.requireContent("a", blob("large", large))
	w.collect()
}

// W-R13: refs, labels and names of namespaces have bounds everywhere.
func TestW_R13_Bounds(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("r", cellar.MaxRefLength)
	for _, ref := range []string{"", long + "r", strings.Repeat("r", 1<<20)} {
		_, err := w.ns("a").Writer(t.Context(), cellar.WithRef(ref))
		requireClass(t, err, errInvalid)
		_, err = w.ns("a").Status(t.Context(), ref)
		requireClass(t, err, errInvalid)
		requireClass(t, w.ns("a").Abort(t.Context(), ref), errInvalid)
	}
	for _, ref := range []string{long, "../../x", "a/b\x00c", "\xff\xfe", "#", " "} {
		require.NoError(t, w.begin("a", ref, blob(ref, large)).Close())
		w.reopen()
		cw := w.open("a", ref)
		require.EqualValues(t, large, w.status(cw).Offset, "%q", ref)
		require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(blob(ref, large))))
	}
	names := w.db.Namespaces()
	for _, name := range []string{"", "../x", "a/b", "ä", strings.Repeat("n", 77), "a\x00"} {
		_, err := w.db.Namespace(name)
		requireClass(t, err, errInvalid)
		requireClass(t, names.Create(t.Context(), name, nil), errInvalid)
		requireClass(t, names.SetLabel(t.Context(), name, "k", "v"), errInvalid)
		requireClass(t, names.Delete(t.Context(), name), errInvalid)
		_, err = names.Labels(t.Context(), name)
		requireClass(t, err, errInvalid)
	}
	dgst := w.put("a", []byte("x"))
	for _, labels := range []map[string]string{{"": "x"}, {"k": strings.Repeat("v", 1<<16)}} {
		requireClass(t, names.Create(t.Context(), "new", labels), errInvalid)
		_, err := w.ns("a").Update(t.Context(), cellar.Info{Digest: dgst, Labels: labels})
		requireClass(t, err, errInvalid)
		for k, v := range labels {
			requireClass(t, names.SetLabel(t.Context(), "new", k, v), errInvalid)
		}
	}
	list, err := names.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, list, "nothing was created that was not asked for")
}
