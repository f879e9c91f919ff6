package local

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

// openOS opens a store on the real file system.
func openOS(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t testing.TB, s *Store, p []byte) digest.Digest {
	t.Helper()
	w, err := s.Ingest(bg, "put", 0, "")
	require.NoError(t, err)
	_, err = w.Write(p)
	require.NoError(t, err)
	dgst := digest.FromBytes(p)
	require.NoError(t, w.Commit(bg, int64(len(p)), dgst))
	return dgst
}

func TestOpenMakesDirectoriesDurable(t *testing.T) {
	// T1, W-E: after Open and a first commit, each directory with its parents
	// survives a power loss; Open makes no more than blobs/ and ingest/.
	mem := vfs.NewMem()
	s, err := Open("/a/b/c", Options{FS: mem})
	require.NoError(t, err)
	var names []string
	require.NoError(t, vfs.ReadNames(mem.CrashClone(nil, 0), "/a/b/c", func(batch []string) error {
		names = append(names, batch...)
		return nil
	}))
	require.Equal(t, []string{"blobs", "ingest"}, names)
	dgst := put(t, s, []byte("first"))
	after, err := Open("/a/b/c", Options{FS: mem.CrashClone(nil, 0)})
	require.NoError(t, err)
	p, err := readAll(after, dgst)
	require.NoError(t, err)
	require.Equal(t, "first", string(p))
}

func TestDirectoryOfAProcessThatDied(t *testing.T) {
	// T1: a directory that a killed process made and did not sync is synced by
	// the next one before anything relies on it.
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem)
	var killed []*vfs.Mem
	fault.OnCall(func(vfs.Op, string) error {
		killed = append(killed, mem.Clone())
		return nil
	})
	s, err := Open("/a/b", Options{FS: fault})
	require.NoError(t, err)
	require.NoError(t, client(s, "r", []byte("x")))
	require.Greater(t, len(killed), 40)
	for n, mem := range killed {
		s, err := Open("/a/b", Options{FS: mem})
		require.NoError(t, err)
		require.NoError(t, client(s, "r", []byte("x")))
		after, err := Open("/a/b", Options{FS: mem.CrashClone(nil, 0)})
		require.NoError(t, err)
		p, err := readAll(after, digest.FromString("x"))
		require.NoError(t, err, "killed before call %d", n)
		require.Equal(t, "x", string(p))
	}
}

func TestSecondHolderIsToldWho(t *testing.T) {
	// A root that is open already is Unavailable at once, with the pid of the
	// process that has it, ours or another's.
	root := t.TempDir()
	s := openOS(t, root)
	_, err := Open(root, Options{})
	require.True(t, errdefs.IsUnavailable(err), "%v", err)
	require.ErrorContains(t, err, strconv.Itoa(os.Getpid()))

	if _, err := exec.LookPath("flock"); err == nil {
		require.NoError(t, s.Close())
		cmd := exec.Command("flock", root, "sleep", "30")
		require.NoError(t, cmd.Start())
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		for { // until it has the lock
			s, err := Open(root, Options{})
			if err != nil {
				require.True(t, errdefs.IsUnavailable(err), "%v", err)
				require.Contains(t, err.Error(), "process "+strconv.Itoa(cmd.Process.Pid))
				break
			}
			require.NoError(t, s.Close())
		}
	}
}

func TestUnwritableRoot(t *testing.T) {
	// Where nothing can be written Open is PermissionDenied and makes nothing.
	if os.Getuid() == 0 {
		t.Run("read-only file system", func(t *testing.T) {
			// /proc refuses to make anything, as a read-only file system would.
			_, err := Open("/proc/cellar", Options{})
			require.Error(t, err)
		})
	}
	for _, errno := range []error{syscall.EROFS, syscall.EACCES} {
		for name, prepare := range map[string]func(mem *vfs.Mem){
			"empty": func(mem *vfs.Mem) { require.NoError(t, mem.Mkdir("/s", 0o700)) },
			"a store": func(mem *vfs.Mem) {
				s, err := Open("/s", Options{FS: mem})
				require.NoError(t, err)
				require.NoError(t, s.Close())
			},
			"nothing there": func(mem *vfs.Mem) {},
		} {
			mem := vfs.NewMem()
			prepare(mem)
			fault := vfs.NewFault(mem)
			var made []string
			fault.OnCall(func(op vfs.Op, name string) error {
				switch op {
				case vfs.OpMkdir, vfs.OpCreate, vfs.OpRename, vfs.OpRemove, vfs.OpWrite:
					made = append(made, name)
					return errno
				}
				return nil
			})
			_, err := Open("/s", Options{FS: fault})
			require.True(t, errdefs.IsPermissionDenied(err), "%s: %v", name, err)
			require.NotEmpty(t, made, "it was tried")
			require.Zero(t, fault.Handles())
		}
	}
}

func TestFullDiskDoesNotPreventOpen(t *testing.T) {
	// T8: a store on a full disk opens, so that it can be emptied.
	mem := vfs.NewMem()
	s, err := Open("/s", Options{FS: mem})
	require.NoError(t, err)
	dgst := put(t, s, []byte("x"))
	require.NoError(t, s.Close())
	fault := vfs.NewFault(mem)
	fault.FailFrom(vfs.OpCreate, 1, syscall.ENOSPC)
	s, err = Open("/s", Options{FS: fault})
	require.NoError(t, err)
	require.NoError(t, s.Delete(bg, dgst))
	_, err = s.Writer(bg, cellar.WithRef("r"))
	require.True(t, errdefs.IsResourceExhausted(err), "%v", err)
}

func TestRootIsNoDirectory(t *testing.T) {
	// A file, or a dangling link, in the place of root, blobs or ingest is
	// FailedPrecondition; a link to a directory is fine for root and no other.
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(file, Options{})
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	for _, sub := range []string{"blobs", "ingest"} {
		root := filepath.Join(dir, "with-link-"+sub)
		require.NoError(t, os.Mkdir(root, 0o700))
		require.NoError(t, os.Symlink(dir, filepath.Join(root, sub)))
		_, err = Open(root, Options{})
		require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	}
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	require.NoError(t, os.Mkdir(real, 0o700))
	require.NoError(t, os.Symlink(real, link))
	put(t, openOS(t, link), []byte("x"))
	require.DirExists(t, filepath.Join(real, "blobs", "sha256"))
}

func TestT6_ModesAndLinks(t *testing.T) {
	// Directories are 0700, content 0400, whatever the umask; links, folders and
	// pipes under a digest are no content, and opening them does not hang.
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	root := t.TempDir()
	s := openOS(t, filepath.Join(root, "s"))
	dgst := put(t, s, []byte("x"))
	require.NoError(t, s.Place(bg, digest.FromString("y"), []byte("y")))
	for path, mode := range map[string]os.FileMode{
		s.root: 0o700 | os.ModeDir, s.blobsPath(): 0o700 | os.ModeDir, s.ingestsPath(): 0o700 | os.ModeDir,
		s.algPath(digest.SHA256): 0o700 | os.ModeDir, s.blobPath(dgst): 0o400, s.blobPath(digest.FromString("y")): 0o400,
	} {
		info, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), path)
	}
	target := filepath.Join(root, "secret")
	require.NoError(t, os.WriteFile(target, []byte("secret"), 0o600))
	for name, plant := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(target, path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dgst := digest.FromString(name)
		require.NoError(t, plant(s.blobPath(dgst)))
		_, err := s.ReaderAt(bg, ocispec.Descriptor{Digest: dgst})
		require.True(t, errdefs.IsNotFound(err), "%s: %v", name, err)
		_, err = s.Info(bg, dgst)
		require.True(t, errdefs.IsNotFound(err))
		require.True(t, errdefs.IsNotFound(s.Delete(bg, dgst)))
		require.Equal(t, dgst, put(t, s, []byte(name)), "replaced")
		p, err := readAll(s, dgst)
		require.NoError(t, err)
		require.Equal(t, name, string(p))
	}
	p, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "secret", string(p))
}

func TestT6_AlgorithmFolderThatIsALink(t *testing.T) {
	// A link in the place of blobs/sha512 is not followed: nothing is read
	// through it and nothing written.
	root, outside := t.TempDir(), t.TempDir()
	dgst := digest.SHA512.FromString("x")
	require.NoError(t, os.WriteFile(filepath.Join(outside, dgst.Encoded()), []byte("x"), 0o600))
	openOS(t, root).Close()
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "blobs", "sha512")))
	s := openOS(t, root)
	_, err := s.Info(bg, dgst)
	require.True(t, errdefs.IsNotFound(err))
	_, err = s.ReaderAt(bg, ocispec.Descriptor{Digest: dgst})
	require.True(t, errdefs.IsNotFound(err))
	require.NoError(t, s.Walk(bg, func(info cellar.Info) error { t.Error("seen ", info.Digest); return nil }))
	w, err := s.Ingest(bg, "r", 0, digest.SHA512)
	require.NoError(t, err)
	_, err = w.Write([]byte("y"))
	require.NoError(t, err)
	require.True(t, errdefs.IsFailedPrecondition(w.Commit(bg, 0, "")))
	st, err := s.Status(bg, "r")
	require.NoError(t, err)
	require.Equal(t, int64(1), st.Offset)
	names, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, names, 1)
}

func TestReadOnlyIngestOfAnotherUserTime(t *testing.T) {
	// Data that a failed Commit left read-only is opened for writing again.
	s := openOS(t, t.TempDir())
	w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("r")})
	require.NoError(t, err)
	_, err = w.Write([]byte("data"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.Chmod(w.dataPath(), 0o400))
	fault := vfs.NewFault(s.fs)
	s.fs = fault
	fault.OnCall(func(op vfs.Op, name string) error { // root may open it all the same
		if info, err := os.Stat(name); op == vfs.OpOpen && err == nil && info.Mode() == 0o400 && fault.Count(vfs.OpOpen) == 2 {
			return syscall.EACCES
		}
		return nil
	})
	w, err = s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("r")})
	require.NoError(t, err)
	require.Equal(t, int64(4), w.offset())
	require.NoError(t, w.Commit(bg, 4, ""))
}

func TestRefsAreNoPaths(t *testing.T) {
	// Refs of any bytes stay in ingest/.
	s := openOS(t, t.TempDir())
	refs := []string{"../../x", "a/b", "/", ".", "..", "\x00", "\xff\xfe", strings.Repeat("r", cellar.MaxRefLength)}
	for _, ref := range refs {
		w, err := s.Writer(bg, cellar.WithRef(ref))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		st, err := s.Status(bg, ref)
		require.NoError(t, err)
		require.Equal(t, ref, st.Ref)
	}
	names, err := os.ReadDir(s.ingestsPath())
	require.NoError(t, err)
	require.Len(t, names, len(refs))
	_, err = s.Writer(bg, cellar.WithRef(strings.Repeat("r", cellar.MaxRefLength+1)))
	require.True(t, errdefs.IsInvalidArgument(err))
}

func TestEndedContextChangesNothing(t *testing.T) {
	// With a context that is done Commit leaves the ingestion and frees the ref.
	r := newRig(t)
	w := r.open("r")
	r.write(w, []byte("data"))
	ctx, cancel := context.WithCancel(bg)
	cancel()
	require.ErrorIs(t, w.Commit(ctx, 0, ""), context.Canceled)
	w = r.open("r")
	require.Equal(t, int64(4), w.offset())
	require.NoError(t, w.Commit(bg, 0, ""))
}
