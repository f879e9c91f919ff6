package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
)

// IngestFile makes the file at path content and describes it. The file must be
// a regular one, or a link to one. Where the file system can, the two share
// their blocks (FICLONE) or the kernel copies (copy_file_range); the digest is
// that of the store's own copy, whatever happens to the file meanwhile.
//
// opts may give a ref and a descriptor, whose size and digest the file must
// have. Without a ref one is made up of the file's path, size and time, so
// that a later call goes on where one that was interrupted stopped. Content
// that is there already is success. Errors are those of Writer and Commit; a
// file that is not there is NotFound. ctx is looked at between chunks of some
// MiB.
func (s *Store) IngestFile(ctx context.Context, path string, opts ...cellar.WriterOpt) (cellar.Info, error) {
	if err := s.usable(ctx); err != nil {
		return cellar.Info{}, err
	}
	src, err := os.Open(path)
	if err != nil {
		return cellar.Info{}, fserr.Wrap(err, "ingest file")
	}
	defer src.Close()
	file, err := src.Stat()
	if err != nil {
		return cellar.Info{}, fserr.Wrap(err, "ingest file")
	}
	if !file.Mode().IsRegular() {
		return cellar.Info{}, fmt.Errorf("ingest file %s: no regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	wo := cellar.WriterOpts{Ref: fileRef(path, file)}
	for _, opt := range opts {
		if err := opt(&wo); err != nil {
			return cellar.Info{}, err
		}
	}
	dgst, err := s.importFrom(ctx, src, wo)
	if err != nil {
		return cellar.Info{}, err
	}
	return s.Info(ctx, dgst)
}

// fileRef names a file as it is now: after a change it is another ref.
func fileRef(path string, file os.FileInfo) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", path, file.Size(), file.ModTime().UnixNano()))
	return "file-" + hex.EncodeToString(sum[:])
}

func (s *Store) importFrom(ctx context.Context, src *os.File, wo cellar.WriterOpts) (digest.Digest, error) {
	w, err := s.newWriter(ctx, []cellar.WriterOpt{cellar.WithRef(wo.Ref), cellar.WithDescriptor(wo.Desc)})
	if errdefs.IsAlreadyExists(err) {
		return wo.Desc.Digest, nil
	}
	if err != nil {
		return "", err
	}
	defer w.Close()
	if _, err := src.Seek(w.offset(), io.SeekStart); err != nil {
		return "", fserr.Wrap(err, "ingest file")
	}
	if _, err := w.readFrom(ctx, src); err != nil {
		return "", err
	}
	err = w.Commit(ctx, max(wo.Desc.Size, 0), wo.Desc.Digest)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return "", err
	}
	return w.Digest(), nil
}

// ReadFrom implements [io.ReaderFrom]: it appends what r has from its position
// on. From a regular file the kernel copies, or shares the blocks. An error
// leaves what was taken, as Status tells.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	return w.readFrom(context.Background(), r)
}

func (w *writer) readFrom(ctx context.Context, r io.Reader) (int64, error) {
	f, ok := r.(*os.File)
	if !ok {
		return w.readChunks(ctx, r)
	}
	n, err := w.readFile(ctx, f)
	if errors.Is(err, errors.ErrUnsupported) {
		var m int64
		m, err = w.readChunks(ctx, r)
		n += m
	}
	return n, err
}

// readChunks appends what r has by reading and writing it.
func (w *writer) readChunks(ctx context.Context, r io.Reader) (total int64, err error) {
	buf := make([]byte, hashChunk)
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, rerr := io.ReadFull(r, buf)
		if n > 0 {
			m, err := w.Write(buf[:n])
			total += int64(m)
			if err != nil {
				return total, err
			}
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			return total, nil
		}
		if rerr != nil {
			return total, fserr.Wrap(rerr, "read source")
		}
	}
}

// importChunk is how much the kernel is asked to copy at once.
const importChunk = 8 << 20

// readFile appends the rest of src by the kernel's copying. ErrUnsupported
// says that it can't, from the position on at which src then stands.
func (w *writer) readFile(ctx context.Context, src *os.File) (total int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.check("write"); err != nil {
		return 0, err
	}
	pos, err := src.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, errors.ErrUnsupported // a pipe
	}
	info, err := src.Stat()
	dst := w.data.File()
	// A file without a size may be one of /proc, which has bytes all the same.
	if err != nil || !info.Mode().IsRegular() || info.Size() <= pos || dst == nil {
		return 0, errors.ErrUnsupported
	}
	w.ragged = true
	w.unclean()
	im := &fileImport{w: w, src: src, dst: dst, from: pos, to: w.offset()}
	total, err = im.run(ctx)
	if _, serr := src.Seek(pos+total, io.SeekStart); serr != nil && err == nil {
		err = serr
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		err = fserr.Wrap(err, "import into ingest %s", cellar.Shorten(w.header.ref))
	}
	return total, err
}

// fileImport copies a file into an ingestion and hashes the copy behind it.
type fileImport struct {
	w        *writer
	src, dst *os.File
	from, to int64 // where in src and dst it begins
}

func (im *fileImport) run(ctx context.Context) (total int64, err error) {
	if im.from == 0 && im.to == 0 && clone(im.dst, im.src) == nil {
		info, err := im.dst.Stat()
		if err != nil {
			return 0, err
		}
		return im.hash(ctx, 0, info.Size())
	}
	copying, cancel := context.WithCancel(ctx)
	copied := make(chan int64)
	result := make(chan error, 1)
	go func() {
		defer close(copied)
		result <- im.copy(copying, copied)
	}()
	for n := range copied {
		m, herr := im.hash(ctx, total, n)
		total += m
		if herr != nil {
			err = herr
			cancel()
			break
		}
	}
	cancel()
	for range copied { // until the copying has ended
	}
	if cerr := <-result; err == nil {
		err = cerr
	}
	return total, err
}

// copy copies chunk after chunk and tells how long each was.
func (im *fileImport) copy(ctx context.Context, copied chan<- int64) error {
	for done := int64(0); ; {
		n, err := copyRange(im.dst, im.to+done, im.src, im.from+done, importChunk)
		if err != nil || n == 0 {
			return err
		}
		done += n
		select {
		case copied <- n:
		case <-ctx.Done():
			return nil // hash tells
		}
	}
}

// hash takes n bytes at off of what was copied into the ingestion.
func (im *fileImport) hash(ctx context.Context, off, n int64) (done int64, err error) {
	w := im.w
	buf := make([]byte, min(n, hashChunk))
	for done < n {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		p := buf[:min(int64(len(buf)), n-done)]
		m, err := w.data.ReadAt(p, im.to+off+done)
		w.hash.Write(p[:m])
		w.advance(m)
		done += int64(m)
		if m < len(p) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
		w.checkpointBeside()
		if err := w.poll(); err != nil {
			return done, err
		}
	}
	return done, nil
}
