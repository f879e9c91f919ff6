package metadata_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
	"github.com/cellarstore/cellar/metadata"
)

func (r *guardedRaw) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	return r.look().Info(ctx, dgst)
}

func (r *guardedRaw) Walk(ctx context.Context, fn cellar.WalkFunc, fs ...string) error {
	return r.look().Walk(ctx, fn, fs...)
}

func (r *guardedRaw) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	return r.look().ReaderAt(ctx, desc)
}

func (r *guardedRaw) Status(ctx context.Context, ref string) (cellar.Status, error) {
	return r.look().Status(ctx, ref)
}

func (r *guardedRaw) ListStatuses(ctx context.Context, fs ...string) ([]cellar.Status, error) {
	return r.look().ListStatuses(ctx, fs...)
}

func (r *guardedRaw) Abort(ctx context.Context, ref string) error { return r.look().Abort(ctx, ref) }

func (r *guardedRaw) Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (cellar.Writer, error) {
	cw, err := r.look().Ingest(ctx, ref, total, alg)
	if err != nil {
		return nil, err
	}
	return &guardedWriter{cw, r}, nil
}

func (r *guardedRaw) Place(ctx context.Context, dgst digest.Digest, p []byte) error {
	return r.look().Place(ctx, dgst, p)
}

func (r *guardedRaw) Settle(ctx context.Context, dgsts []digest.Digest) error {
	return r.look().Settle(ctx, dgsts)
}

func (r *guardedRaw) Remove(ctx context.Context, dgst digest.Digest) (int64, error) {
	return r.look().Remove(ctx, dgst)
}

func (r *guardedRaw) Committed() []digest.Digest { return r.look().Committed() }

type guardedWriter struct {
	cellar.Writer
	r *guardedRaw
}

func (w *guardedWriter) Write(p []byte) (int, error) { w.r.look(); return w.Writer.Write(p) }

func (w *guardedWriter) Close() error { w.r.look(); return w.Writer.Close() }

func (w *guardedWriter) Truncate(size int64) error { w.r.look(); return w.Writer.Truncate(size) }

func (w *guardedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	w.r.look()
	return w.Writer.Commit(ctx, size, expected, opts...)
}

// W-A6, P2: the raw store is not called while a write transaction is open, by
// no operation.
func TestW_A6_NoFilesInsideTransactions(t *testing.T) {
	raw := &guardedRaw{}
	w := newWorld(t, withPolicy(metadata.Shared), withRaw(func(r cellar.RawStore) cellar.Store {
		raw.RawStore = r
		return raw
	}))
	for _, size := range []int{small, large} {
		p := blob("p", size)
		dgst := w.put("a", p)
		w.put("b", p)
		cw := w.open("c", "shared", withDigest(dgst))
		require.NoError(t, cw.Commit(t.Context(), 0, ""))
		require.NoError(t, w.begin("a", "left", p).Close())
		require.NoError(t, w.open("a", "left").Truncate(0))
		require.NoError(t, w.ns("a").Abort(t.Context(), "left"))
		_, err := w.ns("a").Update(t.Context(), cellar.Info{Digest: dgst, Labels: map[string]string{"k": "v"}})
		require.NoError(t, err)
		require.NoError(t, w.db.Update(t.Context(), func(ctx context.Context) error {
			w.putIn(ctx, "d", blob("inside", size))
			return w.ns("a").Delete(ctx, dgst)
		}))
		require.NoError(t, w.db.Namespaces().Delete(t.Context(), "b", withContent()))
		cw = w.begin("c", "open", p)
		w.collect()
		require.NoError(t, cw.Close())
	}
	require.NoError(t, w.db.Settle(t.Context()))
	w.reopen()
	w.requireSound()
	require.Greater(t, raw.calls, 40)
	require.Empty(t, raw.bad)

	require.NoError(t, w.db.Mutate(t.Context(), metadata.Mutation{Apply: func(*bolt.Tx) error {
		raw.Committed()
		return nil
	}}))
	require.NotEmpty(t, raw.bad, "this test can't fail")
}

// W-A7: waiting for a busy ref takes no transactions and no polling: the waiter
// is woken.
func TestW_A7_WaitingIsWoken(t *testing.T) {
	w := newWorld(t)
	cw := w.begin("a", "busy", blob("busy", small))
	before := w.txs.Load()
	opened := make(chan error, 1)
	go func() {
		next, err := cellar.OpenWriter(t.Context(), w.ns("a"), cellar.WithRef("busy"))
		if err == nil {
			err = next.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened a busy ref: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	require.Equal(t, before, w.txs.Load())
	require.NoError(t, cw.Commit(t.Context(), 0, ""))
	within(t, 5*time.Second, func() { require.NoError(t, <-opened) })
}

// W-B2: describing content costs a few small allocations, however many
// namespaces and labels there are.
func TestW_B2_InfoIsCheap(t *testing.T) {
	w := newWorld(t)
	labels := map[string]string{"a": "1", "b": "2"}
	dgst := w.put("a", blob("p", small), cellar.WithLabels(labels))
	store := w.ns("a")
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := store.Info(context.Background(), dgst); err != nil {
			t.Error(err)
		}
	})
	t.Logf("Info takes %v allocations", allocs)
	require.LessOrEqual(t, allocs, 20.0)
}

// W-B3, P5: no transaction and no lock lives while Walk's function runs: it may
// write, delete what is walked, and even close the database.
func TestW_B3_WalkHoldsNothing(t *testing.T) {
	w := newWorld(t)
	const n = 600 // more than two pages
	require.NoError(t, w.db.Update(t.Context(), func(ctx context.Context) error {
		for i := range n {
			w.putIn(ctx, "a", fmt.Append(nil, i))
		}
		return nil
	}))
	var seen []digest.Digest
	within(t, time.Minute, func() {
		require.NoError(t, w.ns("a").Walk(t.Context(), func(info cellar.Info) error {
			seen = append(seen, info.Digest)
			if len(seen)%100 == 0 {
				w.put("b", fmt.Append(nil, "written", len(seen)))
				w.delete("a", info.Digest)
			}
			return nil
		}))
	})
	require.Len(t, seen, n)
	require.Equal(t, inOrder(seen...), seen)

	db := w.db
	within(t, time.Minute, func() {
		err := w.ns("a").Walk(t.Context(), func(cellar.Info) error { return db.Close() })
		requireClass(t, err, errPrecondition)
	})
	require.NoError(t, w.blobs.Close())
	w.start()
}

// W-B6: listing ingestions reads no files.
func TestW_B6_ListingReadsNoFiles(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		require.NoError(t, w.begin("a", fmt.Sprint(i), blob("p", small)).Close())
	}
	open := w.begin("a", "open", blob("p", large))
	before := w.fault.Count(vfs.OpAny)
	require.Len(t, w.listed("a"), 21)
	_, err := w.ns("a").Status(t.Context(), "3")
	require.NoError(t, err)
	require.Equal(t, before, w.fault.Count(vfs.OpAny))
	require.NoError(t, open.Close())
}

// W-E1: the first content of an algorithm survives a power loss with its
// record, the new directory included.
func TestW_E1_FirstOfAnAlgorithm(t *testing.T) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		for _, size := range []int{0, small, large} {
			t.Run(fmt.Sprintf("%s %d", alg, size), func(t *testing.T) {
				w := newWorld(t)
				p := blob("first", size)
				dgst := alg.FromBytes(p)
				cw := w.open("a", "r", withDigest(dgst))
				w.write(cw, p)
				require.NoError(t, cw.Commit(t.Context(), int64(size), dgst))
				require.NoError(t, w.db.Settle(t.Context()))
				w.powerLoss(3, 0)
				w.requireContentUnder("a", dgst, p)
			})
		}
	}
}

// W-F1: resuming a large ingestion keeps nobody else waiting.
func TestW_F1_ResumeBlocksNobody(t *testing.T) {
	raw := &slowRaw{entered: make(chan struct{}), goOn: make(chan struct{})}
	w := newWorld(t, withRaw(func(r cellar.RawStore) cellar.Store { raw.RawStore = r; return raw }))
	require.NoError(t, w.begin("a", "slow", blob("slow", large)).Close())
	raw.ref = "a/slow"
	resumed := make(chan error, 1)
	go func() {
		cw, err := w.ns("a").Writer(context.Background(), cellar.WithRef("slow"))
		if err == nil {
			err = cw.Close()
		}
		resumed <- err
	}()
	<-raw.entered
	within(t, 10*time.Second, func() {
		w.put("b", blob("b", large))
		w.put("a", blob("a", small))
		require.Len(t, w.listed("b"), 0)
		_ = w.listed("a")
		w.collect()
	})
	close(raw.goOn)
	require.NoError(t, <-resumed)
}

// slowRaw opens one ingestion slowly.
type slowRaw struct {
	cellar.RawStore
	ref           string
	entered, goOn chan struct{}
}

func (r *slowRaw) Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (cellar.Writer, error) {
	if ref == r.ref {
		close(r.entered)
		<-r.goOn
	}
	return r.RawStore.Ingest(ctx, ref, total, alg)
}

// W-F2: content of another algorithm than sha256 is hashed once: Commit reads
// nothing back.
func TestW_F2_Sha512HashedOnce(t *testing.T) {
	w := newWorld(t)
	for _, alg := range []digest.Algorithm{digest.SHA384, digest.SHA512} {
		p := blob("hashed once", 1<<20)
		dgst := alg.FromBytes(p)
		before := w.fault.BytesRead("data")
		cw := w.open("a", alg.String(), withDigest(dgst))
		w.write(cw, p)
		require.Equal(t, dgst, cw.Digest())
		require.NoError(t, cw.Commit(t.Context(), int64(len(p)), dgst))
		require.Zero(t, w.fault.BytesRead("data")-before)
		w.requireContentUnder("a", dgst, p)
	}
}

// A commit under another algorithm than the writer's is hashed again and right.
func TestCommitUnderAnotherAlgorithm(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{small, large} {
		p := blob("other algorithm", size)
		dgst := digest.SHA512.FromBytes(p)
		require.NoError(t, w.begin("a", "r", p).Commit(t.Context(), 0, dgst))
		w.requireContentUnder("a", dgst, p)
		w.requireAbsent("a", digest.FromBytes(p))
	}
}
