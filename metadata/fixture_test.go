package metadata_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
)

// No test leaves a goroutine behind.
func TestMain(m *testing.M) {
	if run := os.Getenv(childEnv); run != "" {
		childMain(run)
	}
	goleak.VerifyTestMain(m)
}

// world is a database over a raw store on a file system in memory, which counts
// calls and lets them fail. It outlives both: they are closed, or killed, and
// opened again.
type world struct {
	*testing.T
	db    *metadata.DB
	blobs *local.Store
	mem   *vfs.Mem
	fault *vfs.Fault
	path  string // of the database
	opts  metadata.Options

	// wrap, if set, stands between the database and the raw store.
	wrap func(cellar.RawStore) cellar.Store
	// unsound says that the test breaks what Check looks at.
	unsound bool

	crash atomic.Pointer[func(point string) error]
	txs   atomic.Int64 // transactions that were to be flushed
}

// newWorld opens a world that is checked and closed when the test ends.
func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{T: t, mem: vfs.NewMem(), path: filepath.Join(t.TempDir(), "metadata.db")}
	for _, fn := range change {
		fn(w)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func withPolicy(p metadata.Policy) func(*world) { return func(w *world) { w.opts.Policy = p } }

func withClock(c *clock) func(*world) { return func(w *world) { w.opts.Now = c.now } }

func withRaw(wrap func(cellar.RawStore) cellar.Store) func(*world) {
	return func(w *world) { w.wrap = wrap }
}

func (w *world) start() {
	w.Helper()
	require.NoError(w, w.tryStart())
}

// tryStart opens raw store and database, and neither if one can't be.
func (w *world) tryStart() (err error) {
	w.fault = vfs.NewFault(w.mem)
	if w.blobs, err = local.Open("/store", local.Options{FS: w.fault, Now: w.opts.Now}); err != nil {
		return err
	}
	var raw cellar.Store = w.blobs
	if w.wrap != nil {
		raw = w.wrap(w.blobs)
	}
	if w.db, err = metadata.Open(w.path, raw, w.opts); err != nil {
		return errors.Join(err, w.blobs.Close())
	}
	w.db.SetCrashpoint(func(point string) error {
		if point == "before commit" {
			w.txs.Add(1)
		}
		if fn := w.crash.Load(); fn != nil {
			return (*fn)(point)
		}
		return nil
	})
	return nil
}

// at makes the commit protocol ask fn from now on.
func (w *world) at(fn func(point string) error) { w.crash.Store(&fn) }

// failAt makes the commit protocol fail at a point with err.
func (w *world) failAt(point string, err error) {
	w.at(func(at string) error {
		if at == point {
			return err
		}
		return nil
	})
}

// stop checks that nothing is damaged, closes everything, and checks that
// nothing stays open.
func (w *world) stop() {
	if w.db == nil {
		return
	}
	w.crash.Store(nil)
	w.fault.Heal()
	w.fault.OnCall(nil)
	if !w.unsound {
		w.requireSound()
	}
	w.close()
}

func (w *world) close() {
	w.Helper()
	require.NoError(w, w.db.Close())
	require.NoError(w, w.blobs.Close())
	require.Zero(w, w.fault.Handles(), "files left open")
	w.db, w.blobs = nil, nil
}

func (w *world) reopen() {
	w.Helper()
	w.close()
	w.start()
}

// kill ends both stores as the death of their process does, and opens what
// that leaves behind.
func (w *world) kill() {
	w.Helper()
	w.die(w.mem.Clone)
	w.start()
}

// powerLoss is kill where of what was not flushed only a part is kept.
func (w *world) powerLoss(seed uint64, keep float64) {
	w.Helper()
	w.die(func() *vfs.Mem { return w.mem.CrashClone(rand.New(rand.NewPCG(seed, 1)), keep) })
	w.start()
}

// die leaves both stores as they are; w is of what they leave behind.
func (w *world) die(clone func() *vfs.Mem) {
	w.Helper()
	path := filepath.Join(w.TempDir(), "metadata.db")
	require.NoError(w, w.db.Abandon(path))
	left := clone()
	w.crash.Store(nil)
	w.fault.Heal()
	_ = w.db.Close()
	_ = w.blobs.Close()
	w.db, w.blobs, w.path, w.mem = nil, nil, path, left
}

// requireSound checks that Check finds nothing.
func (w *world) requireSound() {
	w.Helper()
	findings, err := w.db.Check(context.Background())
	require.NoError(w, err)
	require.Empty(w, findings)
}

func (w *world) ns(name string) cellar.Store {
	w.Helper()
	store, err := w.db.Namespace(name)
	require.NoError(w, err)
	return store
}

// open opens a writer in ns.
func (w *world) open(ns, ref string, opts ...cellar.WriterOpt) cellar.Writer {
	w.Helper()
	return w.openIn(w.Context(), ns, ref, opts...)
}

func (w *world) openIn(ctx context.Context, ns, ref string, opts ...cellar.WriterOpt) cellar.Writer {
	w.Helper()
	cw, err := w.ns(ns).Writer(ctx, append([]cellar.WriterOpt{cellar.WithRef(ref)}, opts...)...)
	require.NoError(w, err)
	return cw
}

// begin opens a writer in ns and writes p.
func (w *world) begin(ns, ref string, p []byte, opts ...cellar.WriterOpt) cellar.Writer {
	w.Helper()
	cw := w.open(ns, ref, opts...)
	w.write(cw, p)
	return cw
}

func (w *world) write(cw cellar.Writer, p []byte) {
	w.Helper()
	n, err := cw.Write(p)
	require.NoError(w, err)
	require.Equal(w, len(p), n)
}

// put commits p in ns.
func (w *world) put(ns string, p []byte, opts ...cellar.Opt) digest.Digest {
	w.Helper()
	return w.putIn(w.Context(), ns, p, opts...)
}

func (w *world) putIn(ctx context.Context, ns string, p []byte, opts ...cellar.Opt) digest.Digest {
	w.Helper()
	dgst := digest.FromBytes(p)
	cw := w.openIn(ctx, ns, "put "+dgst.String())
	w.write(cw, p)
	require.NoError(w, cw.Commit(ctx, int64(len(p)), dgst, opts...))
	return dgst
}

func (w *world) delete(ns string, dgst digest.Digest) {
	w.Helper()
	require.NoError(w, w.ns(ns).Delete(w.Context(), dgst))
}

func (w *world) status(cw cellar.Writer) cellar.Status {
	w.Helper()
	st, err := cw.Status()
	require.NoError(w, err)
	return st
}

// collect runs a collection.
func (w *world) collect() {
	w.Helper()
	_, err := w.db.GarbageCollect(context.Background())
	require.NoError(w, err)
}

// requireContent checks that ns has want, record and bytes.
func (w *world) requireContent(ns string, want []byte) {
	w.Helper()
	w.requireContentUnder(ns, digest.FromBytes(want), want)
}

func (w *world) requireContentUnder(ns string, dgst digest.Digest, want []byte) {
	w.Helper()
	got, err := cellar.ReadBlob(context.Background(), w.ns(ns), describe(dgst, 0))
	require.NoError(w, err)
	require.Equal(w, len(want), len(got))
	require.Equal(w, digest.FromBytes(want), digest.FromBytes(got), "bytes of %s", dgst)
	info, err := w.ns(ns).Info(context.Background(), dgst)
	require.NoError(w, err)
	require.Equal(w, int64(len(want)), info.Size)
}

// requireAbsent checks that ns sees nothing of dgst.
func (w *world) requireAbsent(ns string, dgst digest.Digest) {
	w.Helper()
	_, err := w.ns(ns).Info(context.Background(), dgst)
	requireClass(w, err, errNotFound)
	_, err = w.ns(ns).ReaderAt(context.Background(), describe(dgst, 0))
	requireClass(w, err, errNotFound)
}

// stored returns the digests that the raw store has bytes of, in order.
func (w *world) stored() []digest.Digest {
	w.Helper()
	all := []digest.Digest{}
	err := w.blobs.Walk(context.Background(), func(info cellar.Info) error {
		all = append(all, info.Digest)
		return nil
	})
	require.NoError(w, err)
	return all
}

// rawRefs returns the names of the raw store's ingestions.
func (w *world) rawRefs() []string {
	w.Helper()
	statuses, err := w.blobs.ListStatuses(context.Background())
	require.NoError(w, err)
	refs := []string{}
	for _, st := range statuses {
		refs = append(refs, st.Ref)
	}
	return refs
}

// listed returns the refs that ns shows.
func (w *world) listed(ns string) []string {
	w.Helper()
	statuses, err := w.ns(ns).ListStatuses(context.Background())
	require.NoError(w, err)
	refs := []string{}
	for _, st := range statuses {
		refs = append(refs, st.Ref)
	}
	return refs
}

// blobPath is where the raw store has a content.
func blobPath(dgst digest.Digest) string {
	return "/store/blobs/" + dgst.Algorithm().String() + "/" + dgst.Encoded()
}

// replaceBlob changes the file of dgst behind the back of a store that is not
// open, or removes it where p is nil.
func (w *world) replaceBlob(dgst digest.Digest, p []byte) {
	w.Helper()
	if err := w.mem.Remove(blobPath(dgst)); err != nil {
		require.ErrorIs(w, err, os.ErrNotExist)
	}
	if p == nil {
		return
	}
	f, err := w.mem.OpenFile(blobPath(dgst), os.O_WRONLY|os.O_CREATE, 0o400)
	require.NoError(w, err)
	_, err = f.WriteAt(p, 0)
	require.NoError(w, errors.Join(err, f.Close()))
}

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) step(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	return c.at
}

// blob returns n bytes that depend on name alone.
func blob(name string, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(p)
	return p
}

// Sizes of content that goes the one way and the other.
const (
	small = 1 << 10
	large = metadata.SmallBlob + 1
)

func describe(dgst digest.Digest, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: dgst, Size: size}
}

func withDigest(dgst digest.Digest) cellar.WriterOpt { return cellar.WithDescriptor(describe(dgst, 0)) }

func withSize(size int64) cellar.WriterOpt { return cellar.WithDescriptor(describe("", size)) }

// inOrder sorts digests.
func inOrder(all ...digest.Digest) []digest.Digest {
	all = append([]digest.Digest{}, all...)
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

// within fails the test if fn takes longer than it may.
func within(t testing.TB, limit time.Duration, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("still running after %v", limit)
	}
}

// eventually waits until what happens in the background has happened.
func eventually(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", limit, what)
		}
	}
}

// readAll reads what ra has and closes it.
func readAll(t testing.TB, ra cellar.ReaderAt) []byte {
	t.Helper()
	p, err := io.ReadAll(cellar.NewReader(ra))
	require.NoError(t, errors.Join(err, ra.Close()))
	return p
}

// tryPut commits p in namespace a.
func tryPut(w *world, ref string, p []byte) error {
	cw, err := w.ns("a").Writer(w.Context(), cellar.WithRef(ref))
	if err != nil {
		return err
	}
	if _, err := cw.Write(p); err != nil {
		return errors.Join(err, cw.Close())
	}
	return cw.Commit(w.Context(), int64(len(p)), digest.FromBytes(p))
}
