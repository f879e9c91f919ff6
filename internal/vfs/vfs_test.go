package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func writeFile(t *testing.T, fsys FS, name, text string, sync bool) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	if sync {
		require.NoError(t, f.Sync())
	}
	require.NoError(t, f.Close())
}

func readFile(fsys FS, name string) (string, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(p), err
}

func names(t *testing.T, fsys FS, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, ReadNames(fsys, dir, func(batch []string) error {
		out = append(out, batch...)
		return nil
	}))
	slices.Sort(out)
	return out
}

func TestImplementationsAgree(t *testing.T) {
	// The system's file system, the one in memory, and both behind Fault answer
	// the same calls alike, errors included.
	dir := t.TempDir()
	mem := NewMem()
	for _, part := range []string{"", "tmp"} {
		_ = mem.Mkdir("/"+part, 0o700)
	}
	for name, row := range map[string]struct {
		fs  FS
		dir string
	}{
		"OS":         {OS, filepath.Join(dir, "a")},
		"OS, Fault":  {NewFault(OS), filepath.Join(dir, "b")},
		"Mem":        {mem, "/tmp/a"},
		"Mem, Fault": {NewFault(mem), "/tmp/b"},
	} {
		t.Run(name, func(t *testing.T) { exercise(t, row.fs, row.dir) })
	}
}

func exercise(t *testing.T, fsys FS, root string) {
	at := func(name string) string { return filepath.Join(root, name) }
	require.ErrorIs(t, fsys.Mkdir(at("x/y"), 0o700), fs.ErrNotExist)
	require.NoError(t, fsys.Mkdir(root, 0o700))
	require.ErrorIs(t, fsys.Mkdir(root, 0o700), fs.ErrExist)
	_, err := fsys.OpenFile(at("a"), os.O_RDONLY, 0)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.OpenDir(at("a"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	writeFile(t, fsys, at("a"), "hello", true)
	_, err = fsys.OpenFile(at("a"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = fsys.OpenDir(at("a"))
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = fsys.Lstat(at("a/b"))
	require.ErrorIs(t, err, syscall.ENOTDIR)

	f, err := fsys.OpenFile(at("a"), os.O_RDWR, 0)
	require.NoError(t, err)
	exerciseFile(t, f)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = f.WriteAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorIs(t, f.Sync(), fs.ErrClosed)

	exerciseDir(t, fsys, root)
}

func exerciseFile(t *testing.T, f File) {
	p := make([]byte, 10)
	n, err := f.ReadAt(p, 1)
	require.Equal(t, io.EOF, err)
	require.Equal(t, "ello", string(p[:n]))
	n, err = f.ReadAt(p[:4], 1)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	before, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, int64(5), before.Size)
	require.Equal(t, fs.FileMode(0o600), before.Mode)
	require.Equal(t, uint64(1), before.Links)
	_, err = f.WriteAt([]byte("!"), 7)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(9))
	n, err = f.ReadAt(p, 0)
	require.Equal(t, io.EOF, err)
	require.Equal(t, "hello\x00\x00!\x00", string(p[:n]))
	require.NoError(t, f.Truncate(2))
	require.NoError(t, f.Chmod(0o400))
	when := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	require.NoError(t, f.SetModTime(when))
	require.NoError(t, f.Datasync())
	f.Flush(0, 2)
	info, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, int64(2), info.Size)
	require.Equal(t, fs.FileMode(0o400), info.Mode)
	require.Equal(t, before.Inode, info.Inode)
	require.True(t, when.Equal(info.ModTime), info.ModTime)
}

func exerciseDir(t *testing.T, fsys FS, root string) {
	at := func(name string) string { return filepath.Join(root, name) }
	writeFile(t, fsys, at("b"), "b", false)
	require.NoError(t, fsys.Mkdir(at("d"), 0o700))
	var want []string
	for i := range 100 {
		name := fmt.Sprintf("file-%03d", i)
		want = append(want, name)
		writeFile(t, fsys, at("d/"+name), name, false)
	}
	require.Equal(t, []string{"a", "b", "d"}, names(t, fsys, root))
	dir, err := fsys.OpenDir(at("d"))
	require.NoError(t, err)
	for range 2 { // from the beginning each time
		var got []string
		require.NoError(t, dir.ReadNames(func(batch []string) error { got = append(got, batch...); return nil }))
		slices.Sort(got)
		require.Equal(t, want, got)
	}
	stop := errors.New("stop")
	require.Equal(t, stop, dir.ReadNames(func([]string) error { return stop }))
	require.NoError(t, fsys.Rename(at("d"), at("moved")))
	f, err := dir.Open("file-007")
	require.NoError(t, err, "the handle goes with the directory")
	require.NoError(t, f.Close())
	_, err = dir.Open("absent")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, dir.Sync())
	require.NoError(t, dir.Close())

	require.NoError(t, fsys.Rename(at("b"), at("moved/file-000")))
	text, err := readFile(fsys, at("moved/file-000"))
	require.NoError(t, err)
	require.Equal(t, "b", text)
	require.ErrorIs(t, fsys.Rename(at("b"), at("c")), fs.ErrNotExist)
	require.Error(t, fsys.Rename(at("a"), at("moved")))
	require.Error(t, fsys.Remove(at("moved")))
	require.NoError(t, RemoveAll(fsys, at("moved")))
	require.NoError(t, RemoveAll(fsys, at("moved")))
	require.Equal(t, []string{"a"}, names(t, fsys, root))
	require.NoError(t, SyncDir(fsys, root))
	require.ErrorIs(t, SyncDir(fsys, at("moved")), fs.ErrNotExist)

	lock, err := fsys.Lock(root)
	require.NoError(t, err)
	_, err = fsys.Lock(root)
	var held *HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, os.Getpid(), held.PID)
	require.NoError(t, lock.Close())
	lock, err = fsys.Lock(root)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NotEmpty(t, fsys.BootID())
}

func TestLinksAreNotFollowed(t *testing.T) {
	// The last element of a name is never followed, and a pipe is opened without
	// waiting for its other end.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "target"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("target", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "dirlink")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err := OS.OpenFile(filepath.Join(dir, "link"), os.O_RDONLY, 0)
	require.ErrorIs(t, err, syscall.ELOOP)
	_, err = OS.OpenDir(filepath.Join(dir, "dirlink"))
	require.Error(t, err)
	f, err := OS.OpenFile(filepath.Join(dir, "pipe"), os.O_RDONLY, 0)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	require.False(t, info.Mode.IsRegular())
	require.NoError(t, f.Close())
	info, err = OS.Lstat(filepath.Join(dir, "link"))
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, info.Mode.Type())
}

func TestCrashCloneKeepsWhatIsDurable(t *testing.T) {
	// Data without its entry is gone, an entry without its data is empty, and
	// only both together are there; a clone after a kill has everything.
	mem := NewMem()
	require.NoError(t, mem.Mkdir("/d", 0o700))
	require.NoError(t, SyncDir(mem, "/"))
	writeFile(t, mem, "/d/entry only", "x", false)
	writeFile(t, mem, "/d/both", "x", true)
	require.NoError(t, SyncDir(mem, "/d"))
	writeFile(t, mem, "/d/data only", "x", true)
	writeFile(t, mem, "/d/both", "longer", false)
	require.NoError(t, mem.Rename("/d/both", "/d/renamed"))

	strict := mem.CrashClone(nil, 0)
	require.Equal(t, []string{"both", "entry only"}, names(t, strict, "/d"))
	text, err := readFile(strict, "/d/both")
	require.NoError(t, err)
	require.Equal(t, "x", text)
	text, err = readFile(strict, "/d/entry only")
	require.NoError(t, err)
	require.Empty(t, text)
	require.NotEqual(t, mem.BootID(), strict.BootID())

	for _, whole := range []*Mem{mem.CrashClone(nil, 1), mem.Clone()} {
		require.Equal(t, []string{"data only", "entry only", "renamed"}, names(t, whole, "/d"))
		text, err = readFile(whole, "/d/renamed")
		require.NoError(t, err)
		require.Equal(t, "longer", text)
	}
	require.Equal(t, mem.BootID(), mem.Clone().BootID())
	require.NoError(t, mem.Remove("/d/renamed"))
	require.Equal(t, []string{"both", "entry only"}, names(t, strict, "/d"), "clones share nothing")
}

func TestCrashCloneChoosesBySeed(t *testing.T) {
	// The same seed makes the same choices; among many seeds each outcome comes
	// up: old, new, torn, both names of a renamed file, none.
	mem := NewMem()
	writeFile(t, mem, "/f", "old", true)
	require.NoError(t, SyncDir(mem, "/"))
	writeFile(t, mem, "/f", "newer", false)
	require.NoError(t, mem.Rename("/f", "/g"))
	seen := map[string]bool{}
	for seed := range uint64(300) {
		outcome := func() string {
			c := mem.CrashClone(rand.New(rand.NewPCG(seed, 1)), 0.5)
			f, _ := readFile(c, "/f")
			g, _ := readFile(c, "/g")
			return f + "|" + g
		}
		one := outcome()
		require.Equal(t, one, outcome())
		seen[one] = true
	}
	for _, want := range []string{"old|", "|old", "old|old", "newer|", "|newer", "newer|newer", "|", "ned|"} {
		require.True(t, seen[want], "%q never came up: %v", want, seen)
	}
}

func TestCloneKeepsWhatIsNotDurableApart(t *testing.T) {
	// A power loss after a kill takes what the killed process had not synced.
	mem := NewMem()
	writeFile(t, mem, "/f", "x", false)
	clone := mem.Clone()
	require.Equal(t, []string{"f"}, names(t, clone, "/"))
	require.Empty(t, names(t, clone.CrashClone(nil, 0), "/"))
	f, err := clone.OpenFile("/f", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, SyncDir(clone, "/"))
	text, err := readFile(clone.CrashClone(nil, 0), "/f")
	require.NoError(t, err)
	require.Equal(t, "x", text)
}

func TestFailedSyncForgets(t *testing.T) {
	// What a failed sync should have made durable never is, however often it is
	// synced again, unless it is written again.
	mem := NewMem()
	fault := NewFault(mem)
	writeFile(t, fault, "/f", "", true)
	require.NoError(t, SyncDir(fault, "/"))
	f, err := fault.OpenFile("/f", os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("lost"), 0)
	require.NoError(t, err)
	fault.Fail(OpSync, 1, syscall.EIO)
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	require.NoError(t, f.Sync())
	text, err := readFile(mem, "/f")
	require.NoError(t, err)
	require.Equal(t, "lost", text, "readers see it all the same")
	text, err = readFile(mem.CrashClone(nil, 0), "/f")
	require.NoError(t, err)
	require.Empty(t, text)
}

func TestFaultCountsAndFails(t *testing.T) {
	// The nth call of a kind fails, once or from then on; others do not; a
	// failing write writes half.
	fault := NewFault(NewMem())
	fault.Fail(OpMkdir, 2, syscall.ENOSPC)
	require.NoError(t, fault.Mkdir("/a", 0o700))
	require.ErrorIs(t, fault.Mkdir("/b", 0o700), syscall.ENOSPC)
	require.NoError(t, fault.Mkdir("/b", 0o700))
	require.True(t, fault.Heal())
	require.False(t, fault.Heal())
	require.Equal(t, 3, fault.Count(OpMkdir))
	require.Equal(t, 3, fault.Count(OpAny))

	fault.FailFrom(OpAny, 2, syscall.EIO)
	_, err := fault.Lstat("/a")
	require.NoError(t, err)
	_, err = fault.Lstat("/a")
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, fault.Remove("/a"), syscall.EIO)
	fault.Heal()

	f, err := fault.OpenFile("/f", os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	require.Equal(t, 1, fault.Handles())
	fault.Fail(OpWrite, 1, syscall.ENOSPC)
	n, err := f.WriteAt([]byte("12345678"), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 4, n)
	p := make([]byte, 8)
	n, _ = f.ReadAt(p, 0)
	require.Equal(t, "1234", string(p[:n]))
	require.Equal(t, int64(4), fault.BytesRead("f"))
	fault.Fail(OpClose, 1, syscall.EIO)
	require.ErrorIs(t, f.Close(), syscall.EIO)
	require.Zero(t, fault.Handles())
	for _, op := range Ops() {
		require.NotEmpty(t, op.String())
	}
}
