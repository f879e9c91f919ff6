package local

// Tests that are named after a weakness of the peer (W) and would catch it here.

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

var malformed = []digest.Digest{
	"x", "sha256", "sha256:", ":", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../../etc/passwd",
	digest.Digest("sha256:" + string(make([]byte, 64))), "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
}

func TestW_R1_MalformedDigests(t *testing.T) {
	// A malformed digest is InvalidArgument in every method and never a panic;
	// only an empty one means unknown where that is possible.
	r := newRig(t)
	for _, dgst := range malformed {
		_, err := r.Info(bg, dgst)
		require.True(t, errdefs.IsInvalidArgument(err), "%q: %v", dgst, err)
		_, err = r.ReaderAt(bg, ocispec.Descriptor{Digest: dgst})
		require.True(t, errdefs.IsInvalidArgument(err))
		_, err = r.Update(bg, cellar.Info{Digest: dgst})
		require.True(t, errdefs.IsInvalidArgument(err))
		require.True(t, errdefs.IsInvalidArgument(r.Delete(bg, dgst)))
		_, err = r.Remove(bg, dgst)
		require.True(t, errdefs.IsInvalidArgument(err))
		require.True(t, errdefs.IsInvalidArgument(r.Place(bg, dgst, nil)))
		require.True(t, errdefs.IsInvalidArgument(r.Settle(bg, []digest.Digest{dgst})))
		_, err = r.Writer(bg, cellar.WithRef("r"), desc(dgst, 0))
		require.True(t, errdefs.IsInvalidArgument(err))
		w := r.open("r")
		require.True(t, errdefs.IsInvalidArgument(w.Commit(bg, 0, dgst)))
		require.NoError(t, r.open("r").Close())
	}
	_, err := r.Ingest(bg, "r", 0, "md5")
	require.True(t, errdefs.IsInvalidArgument(err))
}

func TestW_R2_AnotherTotalStartsWithAnEmptyFile(t *testing.T) {
	// Reopening with another known total leaves nothing of the old bytes.
	r := newRig(t)
	w := r.open("r", desc("", 50))
	r.write(w, pattern(1, 50))
	require.NoError(t, w.Close())
	w = r.open("r", desc("", 10))
	require.Zero(t, w.offset())
	require.Empty(t, r.readFile(w.dataPath()))
	require.NoError(t, w.Commit(bg, 0, ""))
	r.requireContent(digest.FromString(""), nil)
}

func TestW_R3_LockTheft(t *testing.T) {
	// A writer that has lost its ref, by Commit, Close or Abort, can't free it
	// for a second time under another's hands.
	for name, end := range map[string]func(r *rig, w *writer){
		"commit": func(r *rig, w *writer) { require.NoError(r.t, w.Commit(bg, 0, "")) },
		"close":  func(r *rig, w *writer) { require.NoError(r.t, w.Close()) },
		"abort":  func(r *rig, w *writer) { require.NoError(r.t, r.Abort(bg, "r")) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			first := r.open("r")
			r.write(first, []byte("first"))
			end(r, first)
			second := r.open("r")
			require.Error(t, first.Commit(bg, 0, ""))
			require.NoError(t, first.Close())
			_, err := r.Writer(bg, cellar.WithRef("r"))
			var locked *cellar.LockedError
			require.ErrorAs(t, err, &locked)
			require.True(t, errdefs.IsUnavailable(err))
			require.NoError(t, second.Close())
		})
	}
}

func TestRefTokens(t *testing.T) {
	// A hold that has ended frees nothing, whoever has the ref now.
	var refs refTable
	first, err := refs.take("r", time.Now())
	require.NoError(t, err)
	refs.release(first)
	second, err := refs.take("r", time.Now())
	require.NoError(t, err)
	refs.release(first)
	_, err = refs.take("r", time.Now())
	require.True(t, errdefs.IsUnavailable(err))
	refs.release(second)
	require.Nil(t, refs.holder("r"))
}

func TestW_R4_CommitOptionThatFails(t *testing.T) {
	// The error of a commit option is returned as it is; nothing is committed,
	// no descriptor stays open, the ref is free and the data kept.
	r := newRig(t)
	idle := r.fault.Handles()
	w := r.open("r")
	r.write(w, []byte("data"))
	mine := errors.New("mine")
	err := w.Commit(bg, 0, "", func(*cellar.Info) error { return mine })
	require.ErrorIs(t, err, mine)
	require.Equal(t, idle, r.fault.Handles())
	_, err = r.Info(bg, digest.FromString("data"))
	require.True(t, errdefs.IsNotFound(err))
	require.Equal(t, int64(4), r.open("r").offset())
}

func TestC46_WalkWhileContentComesAndGoes(t *testing.T) {
	// fn may delete and commit; what stays is told exactly once.
	r := newRig(t)
	kept := map[digest.Digest]int{}
	for i := range byte(40) {
		kept[r.put(pattern(i, 100))] = 0
	}
	n := 0
	require.NoError(t, r.Walk(bg, func(info cellar.Info) error {
		kept[info.Digest]++
		require.NoError(t, r.Delete(bg, info.Digest))
		n++
		r.put(pattern(100+byte(n), 100))
		return nil
	}))
	for dgst, seen := range kept {
		require.LessOrEqual(t, seen, 1, dgst)
	}
}

func TestW_R10_IngestAndBlobsRemovedAtRunTime(t *testing.T) {
	// Somebody removes ingest/ or blobs/ under a running store: the next writer
	// makes them again.
	for _, gone := range []string{"ingest", "blobs", "blobs/sha256"} {
		r := newRig(t)
		r.put([]byte("before"))
		require.NoError(t, vfs.RemoveAll(r.mem, filepath.Join(r.root, gone)))
		_, err := r.ListStatuses(bg)
		require.NoError(t, err)
		require.NoError(t, r.Walk(bg, func(cellar.Info) error { return nil }))
		dgst := r.put([]byte("after"))
		r.crashed().requireContent(dgst, []byte("after"))
		require.NoError(t, vfs.RemoveAll(r.mem, filepath.Join(r.root, gone)))
		require.NoError(t, r.Place(bg, dgst, []byte("after")))
		require.NoError(t, r.Settle(bg, []digest.Digest{dgst}))
		r.crashed().requireContent(dgst, []byte("after"))
	}
}

func TestW_R11_NoDescriptorIsLeaked(t *testing.T) {
	// After a thousand commits, duplicates, aborts and reads the number of open
	// handles is what it was.
	r := newRig(t)
	r.put([]byte("x"))
	idle := r.fault.Handles()
	for i := range 250 {
		p := pattern(byte(i), 10+i/3)
		require.NoError(t, client(r.Store, "r", p))
		r.open("aborted")
		require.NoError(t, r.Abort(bg, "aborted"))
		_, err := readAll(r.Store, digest.FromBytes(p))
		require.NoError(t, err)
	}
	require.Equal(t, idle, r.fault.Handles())
}

func TestW_D1_D8_UploadGoesOnAfterACrash(t *testing.T) {
	// Killed or without power just after the bytes are in place, without the
	// answer: storing the content again works, from whatever is left.
	data := pattern(1, 20_000)
	for _, op := range []vfs.Op{vfs.OpSyncDir, vfs.OpRemove} {
		r := newRig(t)
		r.put([]byte("blobs/sha256 is there"))
		w := r.open("r")
		r.write(w, data)
		var after []*vfs.Mem
		r.fault.OnCall(func(at vfs.Op, _ string) error {
			if at == op {
				after = append(after, r.mem.Clone(), r.mem.CrashClone(nil, 0), r.mem.CrashClone(nil, 1))
			}
			return nil
		})
		require.NoError(t, w.Commit(bg, 0, ""))
		r.fault.OnCall(nil)
		require.NotEmpty(t, after)
		for _, mem := range after {
			r := openRig(t, mem)
			require.NoError(t, client(r.Store, "r", data))
			r.requireContent(digest.FromBytes(data), data)
		}
	}
}

func TestW_D7_DebrisIsNotTrusted(t *testing.T) {
	// What lies under a digest and is not its content is replaced, whatever its
	// size and kind, by Writer, Ingest and Place; right bytes are told as such.
	data := []byte("the right bytes")
	dgst := digest.FromBytes(data)
	for name, row := range map[string]struct {
		debris string
		err    error // of the public Commit
	}{
		"empty":                   {"", nil},
		"shorter":                 {"the right", nil},
		"longer":                  {"the right bytes and more", nil},
		"right size, wrong bytes": {"the wrong bytes", errdefs.ErrAlreadyExists},
		"right":                   {"the right bytes", errdefs.ErrAlreadyExists},
	} {
		t.Run(name, func(t *testing.T) {
			debris := func() *rig {
				r := newRig(t)
				r.put([]byte("blobs/sha256 is there"))
				f, err := r.mem.OpenFile(r.blobPath(dgst), os.O_CREATE|os.O_RDWR, 0o400)
				require.NoError(t, err)
				_, err = f.WriteAt([]byte(row.debris), 0)
				require.NoError(t, err)
				return r
			}
			r := debris()
			w := r.open("r")
			r.write(w, data)
			if row.err == nil {
				require.NoError(t, w.Commit(bg, 0, dgst))
				require.Contains(t, r.Committed(), dgst)
			} else {
				require.ErrorIs(t, w.Commit(bg, 0, dgst), row.err)
			}
			r.requireContent(dgst, data)
			r.crashed().requireContent(dgst, data)
			_, err := r.Status(bg, "r")
			require.True(t, errdefs.IsNotFound(err))

			r = debris()
			iw, err := r.Ingest(bg, "r", 0, "")
			require.NoError(t, err)
			_, err = iw.Write(data)
			require.NoError(t, err)
			require.NoError(t, iw.Commit(bg, 0, dgst))
			r.crashed().requireContent(dgst, data)

			r = debris()
			require.NoError(t, r.Place(bg, dgst, data))
			r.requireContent(dgst, data)

			r = debris()
			_, err = r.Writer(bg, cellar.WithRef("r"), desc(dgst, 0))
			require.Equal(t, name == "right", errdefs.IsAlreadyExists(err), "%v", err)
			if name == "right" {
				r.crashed().requireContent(dgst, data)
			}
		})
	}
}

func TestOwnContentIsTrustedUntilTouched(t *testing.T) {
	// Content that this process committed costs no second write; once somebody
	// touched the file it does.
	r := newRig(t)
	data := []byte("content")
	dgst := r.put(data)
	syncs, renames := r.fault.Syncs(), r.fault.Count(vfs.OpRename)
	w := r.open("again")
	r.write(w, data)
	require.True(t, errdefs.IsAlreadyExists(w.Commit(bg, 0, dgst)))
	require.Equal(t, syncs, r.fault.Syncs())
	require.Equal(t, renames, r.fault.Count(vfs.OpRename))

	r.overwrite(r.blobPath(dgst), []byte("CONTENT"), 0)
	w = r.open("again")
	r.write(w, data)
	require.True(t, errdefs.IsAlreadyExists(w.Commit(bg, 0, dgst)))
	r.requireContent(dgst, data)
}

func TestW_G1_AbortUnderAnOpenWriter(t *testing.T) {
	// Abort frees the ref at once; the writer's calls are Aborted from then on,
	// and it can't disturb its successor.
	r := newRig(t)
	w := r.open("r")
	r.write(w, []byte("old"))
	require.NoError(t, r.Abort(bg, "r"))
	next := r.open("r")
	require.Zero(t, next.offset())
	_, err := w.Write([]byte("x"))
	require.True(t, errdefs.IsAborted(err), "%v", err)
	require.True(t, errdefs.IsAborted(w.Truncate(0)))
	require.True(t, errdefs.IsAborted(w.Sync()))
	require.True(t, errdefs.IsAborted(w.Commit(bg, 0, "")), "C36")
	require.NoError(t, w.Close())
	r.write(next, []byte("new"))
	require.NoError(t, next.Commit(bg, 3, digest.FromString("new")))
	require.True(t, errdefs.IsNotFound(r.Abort(bg, "r")))
}

func TestW_G2_G5_HalfMadeIngests(t *testing.T) {
	// An ingestion that lacks a file, or has garbage in it, or is something else
	// altogether, blocks neither a listing nor a new writer of its ref, is
	// removed by Abort, and by the next Open.
	state := func(r *rig, path string) string { return filepath.Join(path, stateName) }
	for name, harm := range map[string]func(r *rig, path string){
		"no data":     func(r *rig, path string) { require.NoError(r.t, r.mem.Remove(filepath.Join(path, dataName))) },
		"no state":    func(r *rig, path string) { require.NoError(r.t, r.mem.Remove(state(r, path))) },
		"empty state": func(r *rig, path string) { truncate(r, state(r, path), 0) },
		"torn state":  func(r *rig, path string) { truncate(r, state(r, path), 60) },
		"garbage":     func(r *rig, path string) { r.overwrite(state(r, path), pattern(1, 200), 0) },
		"data is a folder": func(r *rig, path string) {
			require.NoError(r.t, r.mem.Remove(filepath.Join(path, dataName)))
			require.NoError(r.t, r.mem.Mkdir(filepath.Join(path, dataName), 0o700))
		},
		"empty folder": func(r *rig, path string) {
			require.NoError(r.t, vfs.RemoveAll(r.mem, path))
			require.NoError(r.t, r.mem.Mkdir(path, 0o700))
		},
		"a file": func(r *rig, path string) {
			require.NoError(r.t, vfs.RemoveAll(r.mem, path))
			_, err := r.mem.OpenFile(path, os.O_CREATE, 0o600)
			require.NoError(r.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			harmed := func() *rig {
				r := newRig(t)
				for _, ref := range []string{"bad", "good"} {
					w := r.open(ref)
					r.write(w, []byte("data"))
					require.NoError(t, w.Close())
				}
				harm(r, r.ingestPath("bad"))
				return r
			}
			r := harmed()
			list, err := r.ListStatuses(bg)
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, "good", list[0].Ref)
			_, err = r.Status(bg, "bad")
			require.True(t, errdefs.IsNotFound(err))
			require.Equal(t, []string{r.ingestPath("bad")}, strays(r))
			w := r.open("bad")
			require.Zero(t, w.offset())
			r.write(w, []byte("again"))
			require.NoError(t, w.Commit(bg, 5, ""))

			r = harmed()
			require.NoError(t, r.Abort(bg, "bad"))
			require.Empty(t, strays(r))

			r = harmed().killed()
			require.Empty(t, strays(r))
			list, err = r.ListStatuses(bg)
			require.NoError(t, err)
			require.Len(t, list, 1)
		})
	}
}

func truncate(r *rig, name string, size int64) {
	f, err := r.mem.OpenFile(name, os.O_RDWR, 0)
	require.NoError(r.t, err)
	require.NoError(r.t, f.Truncate(size))
}

func strays(r *rig) []string {
	var out []string
	require.NoError(r.t, r.Strays(bg, func(path string, why error) error {
		require.Error(r.t, why)
		out = append(out, path)
		return nil
	}))
	return out
}

func TestNewerIngestIsRefusedAsNewer(t *testing.T) {
	// A state file of a later version is neither garbage nor read: FailedPrecondition,
	// kept by Open, removed by Abort.
	r := newRig(t)
	w := r.open("r")
	require.NoError(t, w.Close())
	name := filepath.Join(r.ingestPath("r"), stateName)
	p := r.readFile(name)
	h, err := decodeHeader(p)
	require.NoError(t, err)
	r.overwrite(name, reversion(h.encode(), stateVersion+1), 0)
	r = r.killed()
	_, err = r.Writer(bg, cellar.WithRef("r"))
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	require.ErrorContains(t, err, "newer version: 2")
	require.Len(t, strays(r), 1)
	require.NoError(t, r.Abort(bg, "r"))
	require.NoError(t, r.open("r").Close())
}

func TestWaitRefIsWoken(t *testing.T) {
	// WaitRef returns when the ref is freed by Commit, Close or Abort, and with
	// ctx's error when that ends first.
	r := newRig(t)
	require.NoError(t, r.WaitRef(bg, "free"))
	for _, end := range []func(w *writer){
		func(w *writer) { require.NoError(t, w.Close()) },
		func(w *writer) { require.NoError(t, r.Abort(bg, "r")) },
		func(w *writer) { require.NoError(t, w.Commit(bg, 0, "")) },
	} {
		w := r.open("r")
		ctx, cancel := context.WithTimeout(bg, time.Millisecond)
		require.ErrorIs(t, r.WaitRef(ctx, "r"), context.DeadlineExceeded)
		cancel()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { require.NoError(t, r.WaitRef(bg, "r")) })
		}
		end(w)
		wg.Wait()
	}
}

func TestCloseOfTheStore(t *testing.T) {
	// Close leaves open writers' ingestions to be resumed and frees the root;
	// afterwards everything is FailedPrecondition and fs.ErrClosed.
	r := newRig(t)
	w := r.open("r")
	r.write(w, []byte("data"))
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	_, err := r.Writer(bg, cellar.WithRef("r"))
	require.True(t, errdefs.IsFailedPrecondition(err))
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = w.Write([]byte("more"))
	require.True(t, errdefs.IsFailedPrecondition(err))
	require.Zero(t, r.fault.Handles())
	require.Equal(t, int64(4), openRig(t, r.mem).open("r").offset())
}
