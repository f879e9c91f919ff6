package cellar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// fakeWriter is an ingestion in memory that fails where it is told to.
type fakeWriter struct {
	data        []byte
	writeErrs   []error // of the next writes, which take half of their bytes; nil: none
	commitErrs  []error // of the next commits
	onReset     func(w *fakeWriter)
	shortWrites bool
	commits     int
	closes      int
	labels      map[string]string
}

func (w *fakeWriter) Write(p []byte) (int, error) {
	if err := pop(&w.writeErrs); err != nil {
		w.data = append(w.data, p[:len(p)/2]...)
		if errors.Is(err, cellar.ErrReset) && w.onReset != nil {
			w.onReset(w)
		}
		return len(p) / 2, err
	}
	if w.shortWrites {
		p = p[:len(p)-1]
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *fakeWriter) Commit(_ context.Context, size int64, expected digest.Digest, opts ...cellar.Opt) error {
	w.commits++
	if err := pop(&w.commitErrs); err != nil {
		if errors.Is(err, cellar.ErrReset) && w.onReset != nil {
			w.onReset(w)
		}
		return err
	}
	var info cellar.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return err
		}
	}
	w.labels = info.Labels
	if size != 0 && size != int64(len(w.data)) || expected != "" && expected != w.Digest() {
		return errdefs.ErrFailedPrecondition
	}
	return nil
}

func (w *fakeWriter) Digest() digest.Digest { return digest.FromBytes(w.data) }
func (w *fakeWriter) Close() error          { w.closes++; return nil }
func (w *fakeWriter) Truncate(int64) error  { w.data = nil; return nil }
func (w *fakeWriter) Status() (cellar.Status, error) {
	return cellar.Status{Offset: int64(len(w.data))}, nil
}

func pop(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

// repeat returns n times err.
func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// The kinds of readers that differ in how they are brought to an offset.
var sourceKinds = map[string]func(p string) io.Reader{
	"seeker":     func(p string) io.Reader { return struct{ io.ReadSeeker }{strings.NewReader(p)} },
	"reader at":  func(p string) io.Reader { return readerAndAt{strings.NewReader(p)} },
	"plain":      func(p string) io.Reader { return struct{ io.Reader }{strings.NewReader(p)} },
	"pipe":       func(p string) io.Reader { return deafSeeker{strings.NewReader(p)} },
	"byte-wise":  func(p string) io.Reader { return iotest.OneByteReader(strings.NewReader(p)) },
	"data+EOF":   func(p string) io.Reader { return iotest.DataErrReader(strings.NewReader(p)) },
	"used up":    func(p string) io.Reader { r := strings.NewReader(p); _, _ = r.Seek(3, 0); return r },
	"empty read": func(p string) io.Reader { return &stutterer{r: strings.NewReader(p)} },
}

// readerAndAt reads, and reads at offsets, but does not seek. Its Read must
// never be used where ReadAt can be.
type readerAndAt struct{ r *strings.Reader }

func (r readerAndAt) Read([]byte) (int, error)                { return 0, errors.New("read without offset") }
func (r readerAndAt) ReadAt(p []byte, off int64) (int, error) { return r.r.ReadAt(p, off) }

// deafSeeker has a Seek that refuses, as that of a pipe's os.File.
type deafSeeker struct{ io.Reader }

func (deafSeeker) Seek(int64, int) (int64, error) { return 0, errors.New("illegal seek") }

// stutterer returns no byte and no error every other time.
type stutterer struct {
	r     io.Reader
	quiet bool
}

func (s *stutterer) Read(p []byte) (int, error) {
	if s.quiet = !s.quiet; s.quiet {
		return 0, nil
	}
	return s.r.Read(p)
}

const text = "one blob, many readers"

// Copy continues at the writer's offset from every kind of source, with size
// and digest known or not.
func TestCopyContinues(t *testing.T) {
	for kind, open := range sourceKinds {
		for _, have := range []int{0, 1, 10, len(text) - 1, len(text)} {
			for _, size := range []int64{0, int64(len(text))} {
				w := &fakeWriter{data: []byte(text[:have])}
				err := cellar.Copy(t.Context(), w, open(text), size, digest.FromString(text),
					cellar.WithLabels(map[string]string{"a": "b"}))
				require.NoError(t, err, "%s from %d, size %d", kind, have, size)
				require.Equal(t, text, string(w.data), "%s from %d, size %d", kind, have, size)
				require.Equal(t, map[string]string{"a": "b"}, w.labels)
				require.Zero(t, w.closes, "Copy leaves closing to the caller")
			}
		}
	}
}

// Copy does not read a source whose content the writer has already.
func TestCopyCompleteReadsNothing(t *testing.T) {
	w := &fakeWriter{data: []byte(text)}
	src := iotest.ErrReader(errors.New("read"))
	require.NoError(t, cellar.Copy(t.Context(), w, src, int64(len(text)), ""))
	require.Equal(t, 1, w.commits)
}

// Copy of more than one chunk keeps order and length.
func TestCopyLarge(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<16+1)
	w := &fakeWriter{data: bytes.Clone(large[:100])}
	src := struct{ io.Reader }{bytes.NewReader(large)}
	require.NoError(t, cellar.Copy(t.Context(), w, src, int64(len(large)), digest.FromBytes(large)))
	require.True(t, bytes.Equal(large, w.data))
}

// A source that is not as long as announced, or that fails, is an error and
// never committed; the writer keeps what came, and never more than size.
func TestCopyWrongSources(t *testing.T) {
	broken := errors.New("connection reset")
	n := int64(len(text))
	for name, tc := range map[string]struct {
		src  io.Reader
		size int64
		have string
		want string // what the ingestion holds afterwards
		errs []error
	}{
		"ends early":         {strings.NewReader(text[:5]), n, "", text[:5], []error{io.ErrUnexpectedEOF, errdefs.ErrFailedPrecondition}},
		"ends before offset": {struct{ io.Reader }{strings.NewReader(text[:5])}, n, text[:7], text[:7], []error{io.ErrUnexpectedEOF}},
		"goes on":            {strings.NewReader(text + "more"), n, "", text, []error{errdefs.ErrFailedPrecondition}},
		"goes on by a byte":  {strings.NewReader(text + "!"), n, text[:3], text, []error{errdefs.ErrFailedPrecondition}},
		"fails":              {io.MultiReader(strings.NewReader(text[:5]), iotest.ErrReader(broken)), n, "", text[:5], []error{broken}},
		"fails, size unknown": {
			io.MultiReader(strings.NewReader(text[:5]), iotest.ErrReader(broken)), 0, "", text[:5], []error{broken},
		},
		"truncated stream, size unknown": {
			io.MultiReader(strings.NewReader(text[:5]), iotest.ErrReader(io.ErrUnexpectedEOF)), 0, "", text[:5], []error{io.ErrUnexpectedEOF},
		},
		"fails at its end":      {io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), n, "", text, []error{broken}},
		"never gives anything":  {quiet{}, n, "", "", []error{io.ErrNoProgress}},
		"ingestion is too long": {strings.NewReader(text[:5]), 5, text, text, []error{errdefs.ErrFailedPrecondition}},
		"negative size":         {strings.NewReader(text), -1, "", "", []error{errdefs.ErrInvalidArgument}},
		"seeks elsewhere":       {strayer{strings.NewReader(text)}, n, text[:2], text[:2], []error{errdefs.ErrInternal}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fakeWriter{data: []byte(tc.have)}
			err := cellar.Copy(t.Context(), w, tc.src, tc.size, "")
			for _, want := range tc.errs {
				require.ErrorIs(t, err, want)
			}
			require.Equal(t, tc.want, string(w.data))
			require.Zero(t, w.commits)
		})
	}
}

type quiet struct{}

func (quiet) Read([]byte) (int, error) { return 0, nil }

// strayer seeks to one byte beyond what it is asked for.
type strayer struct{ *strings.Reader }

func (s strayer) Seek(off int64, whence int) (int64, error) { return s.Reader.Seek(off+1, whence) }

// AlreadyExists at Commit is success; other errors of the writer come through.
func TestCopyWriterErrors(t *testing.T) {
	full := errdefs.ErrResourceExhausted
	for name, tc := range map[string]struct {
		w       *fakeWriter
		want    error
		commits int
	}{
		"exists":      {&fakeWriter{commitErrs: []error{errdefs.ErrAlreadyExists}}, nil, 1},
		"commit":      {&fakeWriter{commitErrs: []error{full}}, full, 1},
		"write":       {&fakeWriter{writeErrs: []error{full}}, full, 0},
		"short write": {&fakeWriter{shortWrites: true}, io.ErrShortWrite, 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := cellar.Copy(t.Context(), tc.w, strings.NewReader(text), 0, "")
			require.ErrorIs(t, err, tc.want)
			require.Equal(t, tc.commits, tc.w.commits)
		})
	}
}

// ErrReset from Write or Commit makes Copy start again where the writer then
// stands, a bounded number of times, if the source can go back.
func TestCopyReset(t *testing.T) {
	drop := func(w *fakeWriter) { w.data = nil }
	keep := func(*fakeWriter) {}
	for name, tc := range map[string]struct {
		kind    string
		writes  []error
		commits []error
		onReset func(*fakeWriter)
		want    []error
	}{
		"one write, seeker":    {"seeker", repeat(cellar.ErrReset, 1), nil, drop, nil},
		"one write, reader at": {"reader at", repeat(cellar.ErrReset, 1), nil, drop, nil},
		"ten writes":           {"seeker", repeat(cellar.ErrReset, 10), nil, drop, nil},
		"ten commits":          {"reader at", nil, repeat(cellar.ErrReset, 10), drop, nil},
		"too many writes":      {"seeker", repeat(cellar.ErrReset, 1000), nil, drop, []error{cellar.ErrReset, errdefs.ErrAborted}},
		"too many commits":     {"seeker", nil, repeat(cellar.ErrReset, 1000), drop, []error{cellar.ErrReset, errdefs.ErrAborted}},
		"plain can't go back":  {"plain", repeat(cellar.ErrReset, 1), nil, drop, []error{errdefs.ErrFailedPrecondition}},
		"pipe can't go back":   {"pipe", repeat(cellar.ErrReset, 1), nil, drop, []error{errdefs.ErrFailedPrecondition}},
		"plain need not go back": {
			"plain", nil, repeat(cellar.ErrReset, 1), keep, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fakeWriter{writeErrs: tc.writes, commitErrs: tc.commits, onReset: tc.onReset}
			err := cellar.Copy(t.Context(), w, sourceKinds[tc.kind](text), int64(len(text)), digest.FromString(text))
			for _, want := range tc.want {
				require.ErrorIs(t, err, want)
			}
			if tc.want == nil {
				require.NoError(t, err)
				require.Equal(t, text, string(w.data))
			}
		})
	}
}

// A context that ends stops Copy between chunks, and before its first byte.
func TestCopyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := &fakeWriter{}
	endless := readerFunc(func(p []byte) (int, error) {
		if len(w.data) > 0 {
			cancel()
		}
		return len(p), nil
	})
	require.ErrorIs(t, cellar.Copy(ctx, w, endless, 0, ""), context.Canceled)
	require.Positive(t, len(w.data))
	require.Zero(t, w.commits)

	w = &fakeWriter{}
	require.ErrorIs(t, cellar.Copy(ctx, w, strings.NewReader(text), 0, ""), context.Canceled)
	require.Empty(t, w.data)
	w = &fakeWriter{data: []byte(text)}
	require.ErrorIs(t, cellar.Copy(ctx, w, nil, int64(len(text)), ""), context.Canceled)
	require.Zero(t, w.commits)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fileTaker is a writer that takes whole files.
type fileTaker struct {
	fakeWriter
	taken int
}

func (w *fileTaker) ReadFrom(r io.Reader) (int64, error) {
	w.taken++
	if _, ok := r.(*os.File); !ok {
		return 0, errors.New("not the file itself")
	}
	p, err := io.ReadAll(r)
	w.data = append(w.data, p...)
	return int64(len(p)), err
}

// A writer that is an io.ReaderFrom gets a regular file in one piece if it
// starts at zero and the file has the announced size; wherever the file's
// position is. Otherwise it gets the right bytes by Write.
func TestCopyWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	n := int64(len(text))
	for name, tc := range map[string]struct {
		have  string
		size  int64
		taken int
		want  error
	}{
		"size known":        {"", n, 1, nil},
		"size unknown":      {"", 0, 1, nil},
		"resumed":           {text[:4], n, 0, nil},
		"file is too long":  {"", n - 1, 0, errdefs.ErrFailedPrecondition},
		"file is too short": {"", n + 1, 0, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			_, err = f.Seek(7, io.SeekStart)
			require.NoError(t, err)
			w := &fileTaker{fakeWriter: fakeWriter{data: []byte(tc.have)}}
			require.ErrorIs(t, cellar.Copy(t.Context(), w, f, tc.size, ""), tc.want)
			require.Equal(t, tc.taken, w.taken)
			if tc.want == nil {
				require.Equal(t, text, string(w.data))
			}
		})
	}
}

// A pipe is copied though its file claims to seek.
func TestCopyPipe(t *testing.T) {
	r, out, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	go func() {
		_, _ = out.WriteString(text)
		_ = out.Close()
	}()
	w := &fileTaker{fakeWriter: fakeWriter{data: []byte(text[:4])}}
	require.NoError(t, cellar.Copy(t.Context(), w, r, int64(len(text)), digest.FromString(text)))
	require.Equal(t, text, string(w.data))
}

// CopyReader appends the rest of the source and says how much that was,
// without committing.
func TestCopyReader(t *testing.T) {
	for kind, open := range sourceKinds {
		w := &fakeWriter{data: []byte(text[:6])}
		n, err := cellar.CopyReader(t.Context(), w, open(text))
		require.NoError(t, err, kind)
		require.Equal(t, int64(len(text)-6), n, kind)
		require.Equal(t, text, string(w.data), kind)
		require.Zero(t, w.commits+w.closes, kind)
	}
	broken := errors.New("broken")
	w := &fakeWriter{}
	n, err := cellar.CopyReader(t.Context(), w, io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Equal(t, int64(len(text)), n)
}

// CopyReaderAt appends exactly n bytes from the writer's offset on.
func TestCopyReaderAt(t *testing.T) {
	for name, tc := range map[string]struct {
		n    int64
		want string
		err  error
	}{
		"part":     {5, text[:8], nil},
		"to end":   {int64(len(text) - 3), text, nil},
		"nothing":  {0, text[:3], nil},
		"too much": {int64(len(text)), text, io.ErrUnexpectedEOF},
		"negative": {-1, text[:3], errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fakeWriter{data: []byte(text[:3])}
			require.ErrorIs(t, cellar.CopyReaderAt(t.Context(), w, strings.NewReader(text), tc.n), tc.err)
			require.Equal(t, tc.want, string(w.data))
			require.Zero(t, w.commits)
		})
	}
}
