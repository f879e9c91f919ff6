package local

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

var bg = context.Background()

// rig is a store in memory whose calls are counted and can fail.
type rig struct {
	*Store
	t     testing.TB
	mem   *vfs.Mem
	fault *vfs.Fault
}

func newRig(t testing.TB) *rig { return openRig(t, vfs.NewMem()) }

// openRig opens what is in mem. Checkpoints come every 8 KiB.
func openRig(t testing.TB, mem *vfs.Mem) *rig {
	t.Helper()
	fault := vfs.NewFault(mem)
	s, err := Open("/var/store", Options{FS: fault})
	require.NoError(t, err)
	s.checkpointEvery = 8 << 10
	t.Cleanup(func() { fault.Heal(); _ = s.Close() })
	return &rig{Store: s, t: t, mem: mem, fault: fault}
}

// killed returns the store as another process finds it after kill -9.
func (r *rig) killed() *rig { return openRig(r.t, r.mem.Clone()) }

// crashed returns the store as it is after a power loss that took all that was
// not durable.
func (r *rig) crashed() *rig { return openRig(r.t, r.mem.CrashClone(nil, 0)) }

func (r *rig) open(ref string, opts ...cellar.WriterOpt) *writer {
	r.t.Helper()
	w, err := r.newWriter(bg, append(opts, cellar.WithRef(ref)))
	require.NoError(r.t, err)
	return w
}

func (r *rig) write(w *writer, p []byte) {
	r.t.Helper()
	n, err := w.Write(p)
	require.NoError(r.t, err)
	require.Equal(r.t, len(p), n)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NoError(r.t, w.wait())
}

// put commits p by a ref of its own.
func (r *rig) put(p []byte) digest.Digest {
	r.t.Helper()
	dgst := digest.FromBytes(p)
	w := r.open("put-" + dgst.String())
	r.write(w, p)
	require.NoError(r.t, w.Commit(bg, int64(len(p)), dgst))
	return dgst
}

// requireContent reads the content of dgst.
func (r *rig) requireContent(dgst digest.Digest, want []byte) {
	r.t.Helper()
	got, err := readAll(r.Store, dgst)
	require.NoError(r.t, err)
	require.True(r.t, bytes.Equal(want, got), "content of %s differs", dgst)
}

func readAll(s *Store, dgst digest.Digest) ([]byte, error) {
	ra, err := s.ReaderAt(bg, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	return io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
}

// pattern returns n bytes that repeat nowhere near, another text for each seed.
func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed) + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

func desc(dgst digest.Digest, size int) cellar.WriterOpt {
	return cellar.WithDescriptor(ocispec.Descriptor{Digest: dgst, Size: int64(size)})
}

// overwrite changes a file behind the store's back.
func (r *rig) overwrite(name string, p []byte, off int64) {
	r.t.Helper()
	f, err := r.mem.OpenFile(name, 2, 0)
	require.NoError(r.t, err)
	_, err = f.WriteAt(p, off)
	require.NoError(r.t, err)
	require.NoError(r.t, f.Close())
}

func (r *rig) readFile(name string) []byte {
	r.t.Helper()
	f, err := r.mem.OpenFile(name, 0, 0)
	require.NoError(r.t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(r.t, err)
	p := make([]byte, info.Size)
	_, err = f.ReadAt(p, 0)
	require.NoError(r.t, err)
	return p
}
