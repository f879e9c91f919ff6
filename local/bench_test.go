package local

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

func BenchmarkCommitSmall(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openOS(b, b.TempDir())
			put(b, s, []byte("first"))
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						p := fmt.Appendf(make([]byte, 0, 4096), "%d", n)[:4096]
						w, err := s.Ingest(bg, fmt.Sprint(n), 0, "")
						if err == nil {
							_, err = w.Write(p)
						}
						if err == nil {
							err = w.Commit(bg, 0, "")
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkPlace(b *testing.B) {
	s := openOS(b, b.TempDir())
	put(b, s, []byte("first"))
	p := make([]byte, 4096)
	b.ReportAllocs()
	for i := range b.N {
		dgst := digest.FromBytes(fmt.Appendf(p[:0], "%d", i))
		require.NoError(b, s.Place(bg, dgst, p))
	}
}

func BenchmarkIngest1GiB(b *testing.B) {
	chunk := pattern(1, 1<<20)
	for i := range b.N {
		s := openOS(b, b.TempDir())
		b.SetBytes(1 << 30)
		b.ResetTimer()
		w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef(fmt.Sprint(i))})
		require.NoError(b, err)
		for range 1 << 10 {
			_, err := w.Write(chunk)
			require.NoError(b, err)
		}
		written := b.Elapsed()
		require.NoError(b, w.Commit(bg, 1<<30, ""))
		b.ReportMetric(float64((b.Elapsed() - written).Milliseconds()), "commit-ms")
	}
}

func BenchmarkResume1GiB(b *testing.B) {
	s := openOS(b, b.TempDir())
	w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("r")})
	require.NoError(b, err)
	chunk := pattern(1, 1<<20)
	for range 1 << 10 {
		_, err := w.Write(chunk)
		require.NoError(b, err)
	}
	require.NoError(b, w.Close())
	for b.Loop() {
		w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("r")})
		require.NoError(b, err)
		require.Equal(b, int64(1<<30), w.offset())
		require.NoError(b, w.Close())
	}
}

func BenchmarkRead(b *testing.B) {
	s := openOS(b, b.TempDir())
	dgsts := make([]digest.Digest, 1000)
	for i := range dgsts {
		p := pattern(byte(i), 4096+i/256)
		dgsts[i] = digest.FromBytes(p)
		require.NoError(b, s.Place(bg, dgsts[i], p))
	}
	read := func(b *testing.B, one func(dgst digest.Digest, p []byte) error) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			p := make([]byte, 4096)
			for i := 0; pb.Next(); i++ {
				if err := one(dgsts[i%len(dgsts)], p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.Run("store", func(b *testing.B) {
		read(b, func(dgst digest.Digest, p []byte) error {
			ra, err := s.ReaderAt(bg, ocispec.Descriptor{Digest: dgst})
			if err != nil {
				return err
			}
			if _, err := ra.ReadAt(p, 0); err != nil {
				return err
			}
			return ra.Close()
		})
	})
	b.Run("package os", func(b *testing.B) {
		dir := s.algPath(digest.SHA256)
		read(b, func(dgst digest.Digest, p []byte) error {
			f, err := os.Open(filepath.Join(dir, dgst.Encoded()))
			if err != nil {
				return err
			}
			if _, err := f.ReadAt(p, 0); err != nil {
				return err
			}
			return f.Close()
		})
	})
}
