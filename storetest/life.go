package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// sizes lie around those at which stores change their ways: nothing, less and
// more than what is kept in memory, several buffers.
var sizes = []int{0, 1, 6, 500, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3<<20 + 7}

var lifePromises = []promise{
	{"until Commit the bytes are seen by the IngestManager alone", func(e *env) {
		p := blob("uncommitted", 1000)
		w := e.open("ref", withDigest(digest.FromBytes(p)))
		e.write(w, p)
		e.requireAbsent(digest.FromBytes(p))
		requireClass(e, e.store.Delete(e.ctx, digest.FromBytes(p)), errdefs.ErrNotFound)
		st, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, int64(1000), st.Offset)
	}},
	{"from Commit on they are seen by Manager and Provider alone", func(e *env) {
		p := blob("committed", 1000)
		w := e.open("ref")
		e.write(w, p)
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		e.requireContent(digest.FromBytes(p), p)
		e.requireNoIngestion("ref")
	}},
	{"content of every size is read as it was written", func(e *env) {
		for _, n := range sizes {
			p := blob("size", n)
			e.requireContent(e.put(p), p)
		}
	}},
	{"content and ingestions survive closing and opening the store", func(e *env) {
		var stored []digest.Digest
		for _, n := range sizes {
			stored = append(stored, e.put(blob("kept", n)))
		}
		half := blob("left", 70_000)
		e.leave("ref", half, withSize(100_000))
		before, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		infos := walk(e, e.ctx, e.store)

		e.reopen()
		for i, n := range sizes {
			e.requireContent(stored[i], blob("kept", n))
		}
		require.Equal(e, infos, walk(e, e.ctx, e.store))
		after, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Equal(e, before, after)
		w := e.open("ref")
		require.Equal(e, digest.FromBytes(half), w.Digest())
	}},
	{"ingestions that are open when the store is closed are left to be resumed", openWhenClosed},
}

// openWhenClosed leaves an ingestion without closing its writer.
func openWhenClosed(e *env) {
	for _, n := range sizes {
		w, err := e.store.Writer(e.ctx, cellar.WithRef(fmt.Sprint(n)))
		require.NoError(e, err)
		e.write(w, blob("open", n))
	}
	e.reopen()
	for _, n := range sizes {
		e.requireLeft(fmt.Sprint(n), blob("open", n))
	}
}

var readerPromises = []promise{
	{"ReadAt follows io.ReaderAt at every offset", func(e *env) {
		for _, n := range sizes {
			p := blob("read at", n)
			ra := e.reader(e.put(p))
			e.requireReads(ra, p)
			for _, off := range []int{0, n / 2, n - 1, n, n + 1, n + 1<<20} {
				e.requireReadAt(ra, p, max(off, 0))
			}
			_, err := ra.ReadAt(make([]byte, 1), -1)
			require.Error(e, err)
		}
	}},
	{"ReadAt may be called concurrently", func(e *env) {
		p := blob("concurrent", 300_000)
		ra := e.reader(e.put(p))
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				got, err := io.ReadAll(io.NewSectionReader(ra, int64(i*1000), 250_000))
				if err != nil || string(got) != string(p[i*1000:i*1000+250_000]) {
					e.Errorf("reader %d: wrong bytes, error %v", i, err)
				}
			})
		}
		wg.Wait()
	}},
	{"two readers made of one ReaderAt do not share a position", func(e *env) {
		p := blob("positions", 1000)
		ra := e.reader(e.put(p))
		first, second := cellar.NewReader(ra), cellar.NewReader(ra)
		for _, r := range []io.Reader{first, second} {
			_, err := io.CopyN(io.Discard, r, 500)
			require.NoError(e, err)
		}
		rest, err := io.ReadAll(first)
		require.NoError(e, err)
		requireBytes(e, p[500:], rest)
	}},
	{"Size is the length of the content", func(e *env) {
		for _, n := range sizes {
			require.Equal(e, int64(n), e.reader(e.put(blob("length", n))).Size())
		}
	}},
	{"closing twice is no error", func(e *env) {
		ra, err := e.store.ReaderAt(e.ctx, describe(e.put([]byte("close")), 0))
		require.NoError(e, err)
		require.NoError(e, ra.Close())
		require.NoError(e, ra.Close())
	}},
	{"content that is deleted stays readable through an open reader", func(e *env) {
		for _, n := range sizes {
			p := blob("outlived", n)
			dgst := e.put(p)
			ra := e.reader(dgst)
			require.NoError(e, e.store.Delete(e.ctx, dgst))
			e.requireReads(ra, p)
		}
	}},
	{"nothing in the descriptor but the digest is looked at", func(e *env) {
		p := []byte("the content itself")
		desc := ocispec.Descriptor{
			Digest: e.put(p), Size: 99, MediaType: "no/such", Data: []byte("other"),
			URLs: []string{"http://nowhere.invalid"}, Annotations: map[string]string{"a": "b"},
		}
		ra, err := e.store.ReaderAt(e.ctx, desc)
		require.NoError(e, err)
		defer ra.Close()
		e.requireReads(ra, p)
	}},
	{"content that is not there is NotFound", func(e *env) {
		_, err := e.store.ReaderAt(e.ctx, describe(digest.FromString("absent"), 6))
		requireClass(e, err, errdefs.ErrNotFound)
	}},
	{"the context governs opening alone, not the reads that follow", func(e *env) {
		p := blob("after the context", 1000)
		dgst := e.put(p)
		ctx, cancel := context.WithCancel(e.ctx)
		ra, err := e.store.ReaderAt(ctx, describe(dgst, 0))
		require.NoError(e, err)
		defer ra.Close()
		cancel()
		e.requireReads(ra, p)
	}},
}

// reader opens dgst until the end of the test.
func (e *env) reader(dgst digest.Digest) cellar.ReaderAt {
	e.Helper()
	ra, err := e.store.ReaderAt(e.ctx, describe(dgst, 0))
	require.NoError(e, err)
	e.Cleanup(func() { require.NoError(e, ra.Close()) })
	return ra
}

// requireReads checks that ra has exactly p, and that readers of short content
// behave in every respect.
func (e *env) requireReads(ra cellar.ReaderAt, p []byte) {
	e.Helper()
	if len(p) <= 1000 {
		require.NoError(e, iotest.TestReader(cellar.NewReader(ra), p))
		return
	}
	got, err := io.ReadAll(cellar.NewReader(ra))
	require.NoError(e, err)
	requireBytes(e, p, got)
}

// requireReadAt reads ten bytes at off and compares them with those of p.
func (e *env) requireReadAt(ra io.ReaderAt, p []byte, off int) {
	e.Helper()
	buf := make([]byte, 10)
	n, err := ra.ReadAt(buf, int64(off))
	want := p[min(off, len(p)):min(off+len(buf), len(p))]
	require.Equal(e, string(want), string(buf[:n]))
	if n < len(buf) {
		require.Equal(e, io.EOF, err)
	} else if !errors.Is(err, io.EOF) {
		require.NoError(e, err)
	}
}
