package local

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

func TestW_C_SyncsOfOneSmallBlob(t *testing.T) {
	// From Writer to Commit one blob costs two syncs, its data's and its
	// directory's; opening the writer costs none, resuming neither, and a
	// duplicate none at all.
	r := newRig(t)
	r.put([]byte("blobs/sha256 is there"))
	before := r.fault.Syncs()
	w := r.open("r")
	require.Equal(t, before, r.fault.Syncs())
	r.write(w, []byte("small"))
	require.NoError(t, w.Commit(bg, 0, ""))
	require.Equal(t, before+2, r.fault.Syncs())
	w = r.open("again")
	r.write(w, []byte("small"))
	require.Error(t, w.Commit(bg, 0, ""))
	require.Equal(t, before+2, r.fault.Syncs())

	w = r.open("left")
	r.write(w, []byte("left"))
	require.NoError(t, w.Close())
	before = r.fault.Syncs()
	w = r.open("left")
	require.Equal(t, before, r.fault.Syncs())
	require.NoError(t, w.Close())
	require.Equal(t, before, r.fault.Syncs(), "nothing was written")
}

func TestDirectorySyncsAreShared(t *testing.T) {
	// While one sync of the directory runs the commits that come gather, and the
	// next sync serves them all.
	const writers = 16
	r := newRig(t)
	r.put([]byte("blobs/sha256 is there"))
	before := r.fault.Count(vfs.OpSyncDir)
	renames := r.fault.Count(vfs.OpRename)
	var once sync.Once
	r.fault.OnCall(func(op vfs.Op, _ string) error {
		if op == vfs.OpSyncDir {
			once.Do(func() { // the first one lasts until all others are in place
				for r.fault.Count(vfs.OpRename) < renames+writers {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(20 * time.Millisecond)
			})
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := pattern(byte(i), 100)
			w, err := r.Ingest(bg, fmt.Sprint(i), 0, "")
			require.NoError(t, err)
			_, err = w.Write(p)
			require.NoError(t, err)
			require.NoError(t, w.Commit(bg, 0, digest.FromBytes(p)))
		})
	}
	wg.Wait()
	require.LessOrEqual(t, r.fault.Count(vfs.OpSyncDir)-before, 3, "the first, the one for all others, one for a straggler")
	after := r.crashed()
	for i := range writers {
		after.requireContent(digest.FromBytes(pattern(byte(i), 100)), pattern(byte(i), 100))
	}
}

func TestPlaceSyncsNothingAndSettleEachOnce(t *testing.T) {
	// Place costs four calls and no sync; Settle one for each file and one for
	// the directory.
	r := newRig(t)
	r.put([]byte("blobs/sha256 is there"))
	var dgsts []digest.Digest
	syncs, calls := r.fault.Syncs(), r.fault.Count(vfs.OpAny)
	for i := range byte(20) {
		p := pattern(i, 100)
		dgsts = append(dgsts, digest.FromBytes(p))
		require.NoError(t, r.Place(bg, digest.FromBytes(p), p))
	}
	require.Equal(t, syncs, r.fault.Syncs())
	require.Equal(t, calls+20*4, r.fault.Count(vfs.OpAny))
	require.NoError(t, r.Settle(bg, dgsts))
	require.Equal(t, syncs+21, r.fault.Syncs())
	after := r.crashed()
	for i := range byte(20) {
		after.requireContent(dgsts[i], pattern(i, 100))
	}
	require.NoError(t, r.Settle(bg, nil))

	absent := digest.FromString("absent")
	err := r.Settle(bg, append(dgsts, absent))
	var se *cellar.SettleError
	require.ErrorAs(t, err, &se)
	require.Equal(t, absent, se.Digest)
}

func TestRemoveAndFlush(t *testing.T) {
	// Remove syncs nothing and tells the length; Flush makes many durable with
	// one sync, and costs none when there is nothing to do.
	r := newRig(t)
	var dgsts []digest.Digest
	for i := range byte(5) {
		dgsts = append(dgsts, r.put(pattern(i, 100+int(i))))
	}
	syncs := r.fault.Syncs()
	for i, dgst := range dgsts {
		n, err := r.Remove(bg, dgst)
		require.NoError(t, err)
		require.Equal(t, int64(100+i), n)
	}
	require.Equal(t, syncs, r.fault.Syncs())
	require.NoError(t, r.Flush(bg))
	require.Equal(t, syncs+1, r.fault.Syncs())
	require.NoError(t, r.Flush(bg))
	require.Equal(t, syncs+1, r.fault.Syncs())
	after := r.crashed()
	for _, dgst := range dgsts {
		_, err := after.Info(bg, dgst)
		require.Error(t, err)
	}
}

func TestConcurrentCommitsOfOneContent(t *testing.T) {
	// Many writers commit the same bytes at once, with deletes and placings in
	// between: every commit's bytes are right, and exactly those that found the
	// content there say so.
	r := newRig(t)
	data := pattern(1, 100_000)
	dgst := digest.FromBytes(data)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 10 {
				require.NoError(t, client(r.Store, fmt.Sprint(i), data))
				if p, err := readAll(r.Store, dgst); err == nil {
					require.Equal(t, dgst, digest.FromBytes(p))
				}
				switch (i + n) % 4 {
				case 0:
					_ = r.Delete(bg, dgst)
				case 1:
					require.NoError(t, r.Place(bg, dgst, data))
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, client(r.Store, "last", data))
	r.requireContent(dgst, data)
	require.Empty(t, r.refs.writers())
	list, err := r.ListStatuses(bg)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestJournalTellsPublicCommitsOnce(t *testing.T) {
	// Committed tells what came through Writer, once, and not what came through
	// Ingest or Place, was there, or is gone again.
	r := newRig(t)
	a := r.put([]byte("a"))
	b := r.put([]byte("b"))
	gone := r.put([]byte("gone"))
	require.NoError(t, r.Delete(bg, gone))
	put(t, r.Store, []byte("by Ingest"))
	require.NoError(t, r.Place(bg, digest.FromString("placed"), []byte("placed")))
	require.ElementsMatch(t, []digest.Digest{a, b}, r.Committed())
	require.Empty(t, r.Committed())
	w := r.open("again")
	r.write(w, []byte("a"))
	require.Error(t, w.Commit(bg, 0, ""))
	require.Empty(t, r.Committed())
}
