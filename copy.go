package cellar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Copy writes the content that src holds to w and commits it.
//
// It continues at the offset that w stands at, so src is the whole content
// whatever w has of it: byte n of the content is byte n of src. A src that is
// an [io.Seeker] is read from its own beginning wherever its position is, and
// so is one that is an [io.ReaderAt] alone; any other stands at its first byte,
// and what w has already is read from it and dropped. If w has size bytes, src
// is not read at all.
//
// size and expected are zero where they are not known. If size is known, a src
// that ends before is FailedPrecondition and [io.ErrUnexpectedEOF], one that
// goes on is FailedPrecondition, and w never receives more than size bytes. An
// error of src is returned with its cause, also io.ErrUnexpectedEOF: what a
// broken source gave is never committed. opts go to [Writer.Commit], whose
// errors Copy returns, except that AlreadyExists is success.
//
// If Write or Commit asks for it by [ErrReset], Copy starts again where w then
// stands, provided that src can go back; after too many resets in one call it
// returns Aborted, which is ErrReset too.
//
// ctx is looked at between chunks of at most 1 MiB; a regular file that the
// writer takes in one piece is one chunk. Commit alone ends w's life: on an
// error before it, w is open and keeps what it received, for the caller to
// close. When Copy returns nil, the content is durable.
func Copy(ctx context.Context, w Writer, src io.Reader, size int64, expected digest.Digest, opts ...Opt) error {
	if size < 0 {
		return fmt.Errorf("copy of %d bytes: %w", size, errdefs.ErrInvalidArgument)
	}
	s := &source{r: src}
	for range maxResets {
		err := copyOnce(ctx, w, s, size, expected, opts)
		if !errors.Is(err, ErrReset) {
			return err
		}
	}
	return fmt.Errorf("%w: gave up after %d times: %w", errdefs.ErrAborted, maxResets, ErrReset)
}

// CopyReader appends to w what src has beyond the offset that w stands at, to
// src's end, and returns the number of bytes that w took. It finds its place
// in src as [Copy] does. It does not commit, and w stays open.
//
// An error of src or w is returned with its cause; what came before it is in w.
func CopyReader(ctx context.Context, w Writer, src io.Reader) (int64, error) {
	offset, err := offsetOf(w)
	if err != nil {
		return 0, err
	}
	s := &source{r: src}
	if err := s.seek(ctx, offset); err != nil {
		return 0, err
	}
	return transfer(ctx, w, s, 0, offset)
}

// CopyReaderAt appends to w the n bytes of src from the offset that w stands
// at. Fewer are FailedPrecondition and [io.ErrUnexpectedEOF]; those that were
// there are in w. It does not commit, and w stays open.
func CopyReaderAt(ctx context.Context, w Writer, src io.ReaderAt, n int64) error {
	if n < 0 {
		return fmt.Errorf("copy of %d bytes: %w", n, errdefs.ErrInvalidArgument)
	}
	offset, err := offsetOf(w)
	if err != nil {
		return err
	}
	copied, err := copyChunks(ctx, w, io.NewSectionReader(src, offset, n), n)
	if err != nil {
		return err
	}
	return shortSource(copied, n)
}

const (
	maxResets = 16
	chunkSize = 1 << 20
	// maxEmptyReads is how often in a row a source may return neither bytes
	// nor an error.
	maxEmptyReads = 100
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// copyOnce is one attempt of Copy.
func copyOnce(ctx context.Context, w Writer, s *source, size int64, expected digest.Digest, opts []Opt) error {
	offset, err := offsetOf(w)
	if err != nil {
		return err
	}
	if err := fill(ctx, w, s, size, offset); err != nil {
		return err
	}
	err = w.Commit(ctx, size, expected, opts...)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// fill brings w from offset to size, or to the end of s where size is zero.
func fill(ctx context.Context, w Writer, s *source, size, offset int64) error {
	switch {
	case size > 0 && offset == size:
		return ctx.Err()
	case size > 0 && offset > size:
		return fmt.Errorf("ingestion has %d bytes already, more than %d: %w", offset, size, errdefs.ErrFailedPrecondition)
	}
	if err := s.seek(ctx, offset); err != nil {
		return err
	}
	copied, err := transfer(ctx, w, s, size, offset)
	if err != nil || size == 0 {
		return err
	}
	if err := shortSource(copied, size-offset); err != nil {
		return err
	}
	return s.expectEnd(ctx, size)
}

// transfer moves the bytes of s from offset up to size, or to its end where
// size is zero, and returns their number.
func transfer(ctx context.Context, w Writer, s *source, size, offset int64) (int64, error) {
	if from, ok := w.(io.ReaderFrom); ok && offset == 0 && s.isFile(size) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := from.ReadFrom(s.r)
		s.pos += n
		return n, err
	}
	limit := int64(-1)
	if size > 0 {
		limit = size - offset
	}
	return copyChunks(ctx, w, s, limit)
}

func offsetOf(w Writer) (int64, error) {
	st, err := w.Status()
	if err != nil {
		return 0, fmt.Errorf("status of the writer: %w", err)
	}
	return st.Offset, nil
}

func shortSource(got, want int64) error {
	if got >= want {
		return nil
	}
	return fmt.Errorf("source ended after %d of %d bytes: %w: %w", got, want, errdefs.ErrFailedPrecondition, io.ErrUnexpectedEOF)
}

// copyChunks copies limit bytes, or all if limit is negative, and returns how
// many dst took. The end of src is no error. What src gave before it failed
// is written all the same, so that it need not be fetched again.
func copyChunks(ctx context.Context, dst io.Writer, src io.Reader, limit int64) (int64, error) {
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	var done int64
	for limit < 0 || done < limit {
		p := buf[:]
		if limit >= 0 {
			p = p[:min(chunkSize, limit-done)]
		}
		n, readErr := readChunk(ctx, src, p)
		if n > 0 {
			taken, err := dst.Write(p[:n])
			done += int64(taken)
			switch {
			case err != nil:
				return done, err
			case taken < n:
				return done, io.ErrShortWrite
			}
		}
		switch {
		case readErr == io.EOF:
			return done, nil
		case readErr != nil:
			return done, readErr
		}
	}
	return done, nil
}

// readChunk fills p. It returns io.EOF only for the end of src.
func readChunk(ctx context.Context, src io.Reader, p []byte) (int, error) {
	n, empty := 0, 0
	for n < len(p) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		m, err := src.Read(p[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, io.EOF
		case err != nil:
			return n, fmt.Errorf("read source: %w", err)
		case m > 0:
			empty = 0
		case empty == maxEmptyReads:
			return n, fmt.Errorf("read source: %w", io.ErrNoProgress)
		default:
			empty++
		}
	}
	return n, nil
}

// source is a reader that can be brought to an offset, as far as r can.
type source struct {
	r       io.Reader
	section *io.SectionReader // reads in place of r, where r is an io.ReaderAt and no io.Seeker
	pos     int64             // the offset that the next byte has, if r cannot seek
}

// Read reads at the offset that seek went to.
func (s *source) Read(p []byte) (int, error) {
	if s.section != nil {
		return s.section.Read(p)
	}
	n, err := s.r.Read(p)
	s.pos += int64(n)
	return n, err
}

// seek makes the byte at offset the next to be read.
func (s *source) seek(ctx context.Context, offset int64) error {
	switch r := s.r.(type) {
	case io.Seeker:
		at, err := r.Seek(offset, io.SeekStart)
		if err == nil && at != offset {
			return fmt.Errorf("source went to offset %d instead of %d: %w", at, offset, errdefs.ErrInternal)
		}
		if err == nil {
			s.pos = offset
			return nil
		}
		// Pipes have the method and refuse the call: they are read forward.
	case io.ReaderAt:
		s.section = io.NewSectionReader(r, offset, 1<<63-1)
		return nil
	}
	return s.skip(ctx, offset)
}

// skip reads and drops what lies before offset.
func (s *source) skip(ctx context.Context, offset int64) error {
	if offset < s.pos {
		return fmt.Errorf("source can't go back from offset %d to %d: %w", s.pos, offset, errdefs.ErrFailedPrecondition)
	}
	want := offset - s.pos
	got, err := copyChunks(ctx, io.Discard, s, want)
	if err != nil {
		return err
	}
	return shortSource(got, want)
}

// expectEnd returns FailedPrecondition if s has bytes beyond size.
func (s *source) expectEnd(ctx context.Context, size int64) error {
	n, err := readChunk(ctx, s, make([]byte, 1))
	switch {
	case n > 0:
		return fmt.Errorf("source has more than %d bytes: %w", size, errdefs.ErrFailedPrecondition)
	case err == io.EOF:
		return nil
	}
	return err
}

// isFile tells whether a writer may take the file below s in one piece: it is
// a regular one, of size bytes if that is not zero.
func (s *source) isFile(size int64) bool {
	f, ok := s.r.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode().IsRegular() && (size == 0 || fi.Size() == size)
}
