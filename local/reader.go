package local

import (
	"context"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
	"github.com/cellarstore/cellar/internal/vfs"
)

// reader reads one blob. It implements [cellar.ReaderAt] and
// [cellar.FileReader].
type reader struct {
	file vfs.File
	size int64
}

var (
	_ cellar.ReaderAt   = (*reader)(nil)
	_ cellar.FileReader = (*reader)(nil)
)

// ReaderAt opens the content of desc.Digest: the file that lies there, if it is
// a regular one; nothing is verified. The reader implements
// [cellar.FileReader]. See [cellar.Provider].
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	if err := s.begin(ctx, desc.Digest); err != nil {
		return nil, err
	}
	f, info, err := s.openBlob(desc.Digest)
	if err != nil {
		return nil, err
	}
	return &reader{file: f, size: info.Size}, nil
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) { return r.file.ReadAt(p, off) }
func (r *reader) Size() int64                             { return r.size }
func (r *reader) File() *os.File                          { return r.file.File() }
func (r *reader) Close() error                            { return fserr.Wrap(r.file.Close(), "close reader") }
