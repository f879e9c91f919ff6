package metadata_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
)

// 9. A collection removes no bytes on the strength of a transaction whose flush
// has failed.
func TestAttack_SweepTrustsFailedFlush(t *testing.T) {
	s := newSiege(t)
	kept := blob("kept", large)
	x := s.put("a", kept, withLabels(rootLabel, "1"))
	for i := range 3 {
		s.put("a", blob(fmt.Sprint(i), large))
	}
	in, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	s.raw.onBefore(func(call, _ string) {
		if call == "list" && once.CompareAndSwap(false, true) {
			close(in)
			<-goOn
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = s.db.GarbageCollect(context.Background()) })
	<-in // the sweep begins
	medium, err := os.ReadFile(s.path)
	require.NoError(t, err)
	s.failAt("after commit", errDisk) // the meta page is written, its flush fails
	require.ErrorIs(t, s.ns("a").Delete(t.Context(), x), errUnavailable)
	s.crash.Store(nil)
	close(goOn)
	wg.Wait()
	s.raw.calm()
	_ = s.db.Close()
	require.NoError(t, s.blobs.Close())
	s.path = filepath.Join(t.TempDir(), "medium.db")
	require.NoError(t, os.WriteFile(s.path, medium, 0o600)) // what the medium has
	s.unsound = true
	s.start()
	s.requireContent("a", kept)
}

// 10. Placing small content never puts bytes that are not durable in the place
// of durable ones that an acknowledged record needs.
func TestAttack_PlaceOverDurable(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { placeOverDurable(t, seed) })
	}
}

func placeOverDurable(t *testing.T, seed uint64) {
	s := newSiege(t)
	s.put("seed", blob("seed", large)) // directories are there
	p := blob("x", small)
	x := digest.FromBytes(p)
	in, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var once atomic.Bool
	s.raw.onBefore(func(call, subject string) {
		if call == "place" && subject == x.String() && once.CompareAndSwap(false, true) {
			close(in)
			<-goOn
			s.raw.onAfter(func(call, _ string) { // after this very Place
				if call == "place" {
					cancel()
				}
			})
		}
	})
	var wg sync.WaitGroup
	cw := s.begin("a", "r", p)
	wg.Go(func() { require.ErrorIs(t, cw.Commit(ctx, small, x), context.Canceled) })
	<-in // a has seen that nobody holds x
	s.put("b", p)
	require.NoError(t, s.db.Settle(t.Context())) // b's is durable as a file, and not staged
	require.NotEmpty(t, s.db.Staged(), "while a may put another file in its place")
	close(goOn)
	wg.Wait()
	s.raw.calm()
	s.unsound = true
	s.powerLoss(seed, 0.5)
	s.requireContent("b", p)
}

// 11. A stray ingestion is removed only while nobody can have it.
func TestAttack_StrayIngestIsOpenedAnew(t *testing.T) {
	s := newSiege(t)
	old := s.begin("a", "r", blob("old", large)) // open, and idle for long
	s.c.step(25 * time.Hour)
	p := blob("new", large)
	var cw cellar.Writer
	s.raw.onAfter(func(call, _ string) {
		if call == "list" {
			s.raw.after.Store(nil)
			require.NoError(t, old.Commit(context.Background(), 0, ""))
		}
	})
	s.raw.onBefore(func(call, subject string) {
		if call == "abort" && subject == "a/r" {
			s.raw.before.Store(nil)
			cw = s.begin("a", "r", p)
		}
	})
	s.collect()
	if cw == nil {
		return // not aborted: fine
	}
	require.NoError(t, cw.Commit(t.Context(), large, digest.FromBytes(p)), "the bytes of an open writer")
}

// 12. One damaged count keeps nothing but its own record.
func TestAttack_DamagedCountKeepsEverything(t *testing.T) {
	s := newSiege(t)
	s.unsound = true
	x := s.put("a", blob("x", large))
	y := s.put("b", blob("y", large))
	z := s.put("c", blob("z", large))
	s.delete("c", z)
	require.NoError(t, s.db.PutRaw("holders", metadata.KeyOf(x), []byte{0xff}))
	_, err := s.db.GarbageCollect(t.Context())
	require.ErrorIs(t, err, errDataLoss)
	require.False(t, s.has("b", y), "in another namespace")
	require.NotContains(t, s.stored(), z, "bytes that were unheld before")
}

// 13. flush waits for what the committer has taken already.
func TestAttack_FlushIgnoresTakenBatch(t *testing.T) {
	s := newSiege(t)
	in, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	release := s.db.HoldWriter()
	cw := s.open("x", "r", withSize(large)) // makes the namespace, in the background
	wg.Go(func() {
		_ = s.db.Mutate(context.Background(), metadata.Mutation{Check: func(*bolt.Tx) error { close(in); <-goOn; return nil }})
	})
	eventually(t, 5*time.Second, "the batch is taken", func() bool { return s.db.Gathered() == 0 })
	release()
	<-in
	var names []string
	listed := make(chan struct{})
	go func() { defer close(listed); names, _ = s.db.Namespaces().List(context.Background()) }()
	select {
	case <-listed:
	case <-time.After(500 * time.Millisecond):
	}
	close(goOn)
	<-listed
	wg.Wait()
	require.Contains(t, names, "x", "the writer was opened before")
	require.NoError(t, cw.Close())
}

// 14. Content that is collected and written again while somebody opens it is
// not damaged.
func TestAttack_FalseDataLoss(t *testing.T) {
	s := newSiege(t)
	p := blob("x", large)
	x := s.put("a", p)
	s.raw.onBefore(func(call, subject string) {
		if call == "reader" && subject == x.String() {
			s.raw.before.Store(nil)
			s.collect()
		}
	})
	s.raw.onAfter(func(call, subject string) {
		if call == "reader" && subject == x.String() {
			s.raw.after.Store(nil)
			s.put("a", p)
		}
	})
	ra, err := s.ns("a").ReaderAt(t.Context(), describe(x, 0))
	if err != nil {
		requireClass(t, err, errNotFound)
		return
	}
	require.NoError(t, ra.Close())
}

// 15. Bytes that somebody puts into a plain raw store are found by the next
// collection.
func TestAttack_PlainStoreAtRest(t *testing.T) {
	w := newWorld(t, withGrace(-1), withRaw(func(raw cellar.RawStore) cellar.Store {
		return struct{ cellar.Store }{raw}
	}))
	w.collect()
	w.collect()
	p := blob("x", large)
	cw, err := w.blobs.Writer(t.Context(), cellar.WithRef("r"))
	require.NoError(t, err)
	w.write(cw, p)
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	w.collect()
	require.Empty(t, w.stored())
}

// 16. A hold that could not be recorded keeps nothing for ever.
func TestAttack_LeakedHold(t *testing.T) {
	s := newSiege(t)
	m := s.lease("a", "l")
	ctx, cancel := context.WithCancel(leases.WithLease(context.Background(), "l"))
	s.raw.onAfter(func(call, _ string) {
		if call == "ingest" {
			cancel()
		}
	})
	var cw cellar.Writer
	_ = s.db.Update(ctx, func(ctx context.Context) (err error) {
		cw, err = s.ns("a").Writer(ctx, cellar.WithRef("r"), withSize(large))
		return err
	})
	s.raw.calm()
	require.NotNil(t, cw)
	s.write(cw, []byte("x"))
	require.NoError(t, cw.Close())
	_, err := m.Delete(t.Context(), "l")
	require.NoError(t, err)
	s.c.step(100 * time.Hour)
	s.collect()
	s.collect()
	require.Empty(t, s.listed("a"))
}

// 17. An ingestion of the raw store that nobody knows goes once it is old.
func TestAttack_YoungStray(t *testing.T) {
	s := newSiege(t)
	cw, err := s.blobs.Writer(t.Context(), cellar.WithRef("foreign")) // no name of ours
	require.NoError(t, err)
	s.write(cw, []byte("x"))
	require.NoError(t, cw.Close())
	s.collect()
	s.collect()
	s.c.step(48 * time.Hour)
	s.collect()
	require.Empty(t, s.rawRefs())
}

// 18. A cancelled sweep reports that once.
func TestAttack_CancelledSweep(t *testing.T) {
	s := newSiege(t)
	s.collect() // the first one reads the names of all blobs
	for i := range 40 {
		s.put("a", blob("g"+string(rune('0'+i)), large))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.raw.onAfter(func(call, _ string) {
		if call == "remove" {
			cancel()
		}
	})
	stats, err := s.db.GarbageCollect(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, stats.Errors, "nothing failed")
	require.LessOrEqual(t, bytes.Count([]byte(err.Error()), []byte("cancel")), 1)
}

// 19. A collection that waits for an Update heeds its context.
func TestAttack_CancelWhileUpdate(t *testing.T) {
	s := newSiege(t)
	s.put("a", blob("x", large))
	in, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.db.Update(context.Background(), func(context.Context) error { close(in); <-goOn; return nil })
	})
	<-in
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	wg.Go(func() {
		_, err := s.db.GarbageCollect(ctx)
		done <- err
	})
	var err error
	late := false
	select {
	case err = <-done:
	case <-time.After(2 * time.Second):
		late = true
	}
	close(goOn)
	wg.Wait()
	require.False(t, late, "still waiting")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// 20. That the raw store's ingestions can't be listed keeps no bytes that are
// known to be garbage.
func TestAttack_ListingFails(t *testing.T) {
	s := newSiege(t)
	s.put("a", blob("x", large))
	fail := func(call string) error {
		if call == "list" {
			return errDisk
		}
		return nil
	}
	s.raw.fail.Store(&fail)
	_, err := s.db.GarbageCollect(t.Context())
	require.Error(t, err)
	require.Empty(t, s.stored())
}

// 22. The activity tells of what was deleted.
func TestAttack_ActivityOfDeletions(t *testing.T) {
	s := newSiege(t)
	x := s.put("a", blob("x", large))
	s.put("b", blob("y", large))
	s.delete("a", x)
	require.EqualValues(t, large, s.db.Activity().Bytes)
	n := s.db.Activity().Deletions
	require.NoError(t, s.db.Namespaces().Delete(t.Context(), "b", withContent()))
	require.Greater(t, s.db.Activity().Deletions, n)
}

// 23. A writer does not wait for the mark when the database has to grow.
func TestAttack_GrowthWaitsForMark(t *testing.T) {
	s := newSiege(t)
	_, err := s.during(func() {
		within(t, 3*time.Second, func() {
			_ = s.db.Mutate(context.Background(), metadata.Mutation{Apply: func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("meta")).Put([]byte("big"), make([]byte, 32<<20))
			}})
		})
	})
	require.NoError(t, err)
}

// 24. Leases that are over are dropped in small transactions.
func TestAttack_ManyExpiredLeases(t *testing.T) {
	s := newSiege(t)
	m := s.lease("a", "first", leases.WithTTL(time.Hour))
	require.NoError(t, s.db.Update(t.Context(), func(ctx context.Context) error {
		for i := range 20000 {
			id := string(rune('A'+i%26)) + time.Duration(i).String()
			if _, err := m.Create(ctx, leases.WithID(id), leases.WithTTL(time.Hour)); err != nil {
				return err
			}
			if err := m.AddResource(ctx, id, leases.Resource{Type: leases.Content, ID: digest.FromString(id).String()}); err != nil {
				return err
			}
		}
		return nil
	}))
	s.c.step(2 * time.Hour)
	stall := time.Duration(0)
	var wg sync.WaitGroup
	quit := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			began := time.Now()
			_ = s.db.Mutate(context.Background(), putMeta("k"))
			stall = max(stall, time.Since(began))
		}
	})
	stats, err := s.db.GarbageCollect(t.Context())
	close(quit)
	wg.Wait()
	require.NoError(t, err)
	t.Logf("stall %v, stats say %v", stall, stats.LongestStall)
	require.Less(t, stall, 60*time.Millisecond+2*stats.LongestStall)
}

// 25. A long chain that becomes reachable during the mark does not stall writers.
func TestAttack_FollowStall(t *testing.T) {
	s := newSiege(t)
	const n = 60000
	ids := make([]digest.Digest, n)
	for i := range ids {
		ids[i] = digest.FromString(time.Duration(i).String())
	}
	s.unsound = true
	x := s.put("a", blob("head", small))
	require.NoError(t, s.db.PutChain("a", ids))
	var worst time.Duration
	stats, err := s.during(func() { s.label("a", x, map[string]string{refLabel: ids[0].String(), rootLabel: "1"}) })
	require.NoError(t, err)
	worst = stats.LongestStall
	t.Logf("stall %v of %v records", worst, n)
	require.Less(t, worst, 50*time.Millisecond)
}
