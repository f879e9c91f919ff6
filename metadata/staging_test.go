package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
	"github.com/cellarstore/cellar/metadata"
)

// W1: whatever a crash leaves under the digest of a small blob, opening puts
// the right bytes there before anybody reads them.
func TestW1_StagedBytesRestored(t *testing.T) {
	p := blob("staged", small)
	dgst := digest.FromBytes(p)
	left := map[string][]byte{
		"nothing": nil, "an empty file": {}, "half": p[:small/2], "zeros": make([]byte, small),
		"too long": append(append([]byte{}, p...), 0), "one byte flipped": append([]byte{p[0] ^ 1}, p[1:]...),
	}
	for name, bytes := range left {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put("a", p)
			w.die(w.mem.Clone)
			w.replaceBlob(dgst, bytes)
			w.start()
			w.requireContent("a", p)

			require.Contains(t, w.db.Staged(), dgst, "the file is not flushed yet")
			require.NoError(t, w.db.Settle(t.Context()))
			require.Empty(t, w.db.Staged())
		})
	}
}

// W1: a power loss at any moment after Commit leaves content and record, when
// the files are flushed and while they are not.
func TestW1_PowerLoss(t *testing.T) {
	for _, settle := range []bool{false, true} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("settled %v seed %d", settle, seed), func(t *testing.T) {
				w := newWorld(t)
				var all [][]byte
				for i, size := range []int{0, 1, small, metadata.SmallBlob, large, 1 << 20} {
					p := blob(fmt.Sprintf("%d/%d", i, seed), size)
					w.put("a", p)
					all = append(all, p)
				}
				if settle {
					require.NoError(t, w.db.Settle(t.Context()))
				}
				w.powerLoss(seed, float64(seed%3)/2)
				for _, p := range all {
					w.requireContent("a", p)
				}
				w.requireSound()
				w.powerLoss(seed, 0) // also right after opening
				for _, p := range all {
					w.requireContent("a", p)
				}
			})
		}
	}
}

// What is staged of a digest that nobody holds is not put back into place, and
// goes with the next collection.
func TestStagedWithoutHolder(t *testing.T) {
	w := newWorld(t)
	p := blob("unheld", small)
	dgst := w.put("a", p)
	w.delete("a", dgst)
	w.die(w.mem.Clone)
	w.replaceBlob(dgst, nil)
	w.start()
	require.Empty(t, w.stored())
	require.Contains(t, w.db.Staged(), dgst)
	w.collect()
	require.Empty(t, w.db.Staged())
	require.Zero(t, w.db.StagedBytes())
	require.Zero(t, w.db.Unheld())
	require.NoError(t, w.db.Close(), "nothing is left to flush")
	w.db, w.unsound = nil, true
	require.NoError(t, w.blobs.Close())
}

// pausingRaw lets a test do something while files are being flushed, and count
// what is placed.
type pausingRaw struct {
	cellar.RawStore
	beforeSettle func(dgsts []digest.Digest)
	afterSettle  func(dgsts []digest.Digest)
	placed       []digest.Digest
}

func (r *pausingRaw) Settle(ctx context.Context, dgsts []digest.Digest) error {
	if fn := r.beforeSettle; fn != nil {
		fn(dgsts)
	}
	err := r.RawStore.Settle(ctx, dgsts)
	if fn := r.afterSettle; fn != nil {
		fn(dgsts)
	}
	return err
}

func (r *pausingRaw) Place(ctx context.Context, dgst digest.Digest, p []byte) error {
	r.placed = append(r.placed, dgst)
	return r.RawStore.Place(ctx, dgst, p)
}

func newPausingWorld(t *testing.T) (*world, *pausingRaw) {
	raw := &pausingRaw{}
	return newWorld(t, withRaw(func(r cellar.RawStore) cellar.Store { raw.RawStore = r; return raw })), raw
}

// A blob that is staged again while the file that was there before is being
// flushed stays staged: that flush says nothing about the new file.
func TestRestagedDuringSettle(t *testing.T) {
	w, raw := newPausingWorld(t)
	p := blob("twice", small)
	dgst := w.put("a", p)
	first := w.db.Staged()[dgst]
	raw.afterSettle = func([]digest.Digest) {
		raw.afterSettle = nil
		w.delete("a", dgst)
		w.put("a", p) // nobody holds it, so it is placed and staged anew
	}
	require.NoError(t, w.db.Settle(t.Context()))
	require.Greater(t, w.db.Staged()[dgst], first, "the newer entry is kept")
	require.Len(t, raw.placed, 2)

	w.powerLoss(1, 0)
	w.requireContent("a", p)
	require.NoError(t, w.db.Settle(t.Context()))
	require.Empty(t, w.db.Staged())
	require.Zero(t, w.db.StagedBytes())
}

// That a file is missing which nobody holds any more is no failure: after a
// crash it may never have been there.
func TestSettleOfWhatIsGone(t *testing.T) {
	w := newWorld(t)
	p := blob("kept", small)
	w.put("a", p)
	w.delete("a", w.put("a", blob("gone", small)))
	w.powerLoss(1, 0)
	require.Len(t, w.stored(), 1)
	require.NoError(t, w.db.Settle(t.Context()))
	require.Len(t, w.db.Staged(), 1, "the other one is flushed")
	w.collect()
	require.Empty(t, w.db.Staged())
	w.requireContent("a", p)
}

// A file whose flush fails is written anew from the database and stays staged
// until a flush of the new file works.
func TestSettleFails(t *testing.T) {
	for name, op := range map[string]vfs.Op{"file": vfs.OpSync, "directory": vfs.OpSyncDir} {
		t.Run(name, func(t *testing.T) {
			w, raw := newPausingWorld(t)
			p, q := blob("p", small), blob("q", small)
			w.put("a", p)
			w.put("a", q)
			raw.placed = nil
			w.fault.FailFrom(op, 1, syscall.EIO)
			err := w.db.Settle(t.Context())
			require.ErrorIs(t, err, syscall.EIO)
			require.Len(t, w.db.Staged(), 2)
			require.ElementsMatch(t, []digest.Digest{digest.FromBytes(p), digest.FromBytes(q)}, raw.placed)
			w.requireContent("a", p)

			w.fault.Heal()
			w.powerLoss(1, 0) // the failed flush counts for nothing
			w.requireContent("a", p)
			w.requireContent("a", q)
			require.NoError(t, w.db.Settle(t.Context()))
			require.Empty(t, w.db.Staged())
			w.powerLoss(2, 0)
			w.requireContent("a", p)
			w.requireContent("a", q)
		})
	}
}

// One file whose flush fails does not keep the others in the database.
func TestSettleFailsForOne(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.put("a", blob(fmt.Sprint(i), small))
	}
	w.fault.Fail(vfs.OpSync, 1, syscall.EIO)
	require.ErrorIs(t, w.db.Settle(t.Context()), syscall.EIO)
	require.Len(t, w.db.Staged(), 1)
	require.NoError(t, w.db.Settle(t.Context()))
	require.Empty(t, w.db.Staged())
}

// Close leaves nothing staged; without Close it is staged still.
func TestCloseSettles(t *testing.T) {
	w := newWorld(t)
	p := blob("closed", small)
	dgst := w.put("a", p)
	require.Contains(t, w.db.Staged(), dgst)
	w.reopen()
	require.Empty(t, w.db.Staged())
	w.powerLoss(1, 0)
	w.requireContent("a", p)
}

// When too much is staged, small blobs take the way of large ones.
func TestStagingFull(t *testing.T) {
	w := newWorld(t)
	w.put("a", blob("first", small))
	require.NoError(t, w.db.Settle(t.Context()))
	w.db.FillStaging(metadata.StagingLimit)
	before := w.fault.Syncs()
	p := blob("flushed", small)
	dgst := w.put("a", p)
	require.Equal(t, 2, w.fault.Syncs()-before, "data and directory")
	require.NotContains(t, w.db.Staged(), dgst)
	w.db.FillStaging(-metadata.StagingLimit)
	staged := w.put("a", blob("staged", small))
	require.Contains(t, w.db.Staged(), staged)
	w.powerLoss(1, 0)
	w.requireContent("a", p)
}

// What is staged does not stay in the database: a few seconds later it is
// flushed, also what came while others were being flushed.
func TestSettlesInTheBackground(t *testing.T) {
	t.Parallel()
	w, raw := newPausingWorld(t)
	raw.beforeSettle = func([]digest.Digest) {
		raw.beforeSettle = nil
		w.put("a", blob("during", small))
	}
	w.put("a", blob("before", small))
	eventually(t, 10*metadata.SettleDelay, "nothing is staged", func() bool { return len(w.db.Staged()) == 0 })
}

// A digest that two namespaces hold is staged once, and survives as long as
// one of them holds it.
func TestStagedOnceForTwoHolders(t *testing.T) {
	w, raw := newPausingWorld(t)
	p := blob("shared", small)
	dgst := w.put("a", p)
	w.put("b", p)
	require.Len(t, raw.placed, 1, "the file is there and right")
	w.delete("a", dgst)
	w.collect()
	w.powerLoss(1, 0)
	w.requireContent("b", p)
	w.requireAbsent("a", dgst)
}

// A file that another namespace's record stands on, but that is wrong by now,
// is replaced by who sends the right bytes.
func TestCommitHealsHeldFile(t *testing.T) {
	w := newWorld(t)
	p := blob("healed", small)
	dgst := w.put("a", p)
	require.NoError(t, w.db.Settle(t.Context()))
	w.replaceBlob(dgst, make([]byte, small))
	w.put("b", p)
	w.requireContent("a", p)
	w.requireContent("b", p)
	w.powerLoss(1, 0)
	w.requireContent("a", p)
}

// A write that is lost with a failed Settle does not fail Close for ever: the
// error is returned once and the next open goes on.
func TestCloseReportsFailedSettle(t *testing.T) {
	w := newWorld(t)
	p := blob("p", small)
	w.put("a", p)
	w.fault.FailFrom(vfs.OpSync, 1, &fs.PathError{Op: "fsync", Err: syscall.EIO})
	require.ErrorIs(t, w.db.Close(), syscall.EIO)
	w.fault.Heal()
	require.NoError(t, w.blobs.Close())
	w.start()
	w.requireContent("a", p)
	require.Len(t, w.db.Staged(), 1)
}

// Staged bytes count once, however often a digest is committed, and are gone
// from the count with the entry.
func TestStagedBytesAreCounted(t *testing.T) {
	w := newWorld(t)
	p := blob("p", small)
	dgst := w.put("a", p)
	require.Equal(t, small, w.db.StagedBytes())
	w.delete("a", dgst)
	w.put("a", p)
	require.Equal(t, small, w.db.StagedBytes())
	w.kill()
	require.Equal(t, small, w.db.StagedBytes())
	w.delete("a", dgst)
	w.collect()
	require.Zero(t, w.db.StagedBytes())
	require.Empty(t, w.stored())
}

// The database refuses to be opened rather than guess if a staged entry can't
// be put into place.
func TestReplayFails(t *testing.T) {
	w := newWorld(t)
	p := blob("p", small)
	dgst := w.put("a", p)
	w.die(w.mem.Clone)
	w.replaceBlob(dgst, nil)
	w.wrap = func(r cellar.RawStore) cellar.Store { return placeFails{r} }
	err := w.tryStart()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotErrorIs(t, err, errNotFound)
	w.wrap = nil
	w.start()
	w.requireContent("a", p)
}

type placeFails struct{ cellar.RawStore }

func (placeFails) Place(context.Context, digest.Digest, []byte) error {
	return errors.Join(errExhausted, syscall.ENOSPC)
}
