package metadata_test

import (
	"context"
	"errors"
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

// 1. A back reference counts too if what it names is written during the mark.
func TestAttack_BackReferenceToNewParent(t *testing.T) {
	s := newSiege(t)
	parent := blob("parent", small)
	child := s.put("a", blob("child", small), withLabels(backLabel, digest.FromBytes(parent).String()))
	_, err := s.during(func() { s.put("a", parent, withLabels(rootLabel, "1")) })
	require.NoError(t, err)
	require.True(t, s.has("a", digest.FromBytes(parent)))
	require.True(t, s.has("a", child), "the parent is a root, so its child is kept")
}

// 2. "Already exists" is an answer that holds even if a whole collection runs
// while it is made.
func TestAttack_ExistsAcrossCollection(t *testing.T) {
	s := newSiege(t, withGrace(10*time.Minute))
	p := blob("x", small)
	x := s.put("a", p)
	s.c.step(time.Hour)
	once := false
	s.raw.onAfter(func(call, subject string) {
		if call == "info" && subject == x.String() && !once {
			once = true
			s.collect()
		}
	})
	w, err := s.ns("a").Writer(t.Context(), cellar.WithRef("r"), withDigest(x))
	require.True(t, once)
	if err == nil {
		require.NoError(t, w.Close())
		return // told that it has to send it: fine
	}
	requireClass(t, err, errExists)
	require.True(t, s.has("a", x), "told that it exists")
}

// 3. Once Close has returned nothing of the database touches the raw store: a
// collection is over.
func TestAttack_CloseDuringSweep(t *testing.T) {
	s := newSiege(t)
	p := blob("x", large)
	x := s.put("a", p)
	in, goOn := make(chan struct{}), make(chan struct{})
	s.raw.onBefore(func(call, subject string) {
		if call == "remove" && subject == x.String() {
			close(in)
			<-goOn
		}
	})
	var wg sync.WaitGroup
	db := s.db
	wg.Go(func() { _, _ = db.GarbageCollect(context.Background()) })
	<-in
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(2 * time.Second):
		close(goOn) // Close waits for the collection: fine
		wg.Wait()
		require.NoError(t, <-closed)
		s.raw.calm()
		require.NoError(t, s.blobs.Close())
		s.start()
		return
	}
	// Close did not wait. Open it anew over the same raw store, as one may.
	s.raw.before.Store(nil)
	again, err := metadata.Open(s.path, s.raw, s.opts)
	require.NoError(t, err)
	s.db = again
	s.put("a", p, withLabels(rootLabel, "1")) // acknowledged
	close(goOn)
	wg.Wait()
	s.unsound = true
	s.requireContent("a", p)
}

// 4. A collection that drops an ingestion while it marks does not wait for
// itself when the database has to grow.
func TestAttack_GrowDuringMark(t *testing.T) {
	c := newClock()
	raw := &seams{}
	gate := make(chan func(), 1)
	now := func() time.Time {
		select {
		case fn := <-gate:
			fn()
		default:
		}
		return c.now()
	}
	w := newWorld(t, func(w *world) { w.opts.Now = now }, withGrace(-1), withRaw(func(r cellar.RawStore) cellar.Store {
		raw.RawStore = r
		return raw
	}))
	require.NoError(t, w.begin("old", "old", blob("old", 10)).Close())
	c.step(25 * time.Hour)
	require.NoError(t, w.db.Mutate(t.Context(), putMeta("flush"))) // nothing is left for the background
	grown := make(chan error, 1)
	inMark := func() { // the clock is asked for in the mark, with the snapshot open
		started := make(chan struct{})
		go func() {
			grown <- w.db.Mutate(context.Background(), metadata.Mutation{Apply: func(tx *bolt.Tx) error {
				close(started)
				return tx.Bucket([]byte("meta")).Put([]byte("big"), make([]byte, 16<<20))
			}})
		}()
		<-started
		time.Sleep(500 * time.Millisecond) // until bolt waits to map more of the file
	}
	// The first question for the time is the collection's own at its beginning,
	// the second is in the mark.
	gate <- func() { gate <- inMark }
	done := make(chan error, 1)
	go func() {
		_, err := w.db.GarbageCollect(context.Background())
		done <- err
	}()
	select {
	case err := <-done:
		require.NoError(t, err)
		require.NoError(t, <-grown)
	case <-time.After(5 * time.Second):
		w.db, w.blobs = nil, nil // they can't be closed
		t.Fatal("collection and writer wait for one another")
	}
}

// 6. What a collection kept for a note alone - an answer, or a change that was
// undone - goes once nothing keeps it, although nothing has changed.
func TestAttack_RestAfterNotes(t *testing.T) {
	for _, grace := range []time.Duration{-1, 10 * time.Minute} {
		for _, how := range []string{"answer", "rolled back"} {
			t.Run(grace.String()+" "+how, func(t *testing.T) {
				s := newSiege(t, withGrace(grace))
				x := s.put("a", blob("x", small))
				s.lease("a", "l")
				require.NoError(t, s.db.Settle(t.Context()))
				s.c.step(48 * time.Hour)
				// The seam: a transaction of the collector's own, which is no change.
				s.lease("0", "over", leases.WithTTL(time.Minute))
				s.c.step(time.Hour)
				in, goOn := make(chan struct{}), make(chan struct{})
				first := true
				s.at(func(point string) error {
					if point == "before commit" && first {
						first = false
						close(in)
						<-goOn
					}
					return nil
				})
				var wg sync.WaitGroup
				wg.Go(func() { s.collect() })
				<-in // the snapshot is taken, leases of "0" are being dropped, "a" comes next
				switch how {
				case "answer":
					wg.Go(func() {
						_, err := s.ns("a").Writer(context.Background(), cellar.WithRef("r"), withDigest(x))
						requireClass(t, err, errExists)
					})
					time.Sleep(50 * time.Millisecond) // it has noted, and waits for the transaction
				case "rolled back":
					wg.Go(func() {
						_ = s.db.Update(context.Background(), func(ctx context.Context) error {
							_, err := s.ns("a").Update(ctx, cellar.Info{Digest: x, Labels: map[string]string{rootLabel: "1"}})
							return errors.Join(err, errors.New("no"))
						})
					})
					time.Sleep(50 * time.Millisecond)
				}
				close(goOn)
				wg.Wait()
				s.crash.Store(nil)
				if !s.has("a", x) {
					t.Skip("the note came late")
				}
				s.c.step(time.Hour) // every grace is over
				s.collect()
				require.False(t, s.has("a", x), "garbage is kept for ever")
			})
		}
	}
}

// 7. A grace period that ends now has ended: the next collection is not at rest.
func TestAttack_RestAtTheVeryEnd(t *testing.T) {
	s := newSiege(t, withGrace(10*time.Minute))
	x := s.put("a", blob("x", large))
	s.collect()
	info, err := s.ns("a").Info(t.Context(), x)
	require.NoError(t, err)
	end := info.CreatedAt.Add(10 * time.Minute)
	s.c.step(end.Sub(s.c.now())) // as a scheduler would wake
	s.collect()
	require.False(t, s.has("a", x))
}

// 8. Bytes that were in use when they were to be swept go with the next
// collection, although nothing has changed.
func TestAttack_RestAfterBusyDigest(t *testing.T) {
	s := newSiege(t, func(w *world) { w.opts.Policy = metadata.Shared })
	s.collect() // the first one reads the names of all blobs
	x := s.put("a", blob("x", large))
	s.delete("a", x)
	in, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	s.raw.onAfter(func(call, subject string) {
		if call == "info" && subject == x.String() && once.CompareAndSwap(false, true) {
			close(in)
			<-goOn
		}
	})
	var wg sync.WaitGroup
	var cw cellar.Writer
	wg.Go(func() { // asks whether it could take x over, which has another size
		cw = s.open("b", "r", cellar.WithDescriptor(describe(x, 5)))
	})
	<-in
	s.collect()
	require.Equal(t, []digest.Digest{x}, s.stored(), "in use")
	s.raw.calm()
	close(goOn)
	wg.Wait()
	s.collect()
	require.Empty(t, s.stored())
	require.NoError(t, cw.Close())
}
