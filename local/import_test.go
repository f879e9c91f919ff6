package local

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// source writes a file to import.
func source(t testing.TB, p []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "source")
	require.NoError(t, os.WriteFile(name, p, 0o600))
	return name
}

func TestIngestFile(t *testing.T) {
	// A file becomes content with the digest of its bytes, whatever its size,
	// by the kernel's copying and, in a store without real files, by reading.
	for _, n := range []int{0, 1, hashChunk, hashChunk + 1, 3*importChunk + 5} {
		data := pattern(1, n)
		name := source(t, data)
		for _, s := range []*Store{openOS(t, t.TempDir()), newRig(t).Store} {
			info, err := s.IngestFile(bg, name)
			require.NoError(t, err)
			require.Equal(t, digest.FromBytes(data), info.Digest)
			require.Equal(t, int64(n), info.Size)
			p, err := readAll(s, info.Digest)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, p))
			require.Equal(t, []digest.Digest{info.Digest}, s.Committed())

			again, err := s.IngestFile(bg, name)
			require.NoError(t, err, "there already")
			require.Equal(t, info, again)
			list, err := s.ListStatuses(bg)
			require.NoError(t, err)
			require.Empty(t, list)
		}
	}
}

func TestIngestFileWithDescriptor(t *testing.T) {
	// The file must be what the descriptor says, and is hashed with its algorithm.
	data := []byte("the file")
	name := source(t, data)
	s := openOS(t, t.TempDir())
	want := digest.SHA512.FromBytes(data)
	info, err := s.IngestFile(bg, name, desc(want, len(data)))
	require.NoError(t, err)
	require.Equal(t, want, info.Digest)
	info, err = s.IngestFile(bg, name, desc(want, len(data)), cellar.WithRef("mine"))
	require.NoError(t, err)
	require.Equal(t, want, info.Digest)

	_, err = s.IngestFile(bg, name, desc(digest.FromString("another"), 0), cellar.WithRef("mine"))
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	_, err = s.IngestFile(bg, name, desc("", 3), cellar.WithRef("other"))
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
}

func TestIngestFileErrors(t *testing.T) {
	// What is no regular file is refused, and nothing is left of it.
	s := openOS(t, t.TempDir())
	_, err := s.IngestFile(bg, filepath.Join(t.TempDir(), "absent"))
	require.True(t, errdefs.IsNotFound(err), "%v", err)
	_, err = s.IngestFile(bg, t.TempDir())
	require.True(t, errdefs.IsInvalidArgument(err), "%v", err)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	_, err = s.IngestFile(ctx, source(t, nil))
	require.ErrorIs(t, err, context.Canceled)
	list, err := s.ListStatuses(bg)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestIngestFileGoesOnWhereItStopped(t *testing.T) {
	// After an interruption the same file is continued at its offset; after a
	// change it is another ref.
	data := pattern(1, 4*importChunk)
	name := source(t, data)
	s := openOS(t, t.TempDir())
	ctx := &countdown{Context: bg, left: 20}
	_, err := s.IngestFile(ctx, name)
	require.ErrorIs(t, err, context.Canceled)
	list, err := s.ListStatuses(bg)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Positive(t, list[0].Offset)
	require.Less(t, list[0].Offset, int64(len(data)))

	w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef(list[0].Ref)})
	require.NoError(t, err)
	require.Equal(t, list[0].Offset, w.offset(), "the file ends where the digest does")
	require.Equal(t, digest.FromBytes(data[:w.offset()]), w.Digest())
	require.NoError(t, w.Close())

	require.NoError(t, os.WriteFile(name, data[:100], 0o600))
	info, err := s.IngestFile(bg, name)
	require.NoError(t, err)
	require.Equal(t, digest.FromBytes(data[:100]), info.Digest)
	list2, err := s.ListStatuses(bg)
	require.NoError(t, err)
	require.Equal(t, list, list2, "the interrupted one is left")

	require.NoError(t, os.WriteFile(name, data, 0o600))
	info, err = s.IngestFile(bg, name, cellar.WithRef(list[0].Ref))
	require.NoError(t, err)
	require.Equal(t, digest.FromBytes(data), info.Digest)
}

// countdown is a context that ends when it has been looked at so many times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestReadFrom(t *testing.T) {
	// ReadFrom appends the rest of a reader of any kind at the writer's offset,
	// and leaves a file at its end.
	data := pattern(1, 3*hashChunk)
	s := openOS(t, t.TempDir())
	file := func() io.Reader {
		f, err := os.Open(source(t, append([]byte("skipped"), data...)))
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		_, err = f.Seek(7, io.SeekStart)
		require.NoError(t, err)
		return f
	}
	pipe := func() io.Reader {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		go func() { _, _ = w.Write(data); w.Close() }()
		t.Cleanup(func() { r.Close() })
		return r
	}
	for name, open := range map[string]func() io.Reader{
		"file": file, "pipe": pipe, "bytes": func() io.Reader { return bytes.NewReader(data) },
	} {
		t.Run(name, func(t *testing.T) {
			w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef(name)})
			require.NoError(t, err)
			_, err = io.WriteString(w, name)
			require.NoError(t, err)
			src := open()
			n, err := w.ReadFrom(src)
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), n)
			n, err = w.ReadFrom(src)
			require.NoError(t, err)
			require.Zero(t, n)
			_, err = io.WriteString(w, "end")
			require.NoError(t, err)
			require.NoError(t, w.Commit(bg, 0, digest.FromString(name+string(data)+"end")))
		})
	}
	t.Run("a file of /proc, which has no size", func(t *testing.T) {
		f, err := os.Open("/proc/self/status")
		require.NoError(t, err)
		defer f.Close()
		w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("proc")})
		require.NoError(t, err)
		n, err := w.ReadFrom(f)
		require.NoError(t, err)
		require.Positive(t, n)
		require.NoError(t, w.Close())
	})
	t.Run("a closed writer", func(t *testing.T) {
		w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("closed")})
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = w.ReadFrom(file())
		require.True(t, errdefs.IsFailedPrecondition(err))
		_, err = w.ReadFrom(strings.NewReader("x"))
		require.True(t, errdefs.IsFailedPrecondition(err))
	})
}

func TestImportAcrossFileSystems(t *testing.T) {
	// A file on another file system is imported as well.
	other, err := os.MkdirTemp("/dev/shm", "cellar")
	if err != nil {
		t.Skip("no second file system")
	}
	defer os.RemoveAll(other)
	data := pattern(1, hashChunk+1)
	name := filepath.Join(other, "source")
	require.NoError(t, os.WriteFile(name, data, 0o600))
	info, err := openOS(t, t.TempDir()).IngestFile(bg, name)
	require.NoError(t, err)
	require.Equal(t, digest.FromBytes(data), info.Digest)
}

func TestReaderHandsOutItsFile(t *testing.T) {
	// The reader's file can be used by package os while the reader is read, and
	// both end with the reader's Close, which may be called twice. Deleted
	// content stays readable.
	s := openOS(t, t.TempDir())
	dgst := put(t, s, []byte("0123456789"))
	ra, err := s.ReaderAt(bg, ocispec.Descriptor{Digest: dgst, Size: 99})
	require.NoError(t, err)
	require.Equal(t, int64(10), ra.Size())
	require.NoError(t, s.Delete(bg, dgst))
	f := ra.(cellar.FileReader).File()
	require.Same(t, f, ra.(cellar.FileReader).File())
	p, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(p))
	buf := make([]byte, 20)
	n, err := ra.ReadAt(buf, 5)
	require.Equal(t, io.EOF, err)
	require.Equal(t, "56789", string(buf[:n]))
	_, err = ra.ReadAt(buf, -1)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoError(t, ra.Close())
	require.NoError(t, ra.Close())
	_, err = ra.ReadAt(buf, 0)
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, f.Close(), os.ErrClosed)
}
