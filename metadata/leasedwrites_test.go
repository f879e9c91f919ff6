package metadata_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
)

// sizes of content that is staged in memory and that is not.
var leasedSizes = map[string]int{"small": small, "large": large}

// removeLeases ends the leases of namespace a.
func (w *leaseWorld) removeLeases(ids ...string) {
	w.Helper()
	for _, id := range ids {
		_, err := w.leases().Delete(w.Context(), id)
		require.NoError(w, err)
	}
}

func TestLeasedWriterRefused(t *testing.T) {
	// Under a lease that is not there no writer is opened: nothing of it exists
	// afterwards, and content that exists is not spoken of.
	w := newLeaseWorld(t)
	w.create("over", leases.WithTTL(time.Second))
	dgst := w.put("a", blob("there", small))
	w.clock.step(time.Minute)
	for _, id := range []string{"", "none", "over", strings.Repeat("x", 40_000)} {
		ctx := leases.WithLease(t.Context(), id)
		for _, opts := range [][]cellar.WriterOpt{nil, {withSize(large)}, {withDigest(dgst)}} {
			_, err := w.ns("a").Writer(ctx, append(opts, cellar.WithRef("r"))...)
			requireClass(t, err, errNotFound)
		}
	}
	require.Empty(t, w.rawRefs())
	require.Empty(t, w.listed("a"))
	require.NoError(t, w.open("a", "r").Close(), "the ref is free")
}

func TestLeaseHoldsIngestion(t *testing.T) {
	// An ingestion of a lease is held by it from the first moment, outlives
	// every expiry, and goes with the lease; a process that dies changes nothing.
	for name, size := range leasedSizes {
		t.Run(name, func(t *testing.T) {
			w := newLeaseWorld(t)
			w.create("x")
			ctx := leases.WithLease(t.Context(), "x")
			cw := w.openIn(ctx, "a", "r")
			w.requireHeld("x", ingestOf("r"))
			w.write(cw, blob("some", size))
			require.NoError(t, cw.Close())
			w.requireHeld("x", ingestOf("r"))
			for _, step := range []func(){w.reopen, w.kill, func() {}} {
				step()
				w.clock.step(1000 * time.Hour)
				w.collect()
				require.Equal(t, []string{"r"}, w.listed("a"))
			}
			w.removeLeases("x")
			require.Equal(t, []string{"r"}, w.listed("a"))
			w.collect()
			require.Empty(t, w.listed("a"))
			require.Empty(t, w.rawRefs())
		})
	}
}

func TestLeaseOverOpenIngestion(t *testing.T) {
	// What a writer has open is not collected when its lease ends, and a
	// collection takes it when the writer has left it.
	w := newLeaseWorld(t)
	w.create("x", leases.WithTTL(time.Hour))
	cw := w.openIn(leases.WithLease(t.Context(), "x"), "a", "r")
	w.write(cw, blob("some", large))
	w.clock.step(2 * time.Hour)
	w.collect()
	w.write(cw, blob("more", large))
	require.NoError(t, cw.Close())
	w.collect()
	require.Equal(t, []string{"r"}, w.listed("a"), "its writer has left it just now")
	w.clock.step(25 * time.Hour)
	w.collect()
	require.Empty(t, w.listed("a"))
}

func TestLeaseHoldsIngestionThatWasOpen(t *testing.T) {
	// What a process that died had open under a lease has only that: it is
	// taken by the first collection without the lease.
	w := newLeaseWorld(t)
	w.create("x")
	w.openIn(leases.WithLease(t.Context(), "x"), "a", "r", withSize(large))
	w.requireHeld("x", ingestOf("r"))
	w.kill()
	w.collect()
	require.Equal(t, []string{"r"}, w.listed("a"))
	w.removeLeases("x")
	w.collect()
	require.Empty(t, w.listed("a"))
}

func TestLeaseHoldsIngestionBeforeThatIsRecorded(t *testing.T) {
	// A collection that runs while a lease is not recorded yet to hold an
	// ingestion does not take it for one that nothing holds.
	w := newLeaseWorld(t)
	w.create("x")
	release := w.db.HoldWriter()
	require.NoError(t, w.openIn(leases.WithLease(t.Context(), "x"), "a", "r", withSize(large)).Close())
	over, err := w.db.IsOver(t.Context(), "a", "r")
	release()
	require.NoError(t, err)
	require.False(t, over)
	w.requireHeld("x", ingestOf("r"))
	over, err = w.db.IsOver(t.Context(), "a", "r")
	require.NoError(t, err)
	require.False(t, over)
	w.removeLeases("x")
	over, err = w.db.IsOver(t.Context(), "a", "r")
	require.NoError(t, err)
	require.True(t, over)
}

func TestIngestionKeepsEarlierExpiry(t *testing.T) {
	// An ingestion that was opened without a lease has its own expiry, which a
	// lease later on adds to and does not end.
	w := newLeaseWorld(t)
	w.create("x")
	require.NoError(t, w.begin("a", "r", blob("some", large)).Close())
	require.NoError(t, w.openIn(leases.WithLease(t.Context(), "x"), "a", "r").Close())
	w.removeLeases("x")
	w.clock.step(24 * time.Hour)
	w.collect()
	require.Equal(t, []string{"r"}, w.listed("a"))
	w.clock.step(1)
	w.collect()
	require.Empty(t, w.listed("a"))
}

func TestLeaseTakesIngestionByHand(t *testing.T) {
	// AddResource holds an ingestion as a write does, DeleteResource lets go.
	w := newLeaseWorld(t)
	w.create("x")
	w.add("x", ingestOf("r"))
	require.NoError(t, w.begin("a", "r", blob("some", large)).Close())
	w.clock.step(100 * time.Hour)
	w.collect()
	require.Equal(t, []string{"r"}, w.listed("a"))
	require.NoError(t, w.leases().DeleteResource(t.Context(), "x", ingestOf("r")))
	w.collect()
	require.Empty(t, w.listed("a"))
}

func TestLeasedCommit(t *testing.T) {
	// A commit has the lease hold the content instead of the ingestion, in one
	// step, also when the content was there.
	for name, size := range leasedSizes {
		t.Run(name, func(t *testing.T) {
			w := newLeaseWorld(t)
			w.create("x")
			w.create("y")
			ctx := leases.WithLease(t.Context(), "x")
			p := blob("kept", size)
			dgst := w.putIn(ctx, "a", p)
			w.kill()
			w.requireHeld("x", contentOf(dgst))
			w.collect()
			w.requireContent("a", p)

			cw := w.openIn(leases.WithLease(t.Context(), "y"), "a", "again")
			w.write(cw, p)
			requireClass(t, cw.Commit(t.Context(), 0, dgst), errExists)
			w.kill()
			w.requireHeld("y", contentOf(dgst))
			w.removeLeases("x")
			w.collect()
			w.requireContent("a", p)
			w.removeLeases("y")
			w.collect()
			w.requireAbsent("a", dgst)
			require.Empty(t, w.stored())
		})
	}
}

func TestLeasedWriterOnExistingContent(t *testing.T) {
	// A Writer that finds the content there has it held, durably, before it
	// says so; the second time that takes no transaction.
	w := newLeaseWorld(t)
	w.create("x")
	dgst := w.put("a", blob("there", small))
	ctx := leases.WithLease(t.Context(), "x")
	_, err := w.ns("a").Writer(ctx, cellar.WithRef("r"), withDigest(dgst))
	requireClass(t, err, errExists)
	w.kill()
	w.requireHeld("x", contentOf(dgst))
	w.collect()
	w.requireContent("a", blob("there", small))
	txs := w.txs.Load()
	_, err = w.ns("a").Writer(ctx, cellar.WithRef("r"), withDigest(dgst))
	requireClass(t, err, errExists)
	require.Equal(t, txs, w.txs.Load())

	err = w.db.Update(t.Context(), func(ctx context.Context) error {
		ctx = leases.WithLease(ctx, "in")
		_, err := w.leases().Create(ctx, leases.WithID("in"))
		require.NoError(t, err)
		_, err = w.ns("a").Writer(ctx, cellar.WithRef("r"), withDigest(dgst))
		requireClass(t, err, errExists)
		return nil
	})
	require.NoError(t, err)
	w.requireHeld("in", contentOf(dgst))
}

func TestLeaseLostBeforeCommit(t *testing.T) {
	// A commit whose lease has gone is refused before and after its bytes have
	// moved, and nothing is lost: the ref is free, and what was written is
	// resumed, also after a collection and a crash.
	for name, size := range leasedSizes {
		for _, at := range []string{"", "placed"} {
			t.Run(name+" "+at, func(t *testing.T) {
				w := newLeaseWorld(t)
				w.create("x")
				w.create("y")
				p := blob("kept", size)
				cw := w.openIn(leases.WithLease(t.Context(), "x"), "a", "r")
				w.write(cw, p)
				if at == "" {
					w.removeLeases("x")
				}
				var once sync.Once
				w.at(func(point string) error {
					if point == at {
						once.Do(func() { w.removeLeases("x") })
					}
					return nil
				})
				requireClass(t, cw.Commit(t.Context(), 0, digest.FromBytes(p)), errNotFound)
				w.requireAbsent("a", digest.FromBytes(p))
				w.collect()
				w.kill()
				w.collect()

				cw = w.openIn(leases.WithLease(t.Context(), "y"), "a", "r", withSize(int64(size)))
				if at == "" || size == small {
					require.Equal(t, int64(size), w.status(cw).Offset)
				} else {
					// The bytes were in place already; with them went what proves
					// that the namespace has sent them.
					w.write(cw, p[w.status(cw).Offset:])
				}
				require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(p)))
				w.requireHeld("y", contentOf(digest.FromBytes(p)))
				w.requireContent("a", p)
			})
		}
	}
}

func TestLeaseLostResumedAtOnce(t *testing.T) {
	// In the same process all bytes are still there, wherever they are.
	for name, size := range leasedSizes {
		t.Run(name, func(t *testing.T) {
			w := newLeaseWorld(t)
			w.create("x")
			p := blob("kept", size)
			cw := w.openIn(leases.WithLease(t.Context(), "x"), "a", "r")
			w.write(cw, p)
			var once sync.Once
			w.at(func(point string) error {
				if point == "placed" {
					once.Do(func() { w.removeLeases("x") })
				}
				return nil
			})
			requireClass(t, cw.Commit(t.Context(), 0, ""), errNotFound)
			w.collect()
			cw = w.open("a", "r")
			require.Equal(t, int64(size), w.status(cw).Offset)
			require.NoError(t, cw.Commit(t.Context(), 0, digest.FromBytes(p)))
			w.requireContent("a", p)
		})
	}
}

func TestCommitUnderAnotherLease(t *testing.T) {
	// The lease of a commit is the writer's unless the commit's context has
	// another; the ingestion leaves both.
	w := newLeaseWorld(t)
	w.create("x")
	w.create("y")
	x, y := leases.WithLease(t.Context(), "x"), leases.WithLease(t.Context(), "y")

	cw := w.openIn(x, "a", "r")
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.requireHeld("x", contentOf(digest.FromBytes(nil)))

	p := blob("other", small)
	cw = w.openIn(x, "a", "r")
	w.write(cw, p)
	require.NoError(t, cw.Commit(y, 0, ""))
	w.requireHeld("x", contentOf(digest.FromBytes(nil)))
	w.requireHeld("y", contentOf(digest.FromBytes(p)))

	cw = w.begin("a", "r", blob("none", small))
	requireClass(t, cw.Commit(leases.WithLease(t.Context(), "none"), 0, ""), errNotFound)
	cw = w.open("a", "r")
	require.NoError(t, cw.Commit(y, 0, ""))
	w.requireHeld("y", contentOf(digest.FromBytes(p)), contentOf(digest.FromBytes(blob("none", small))))
}

func TestLeasedDelete(t *testing.T) {
	// Deleting under a lease drops it there too, and other leases keep the name;
	// content that comes again is held by them.
	w := newLeaseWorld(t)
	w.create("x")
	w.create("y")
	p := blob("kept", small)
	dgst := w.putIn(leases.WithLease(t.Context(), "x"), "a", p)
	w.add("y", contentOf(dgst))
	require.NoError(t, w.ns("a").Delete(leases.WithLease(t.Context(), "x"), dgst))
	requireClass(t, w.ns("a").Delete(leases.WithLease(t.Context(), "y"), dgst), errNotFound)
	w.kill()
	w.requireHeld("x")
	w.requireHeld("y", contentOf(dgst))
	w.collect()
	require.Empty(t, w.stored())
	w.put("a", p)
	w.collect()
	w.requireContent("a", p)
	require.NoError(t, w.ns("a").Delete(leases.WithLease(t.Context(), "none"), dgst), "a lease that is not there has nothing to drop")
}

func TestLeasedAbort(t *testing.T) {
	// Aborting under a lease drops the ingestion there too, and only there.
	w := newLeaseWorld(t)
	w.create("x")
	w.create("y")
	x := leases.WithLease(t.Context(), "x")
	require.NoError(t, w.openIn(x, "a", "r").Close())
	w.add("y", ingestOf("r"))
	require.NoError(t, w.ns("a").Abort(x, "r"))
	w.requireHeld("x")
	w.requireHeld("y", ingestOf("r"))
	requireClass(t, w.ns("a").Abort(leases.WithLease(t.Context(), "y"), "r"), errNotFound)
	w.requireHeld("y", ingestOf("r"))
	require.NoError(t, w.openIn(x, "a", "r").Close())
	require.NoError(t, w.ns("a").Abort(t.Context(), "r"))
	w.requireHeld("x", ingestOf("r"))
}

func TestLeaseRoots(t *testing.T) {
	// A lease keeps what its content refers to, a flat one does not; of two the
	// one that keeps more counts.
	w := newLeaseWorld(t)
	child := w.put("a", blob("child", small))
	refers := cellar.WithLabels(map[string]string{labels.GCRefContent + ".0": child.String()})
	w.create("flat", leases.WithLabels(map[string]string{labels.GCFlat: "false"}))
	w.create("deep")
	parent := w.putIn(leases.WithLease(t.Context(), "flat"), "a", blob("parent", small), refers)
	w.add("deep", contentOf(parent))
	w.collect()
	w.requireContent("a", blob("child", small))
	w.removeLeases("deep")
	w.collect()
	w.requireAbsent("a", child)
	w.requireContent("a", blob("parent", small))
}

func TestLeasedNamespace(t *testing.T) {
	// A store that is bound to a lease works as if every context carried it,
	// and a context that carries another has precedence.
	w := newLeaseWorld(t)
	for _, names := range [][2]string{{"-", "x"}, {"a", ""}} {
		_, err := w.db.LeasedNamespace(names[0], names[1])
		requireClass(t, err, errInvalid)
	}
	store, err := w.db.LeasedNamespace("a", "x")
	require.NoError(t, err)
	_, err = store.Writer(t.Context(), cellar.WithRef("r"))
	requireClass(t, err, errNotFound)
	w.create("x")
	w.create("y")
	p := blob("kept", small)
	cw, err := store.Writer(t.Context(), cellar.WithRef("r"))
	require.NoError(t, err)
	w.requireHeld("x", ingestOf("r"))
	w.write(cw, p)
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.requireHeld("x", contentOf(digest.FromBytes(p)))
	_, err = store.Writer(leases.WithLease(t.Context(), "y"), cellar.WithRef("r"), withDigest(digest.FromBytes(p)))
	requireClass(t, err, errExists)
	w.requireHeld("y", contentOf(digest.FromBytes(p)))
	require.NoError(t, store.Delete(t.Context(), digest.FromBytes(p)))
	w.requireHeld("x")
	w.requireHeld("y", contentOf(digest.FromBytes(p)))
	cw, err = store.Writer(t.Context(), cellar.WithRef("r"))
	require.NoError(t, err)
	require.NoError(t, cw.Close())
	require.NoError(t, store.Abort(t.Context(), "r"))
	w.requireHeld("x")
}

func TestLeasedWritesInUpdate(t *testing.T) {
	// In an Update a lease, the writers under it and their commits are one
	// step; what they leave is held, and nothing else.
	failure := errors.New("failure")
	for name, want := range map[string]error{"done": nil, "abandoned": failure} {
		t.Run(name, func(t *testing.T) {
			w := newLeaseWorld(t)
			w.create("x")
			p, q := blob("p", small), blob("q", large)
			before := w.openIn(leases.WithLease(t.Context(), "x"), "a", "before")
			err := w.db.Update(leases.WithLease(t.Context(), "x"), func(ctx context.Context) error {
				w.putIn(ctx, "a", p)
				w.putIn(ctx, "a", q)
				require.NoError(t, before.Commit(ctx, 0, ""))
				cw := w.openIn(ctx, "a", "left")
				w.write(cw, q)
				require.NoError(t, cw.Close())
				return want
			})
			require.Equal(t, want, err)
			w.removeSoon()
			if want == nil {
				w.requireHeld("x", contentOf(digest.FromBytes(p)), contentOf(digest.FromBytes(q)), contentOf(digest.FromBytes(nil)), ingestOf("left"))
				w.collect()
				w.requireContent("a", q)
			} else {
				w.collect()
				w.requireAbsent("a", digest.FromBytes(p))
			}
			w.reopen()
			w.clock.step(100 * time.Hour)
			w.collect()
			require.Equal(t, []string{"left"}, w.listed("a"), "its lease is live")
		})
	}
}

// removeSoon waits for what is written in the background.
func (w *leaseWorld) removeSoon() {
	w.Helper()
	_, err := w.leases().ListResources(w.Context(), "x", leases.Page{})
	require.NoError(w, err)
}

func TestLeasedTakeover(t *testing.T) {
	// Content that an ingestion of a lease has taken over from elsewhere stays
	// as long as that lease.
	w := newLeaseWorld(t, withPolicy(metadata.Shared))
	p := blob("lent", large)
	dgst := w.put("b", p)
	w.create("x")
	require.NoError(t, w.openIn(leases.WithLease(t.Context(), "x"), "a", "r", withDigest(dgst)).Close())
	w.delete("b", dgst)
	w.clock.step(100 * time.Hour)
	for _, step := range []func(){func() {}, w.kill} {
		step()
		w.collect()
		require.Equal(t, []digest.Digest{dgst}, w.stored())
	}
	w.removeLeases("x")
	w.collect()
	require.Empty(t, w.stored())
}

func TestTakeoverBesideReceivedBytes(t *testing.T) {
	// An ingestion that has received bytes and then takes content over shows
	// what it had, goes on with that if the content is not asked for again, and
	// leaves nothing of it when it is committed or written to.
	for name, tc := range map[string]struct {
		use  func(w *leaseWorld, cw cellar.Writer)
		left []string
	}{
		"close":    {func(w *leaseWorld, cw cellar.Writer) { require.NoError(w, cw.Close()) }, []string{"r"}},
		"commit":   {func(w *leaseWorld, cw cellar.Writer) { require.NoError(w, cw.Commit(w.Context(), 0, "")) }, nil},
		"truncate": {func(w *leaseWorld, cw cellar.Writer) { require.NoError(w, cw.Truncate(0)) }, []string{"r"}},
		"write":    {func(w *leaseWorld, cw cellar.Writer) { w.write(cw, []byte("more")) }, []string{"r"}},
		"abort":    {func(w *leaseWorld, _ cellar.Writer) { require.NoError(w, w.ns("a").Abort(w.Context(), "r")) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLeaseWorld(t, withPolicy(metadata.Shared))
			p, some := blob("lent", small), blob("some", large)
			dgst := w.put("b", p)
			require.NoError(t, w.begin("a", "r", some, withSize(2*large)).Close())
			cw := w.open("a", "r", withDigest(dgst))
			require.Equal(t, int64(small), w.status(cw).Offset)
			st, err := w.ns("a").Status(t.Context(), "r")
			require.NoError(t, err)
			require.Equal(t, []int64{large, 2 * large}, []int64{st.Offset, st.Total})
			tc.use(w, cw)
			switch name {
			case "close":
				w.kill()
				st, err := w.ns("a").Status(t.Context(), "r")
				require.NoError(t, err)
				require.Equal(t, int64(large), st.Offset)
				cw = w.open("a", "r")
				require.Equal(t, int64(large), w.status(cw).Offset)
				require.Equal(t, digest.FromBytes(some), cw.Digest())
				require.NoError(t, cw.Commit(t.Context(), 0, ""))
			case "commit":
				w.requireContent("a", p)
			case "truncate", "write":
				got := map[string][]byte{"truncate": nil, "write": append(p, "more"...)}[name]
				require.Equal(t, digest.FromBytes(got), cw.Digest())
				require.NoError(t, cw.Commit(t.Context(), 0, ""))
			}
			require.Empty(t, w.listed("a"))
			require.Empty(t, w.rawRefs())
		})
	}
}

func TestLeasedWritesAmongCollections(t *testing.T) {
	// Content that is written under a lease, or found to be there under one, is
	// never taken by collections that run all the time.
	w := newLeaseWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	var collector, writers sync.WaitGroup
	collector.Go(func() {
		for ctx.Err() == nil {
			if _, err := w.db.GarbageCollect(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 4 {
		writers.Go(func() {
			for j := range 15 {
				if err := leaseOnce(w, i, j); err != nil {
					t.Errorf("writer %d, round %d: %v", i, j, err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	collector.Wait()
	w.collect()
	require.Empty(t, w.stored())
	require.Empty(t, w.ids())
}

// leaseOnce takes a lease, writes content that others write too, reads it, and
// lets go.
func leaseOnce(w *leaseWorld, i, j int) error {
	ctx := context.Background()
	m, err := w.db.NamespaceLeases("a")
	if err != nil {
		return err
	}
	l, err := m.Create(ctx)
	if err != nil {
		return err
	}
	p := blob("content "+string(rune('a'+j%3)), small)
	dgst := digest.FromBytes(p)
	store, err := w.db.LeasedNamespace("a", l.ID)
	if err != nil {
		return err
	}
	cw, err := store.Writer(ctx, cellar.WithRef(l.ID), withDigest(dgst))
	if err == nil {
		if _, err := cw.Write(p); err != nil {
			return err
		}
		err = cw.Commit(ctx, int64(len(p)), dgst)
	}
	if err != nil && !errors.Is(err, errExists) {
		return err
	}
	ra, err := store.ReaderAt(ctx, describe(dgst, 0))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, cellar.NewReader(ra)); err != nil {
		return err
	}
	if err := ra.Close(); err != nil {
		return err
	}
	if i == 0 {
		_, err = m.Renew(ctx, l.ID, w.clock.now().Add(-1))
		return err
	}
	_, err = m.Delete(ctx, l.ID)
	return err
}
