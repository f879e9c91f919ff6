package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

var errDisk = &fs.PathError{Op: "fdatasync", Path: "metadata.db", Err: syscall.EIO}

// T4: after a failed write of the database every call that writes is refused
// with Unavailable and the reason, at once; what was there can be read; after
// reopening exactly what was acknowledged is there and the store works.
func TestT4_FailedCommitCondemns(t *testing.T) {
	for _, point := range []string{"before commit", "after commit"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			acked := blob("acknowledged", small)
			dgst := w.put("a", acked)
			kept := w.begin("a", "open", blob("open", large))

			w.failAt(point, errDisk)
			lost := w.begin("a", "lost", blob("lost", small))
			err := lost.Commit(t.Context(), 0, "")
			require.ErrorIs(t, err, errUnavailable)
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorContains(t, err, "reopen")
			w.crash.Store(nil)

			for name, call := range writeMethods(w.db, w.ns("a"), dgst) {
				within(t, 10*time.Second, func() {
					err := call(t.Context())
					require.ErrorIs(t, err, errUnavailable, name)
					require.ErrorContains(t, err, "input/output error", name)
				})
			}
			within(t, 10*time.Second, func() {
				require.ErrorIs(t, kept.Commit(t.Context(), 0, ""), errUnavailable)
			})
			for name, call := range readMethods(w.db, w.ns("a"), dgst) {
				require.NoError(t, call(t.Context()), name)
			}
			w.requireContent("a", acked)

			w.reopen()
			w.requireContent("a", acked)
			if point == "before commit" {
				w.requireAbsent("a", digest.FromBytes(blob("lost", small)))
			} else {
				w.requireContent("a", blob("lost", small)) // durable, though nobody was told
			}
			again := w.open("a", "open")
			require.EqualValues(t, large, w.status(again).Offset)
			require.NoError(t, again.Commit(t.Context(), large, digest.FromBytes(blob("open", large))))
			w.put("a", blob("new", small))
			w.collect()
		})
	}
}

// T4: reads that first wait for the background don't fail because the
// background is shut.
func TestT4_ReadsWithPendingBackground(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.db.Namespaces().Create(t.Context(), "a", nil))
	w.failAt("before commit", errDisk)
	w.db.MutateLater(putMeta("later"))
	require.ErrorIs(t, w.db.Update(t.Context(), func(context.Context) error { return nil }), errUnavailable)
	_, err := w.db.Namespaces().Labels(t.Context(), "a")
	require.NoError(t, err)
	names, err := w.db.Namespaces().List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
}

// T4: when a batch fails, everybody in it hears of it, and nobody hangs.
func TestT4_WholeBatchFails(t *testing.T) {
	w := newWorld(t)
	w.failAt("before commit", errDisk)
	for _, err := range w.gather(putMeta("a"), putMeta("b"), putMeta("c")) {
		require.ErrorIs(t, err, errUnavailable)
	}
	require.Empty(t, w.db.GetRaw("meta", []byte("a")))
}

// T4: without a crash point too: a database whose file can't be written any
// more is condemned by the real error.
func TestT4_RealFailureOfTheFile(t *testing.T) {
	w := newWorld(t)
	acked := blob("acknowledged", small)
	w.put("a", acked)
	require.NoError(t, w.db.CloseFile())
	err := w.begin("a", "lost", blob("lost", small)).Commit(t.Context(), 0, "")
	require.ErrorIs(t, err, errUnavailable)
	_, err = w.ns("a").Writer(t.Context(), cellar.WithRef("next"))
	require.ErrorIs(t, err, errUnavailable)
	w.requireContent("a", acked)

	_ = w.db.Close() // the file is closed already
	require.NoError(t, w.blobs.Close())
	w.start()
	w.requireContent("a", acked)
	w.requireAbsent("a", digest.FromBytes(blob("lost", small)))
}

// A full disk refuses what does not fit, with ResourceExhausted, and nothing
// else is lost: no ref is locked, nothing is half there, deleting works, and
// the store goes on as soon as there is room.
func TestDiskFull(t *testing.T) {
	w := newWorld(t, func(w *world) { w.path = filepath.Join(tmpfs(t, 3<<20), "metadata.db") })
	var there [][]byte
	var refused []byte
	for i := 0; refused == nil; i++ {
		require.Less(t, i, 1000, "the disk never gets full")
		p := blob(fmt.Sprint(i), metadata.SmallBlob)
		err := w.begin("a", "r", p).Commit(t.Context(), 0, "")
		if err != nil {
			requireClass(t, err, errExhausted)
			refused = p
			break
		}
		there = append(there, p)
	}
	w.requireAbsent("a", digest.FromBytes(refused))
	for _, p := range there {
		w.requireContent("a", p)
	}
	cw := w.open("a", "r")
	require.NoError(t, cw.Close(), "the ref is free")

	// What is staged goes as the files are flushed: there is room again.
	require.NoError(t, w.db.Settle(t.Context()))
	w.delete("a", digest.FromBytes(there[0]))
	w.collect()
	w.requireAbsent("a", digest.FromBytes(there[0]))
	again := w.open("a", "r")
	if w.status(again).Offset == 0 {
		w.write(again, refused)
	}
	require.NoError(t, again.Commit(t.Context(), 0, digest.FromBytes(refused)))
	w.requireContent("a", refused)
}

// tmpfs mounts a small file system for the duration of the test.
func tmpfs(t *testing.T, size int) string {
	dir := t.TempDir()
	if err := unix.Mount("cellar-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mounting a small file system takes privileges: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// A limit on the size of files is a full disk that needs no privileges. It
// counts for the whole process, so the test runs in one of its own.
func TestFileSizeLimit(t *testing.T) {
	runChild(t, "file size limit", t.TempDir())
}

func childFileSizeLimit() {
	signal.Ignore(syscall.SIGXFSZ)
	w := openChild()
	db := w.db
	store, err := db.Namespace("a")
	orExit(err)
	ctx := context.Background()
	var old unix.Rlimit
	orExit(unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	commit := func(i int) error {
		p := blob(fmt.Sprint(i), metadata.SmallBlob)
		cw, err := cellar.OpenWriter(ctx, store, cellar.WithRef("r"))
		if err != nil {
			return err
		}
		if st, _ := cw.Status(); st.Offset == 0 {
			if _, err := cw.Write(p); err != nil {
				return errors.Join(err, cw.Close())
			}
		}
		return cw.Commit(ctx, int64(len(p)), digest.FromBytes(p))
	}
	orExit(commit(0))
	orExit(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 6 << 20, Max: old.Max}))
	failed := 0
	for i := 1; failed == 0; i++ {
		if err := commit(i); err != nil {
			if len(classesOf(err)) != 1 || classesOf(err)[0] != errExhausted {
				orExit(fmt.Errorf("commit %d is of another class: %w", i, err))
			}
			failed = i
		}
		if i > 1000 {
			orExit(errors.New("the limit is never reached"))
		}
	}
	orExit(store.Delete(ctx, digest.FromBytes(blob("0", metadata.SmallBlob))))
	orExit(unix.Setrlimit(unix.RLIMIT_FSIZE, &old))
	orExit(commit(failed))
	for i := 1; i <= failed; i++ {
		p := blob(fmt.Sprint(i), metadata.SmallBlob)
		_, err := cellar.ReadBlob(ctx, store, describe(digest.FromBytes(p), 0))
		orExit(err)
	}
	findings, err := db.Check(ctx)
	orExit(err)
	if len(findings) > 0 {
		orExit(fmt.Errorf("findings: %v", findings))
	}
	orExit(w.close())
}

// T4 under load: when the database fails among many writers, each hears the
// truth: what was acknowledged is there after reopening, and nothing else is
// damaged.
func TestT4_UnderLoad(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var acked [][]byte
	left := 20
	w.at(func(point string) error {
		mu.Lock()
		defer mu.Unlock()
		if point != "before commit" {
			return nil
		}
		if left--; left < 0 {
			return errDisk
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := 0; ; j++ {
				p := blob(fmt.Sprintf("%d/%d", i, j), 100)
				if err := tryPut(w, fmt.Sprint(i), p); err != nil {
					if !errors.Is(err, errUnavailable) {
						t.Errorf("writer %d: %v", i, err)
					}
					return
				}
				mu.Lock()
				acked = append(acked, p)
				mu.Unlock()
			}
		})
	}
	within(t, time.Minute, wg.Wait)
	require.NotEmpty(t, acked)
	w.reopen()
	for _, p := range acked {
		w.requireContent("a", p)
	}
}
