package local

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// client writes data by ref in several pieces, some of them large, leaving the
// ingestion and coming back once, and commits it, as a program would that knows
// nothing but the contract. It gives up at the first error.
func client(s *Store, ref string, data []byte) error {
	w, err := s.Writer(bg, cellar.WithRef(ref))
	if err != nil {
		return err
	}
	defer w.Close()
	if err := feed(w, data[:len(data)/2]); err != nil {
		return err
	}
	if err := w.(cellar.Syncer).Sync(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if w, err = s.Writer(bg, cellar.WithRef(ref)); err != nil {
		return err
	}
	defer w.Close()
	if err := feed(w, data); err != nil {
		return err
	}
	err = w.Commit(bg, int64(len(data)), digest.FromBytes(data))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// feed writes what of data the writer does not have yet.
func feed(w cellar.Writer, data []byte) error {
	st, err := w.Status()
	if err != nil {
		return err
	}
	for off := st.Offset; off < int64(len(data)); {
		n, err := w.Write(data[off:min(off+hashBeside+1, int64(len(data)))])
		off += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// requireClassed wants an error to belong to the contract.
func requireClassed(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, err, fserr.Class(err), "no class: %v", err)
	require.False(t, errdefs.IsInternal(err), "class Internal: %v", err)
}

func TestEveryCallFails(t *testing.T) {
	// Whichever call fails on the way from Writer to Commit, once: the error has
	// a class, no ref stays locked, what is visible is right, a retry works, and
	// what it acknowledges survives a power loss. No descriptor is leaked.
	data := pattern(3, 150_000)
	dgst := digest.FromBytes(data)
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} {
		for _, op := range vfs.Ops() {
			t.Run(fmt.Sprintf("%v/%v", op, errno), func(t *testing.T) {
				for n, hit := 1, true; hit; n++ {
					require.Less(t, n, 500)
					r := newRig(t)
					idle := r.fault.Handles()
					r.fault.Fail(op, n, errno)
					err := client(r.Store, "r", data)
					hit = r.fault.Heal()
					if err != nil {
						requireClassed(t, err)
						require.ErrorIs(t, err, errno)
						r.requireHonest()
						require.NoError(t, client(r.Store, "r", data), "retry after failure %d", n)
					}
					r.requireContent(dgst, data)
					require.LessOrEqual(t, r.fault.Handles(), idle+1, "blobs/sha256 may have been opened")
					r.crashed().requireContent(dgst, data)
					require.NoError(t, r.Close())
					require.Zero(t, r.fault.Handles())
				}
			})
		}
	}
}

// requireHonest wants no ref to be held and everything visible to be right.
func (r *rig) requireHonest() {
	r.t.Helper()
	require.Empty(r.t, r.refs.writers())
	require.NoError(r.t, r.Walk(bg, func(info cellar.Info) error {
		p, err := readAll(r.Store, info.Digest)
		require.NoError(r.t, err)
		require.Equal(r.t, info.Digest, info.Digest.Algorithm().FromBytes(p))
		return nil
	}))
	_, err := r.ListStatuses(bg)
	require.NoError(r.t, err)
}

func TestEveryCallFailsForAWhile(t *testing.T) {
	// The same when from one call on all of a kind fail, until they work again.
	data := pattern(3, 150_000)
	dgst := digest.FromBytes(data)
	for _, op := range vfs.Ops() {
		t.Run(op.String(), func(t *testing.T) {
			for n, hit := 1, true; hit; n++ {
				require.Less(t, n, 500)
				r := newRig(t)
				r.fault.FailFrom(op, n, syscall.EIO)
				err := client(r.Store, "r", data)
				hit = r.fault.Heal()
				if err != nil {
					requireClassed(t, err)
					r.requireHonest()
					require.NoError(t, client(r.Store, "r", data))
				}
				r.requireContent(dgst, data)
				r.crashed().requireContent(dgst, data)
				require.NoError(t, r.Close())
				require.Zero(t, r.fault.Handles())
			}
		})
	}
}

func TestEveryCallOfOpenFails(t *testing.T) {
	// Whichever call fails in Open: an error with a class or a store that works,
	// nothing left open, and the next Open works.
	for n, hit := 1, true; hit; n++ {
		mem := vfs.NewMem()
		fault := vfs.NewFault(mem)
		fault.Fail(vfs.OpAny, n, syscall.EIO)
		s, err := Open("/a/b", Options{FS: fault})
		hit = fault.Heal()
		if err != nil {
			requireClassed(t, err)
			require.Zero(t, fault.Handles())
			s, err = Open("/a/b", Options{FS: fault})
			require.NoError(t, err)
		}
		require.NoError(t, client(s, "r", pattern(1, 100)))
		require.NoError(t, s.Close())
		require.Zero(t, fault.Handles())
	}
}

func TestEveryCallOfPlaceAndSettleFails(t *testing.T) {
	// Whichever call fails in Place and Settle: each failed digest is named, the
	// others are settled, and placing again heals.
	blobs := map[digest.Digest][]byte{}
	var dgsts []digest.Digest
	for i := range byte(5) {
		p := pattern(i, 1000)
		blobs[digest.FromBytes(p)] = p
		dgsts = append(dgsts, digest.FromBytes(p))
	}
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		for n, hit := 1, true; hit; n++ {
			r := newRig(t)
			r.fault.Fail(vfs.OpAny, n, errno)
			bad := map[digest.Digest]bool{}
			for _, dgst := range dgsts {
				if err := r.Place(bg, dgst, blobs[dgst]); err != nil {
					requireClassed(t, err)
					bad[dgst] = true
				}
			}
			for _, e := range settleErrors(t, r.Settle(bg, dgsts)) {
				bad[e.Digest] = true
			}
			hit = r.fault.Heal()
			after := r.crashed()
			for _, dgst := range dgsts {
				if !bad[dgst] {
					after.requireContent(dgst, blobs[dgst])
					continue
				}
				require.NoError(t, r.Place(bg, dgst, blobs[dgst]))
			}
			require.NoError(t, r.Settle(bg, dgsts))
			after = r.crashed()
			for _, dgst := range dgsts {
				after.requireContent(dgst, blobs[dgst])
			}
		}
	}
}

// settleErrors takes the error of Settle apart.
func settleErrors(t *testing.T, err error) []*cellar.SettleError {
	if err == nil {
		return nil
	}
	var out []*cellar.SettleError
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var se *cellar.SettleError
		require.True(t, errors.As(e, &se))
		requireClassed(t, se.Err)
		out = append(out, se)
	}
	return out
}

func TestT3_FailedSyncCondemnsTheData(t *testing.T) {
	// After a failed sync of ingest data the writer is done for, in Close, Sync,
	// Commit and beside writing; its bytes are never synced again nor resumed,
	// and the ref starts from zero in a new file.
	data := pattern(4, 30_000)
	dgst := digest.FromBytes(data)
	for name, row := range map[string]struct {
		op   vfs.Op
		call func(w *writer) error
	}{
		"Close":  {vfs.OpSync, func(w *writer) error { return w.Close() }},
		"Sync":   {vfs.OpSync, func(w *writer) error { return w.Sync() }},
		"Commit": {vfs.OpSync, func(w *writer) error { return w.Commit(bg, 0, dgst) }},
		"beside writing": {vfs.OpDatasync, func(w *writer) error {
			for {
				if _, err := w.Write(data); err != nil {
					return err
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.open("r")
			r.write(w, data[:5000])
			r.fault.Fail(row.op, 1, syscall.EIO)
			err := row.call(w)
			require.True(t, errdefs.IsDataLoss(err), "%v", err)
			require.True(t, r.fault.Heal())
			syncs := r.fault.Count(vfs.OpSync) + r.fault.Count(vfs.OpDatasync)

			_, err = w.Write([]byte("more"))
			require.True(t, errdefs.IsDataLoss(err), "%v", err)
			require.True(t, errdefs.IsDataLoss(w.Truncate(0)))
			require.True(t, errdefs.IsDataLoss(w.Commit(bg, 0, "")))
			_ = w.Close()
			require.Equal(t, syncs, r.fault.Count(vfs.OpSync)+r.fault.Count(vfs.OpDatasync), "synced again")
			_, err = r.Status(bg, "r")
			require.True(t, errdefs.IsNotFound(err), "%v", err)

			w = r.open("r")
			require.Zero(t, w.offset())
			r.write(w, data)
			require.NoError(t, w.Commit(bg, 0, dgst))
			r.crashed().requireContent(dgst, data)
		})
	}
}

func TestT3_CondemnedDataThatCannotBeRemoved(t *testing.T) {
	// Data whose sync failed is not resumed even if it could not be removed.
	r := newRig(t)
	w := r.open("r")
	r.write(w, pattern(1, 5000))
	r.fault.OnCall(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync || op == vfs.OpRemove {
			return syscall.EIO
		}
		return nil
	})
	require.True(t, errdefs.IsDataLoss(w.Close()))
	_, err := r.Status(bg, "r")
	require.True(t, errdefs.IsNotFound(err))
	_, err = r.Writer(bg, cellar.WithRef("r"))
	require.True(t, errdefs.IsDataLoss(err), "%v", err)
	r.fault.OnCall(nil)
	require.Zero(t, r.open("r").offset())
}

func TestW_D3_FailureAfterTheChecksLeavesTheData(t *testing.T) {
	// When placing or the sync of the directory fails, the ingestion is still
	// there with all its bytes, nothing is visible, and Commit needs no upload.
	data := pattern(5, 20_000)
	dgst := digest.FromBytes(data)
	for _, op := range []vfs.Op{vfs.OpRename, vfs.OpChmod, vfs.OpSetModTime, vfs.OpSyncDir} {
		t.Run(op.String(), func(t *testing.T) {
			r := newRig(t)
			r.put([]byte("blobs/sha256 is there"))
			w := r.open("r")
			r.write(w, data)
			r.fault.Fail(op, 1, syscall.EIO)
			require.Error(t, w.Commit(bg, 0, dgst))
			require.True(t, r.fault.Heal())
			_, err := r.Info(bg, dgst)
			require.True(t, errdefs.IsNotFound(err), "%v", err)
			w = r.open("r")
			require.Equal(t, int64(20_000), w.offset())
			require.NoError(t, w.Commit(bg, 0, dgst))
			r.crashed().requireContent(dgst, data)
		})
	}
}

func TestFailedDirectorySyncOfAReplacement(t *testing.T) {
	// If the sync fails after the file replaced one of its size, the content
	// stays: it may have been relied on. It is not trusted: the next Commit
	// writes it again.
	data := pattern(5, 20_000)
	r := newRig(t)
	dgst := r.put(data)
	r = r.killed()
	r.checkpointEvery = 1 << 30
	w, err := r.Ingest(bg, "r", 0, "")
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	r.fault.Fail(vfs.OpSyncDir, 1, syscall.EIO)
	require.Error(t, w.Commit(bg, 0, dgst))
	r.requireContent(dgst, data)
	r.crashed().requireContent(dgst, data)
	before := r.fault.Count(vfs.OpRename)
	require.NoError(t, client(r.Store, "again", data))
	require.Equal(t, before+1, r.fault.Count(vfs.OpRename))
	r.crashed().requireContent(dgst, data)
}

func TestW_R9_ShortWriteCountsWhatWasWritten(t *testing.T) {
	// After a write that was cut short, offset, digest and file agree, and the
	// writer goes on from there.
	for _, size := range []int{1000, hashBeside * 2} {
		r := newRig(t)
		w := r.open("r")
		data := pattern(6, size)
		r.fault.Fail(vfs.OpWrite, 1, syscall.ENOSPC)
		n, err := w.Write(data)
		require.True(t, errdefs.IsResourceExhausted(err), "%v", err)
		require.Equal(t, size/2, n)
		st, _ := w.Status()
		require.Equal(t, int64(n), st.Offset)
		require.Equal(t, digest.FromBytes(data[:n]), w.Digest())
		require.Len(t, r.readFile(w.dataPath()), n)
		r.write(w, data[n:])
		require.NoError(t, w.Commit(bg, int64(size), digest.FromBytes(data)))
		r.requireContent(digest.FromBytes(data), data)
	}
}

func TestDeleteIsDurableOrSaysSo(t *testing.T) {
	// A Delete whose sync fails returns the error, and the next one, which finds
	// nothing, is only NotFound when the removal is durable.
	r := newRig(t)
	dgst := r.put([]byte("content"))
	r.fault.FailFrom(vfs.OpSyncDir, 1, syscall.EIO)
	require.True(t, errdefs.IsDataLoss(r.Delete(bg, dgst)))
	require.True(t, errdefs.IsDataLoss(r.Delete(bg, dgst)))
	r.fault.Heal()
	require.True(t, errdefs.IsNotFound(r.Delete(bg, dgst)))
}
