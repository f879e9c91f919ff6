package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// RunTenants tries what separates and what connects namespaces, on a fresh
// pool for each promise.
func RunTenants(t *testing.T, tc Tenancy) {
	run := func(name string, promises []tenantPromise, prepare func(*tenants)) {
		t.Run(name, func(t *testing.T) {
			for _, p := range promises {
				t.Run(p.sentence, func(t *testing.T) {
					t.Parallel()
					e := newTenants(t, tc)
					prepare(e)
					p.holds(e)
				})
			}
		})
	}
	run("Separate", separationPromises, func(*tenants) {})
	run("Collect", collectionPromises, func(*tenants) {})
	if tc.Rules.Shared {
		run("Shared", takeOverPromises, func(*tenants) {})
		return
	}
	run("Isolated", isolationPromises, func(*tenants) {})
	run("Lent", takeOverPromises, func(e *tenants) { e.lend("a", "true") })
	run("Lender", lendingPromises, func(*tenants) {})
}

type tenantPromise struct {
	sentence string
	holds    func(*tenants)
}

// tenants is a pool under test.
type tenants struct {
	*testing.T
	tc   Tenancy
	dir  string
	ctx  context.Context
	pool Pool
}

func newTenants(t *testing.T, tc Tenancy) *tenants {
	e := &tenants{T: t, tc: tc, dir: t.TempDir(), ctx: t.Context()}
	e.pool = tc.Open(t, e.dir, nil)
	t.Cleanup(func() { require.NoError(t, e.pool.Close()) })
	return e
}

func (e *tenants) reopen() {
	e.Helper()
	require.NoError(e, e.pool.Close())
	e.pool = e.tc.Open(e.T, e.dir, nil)
}

// as returns the store of a namespace.
func (e *tenants) as(name string) *env {
	e.Helper()
	store, err := e.pool.Namespace(name)
	require.NoError(e, err)
	return &env{T: e.T, impl: Implementation{Labels: !e.tc.Rules.NoLabels}, ctx: e.ctx, store: store}
}

// lend sets the label that makes a namespace lend its content.
func (e *tenants) lend(name, value string) {
	e.Helper()
	require.NoError(e, e.pool.SetLabel(e.ctx, name, "containerd.io/namespace.shareable", value))
}

func (e *tenants) collect() {
	e.Helper()
	require.NoError(e, e.tryCollect(e.ctx))
}

// tryCollect collects what no namespace holds, whether anything refers to what
// they do hold or not.
func (e *tenants) tryCollect(ctx context.Context) error {
	_, err := e.pool.Collect(ctx, 1000*time.Hour)
	return err
}

// requireBlobs checks which bytes the pool has.
func (e *tenants) requireBlobs(want ...digest.Digest) {
	e.Helper()
	got, err := e.pool.Blobs(e.ctx)
	require.NoError(e, err)
	require.ElementsMatch(e, want, got)
}

var separationPromises = []tenantPromise{
	{"content is nothing that another namespace sees or touches", func(e *tenants) {
		a, b := e.as("a"), e.as("b")
		for _, n := range sizes {
			p := blob("secret", n)
			dgst := a.put(p, cellar.WithLabels(map[string]string{"of": "a"}))
			before := a.info(dgst)
			b.requireAbsent(dgst)
			for name, call := range digestMethods {
				require.Equal(e, []error{errdefs.ErrNotFound}, classesOf(call(e.ctx, b.store, dgst)), name)
			}
			require.Empty(e, walk(e, e.ctx, b.store, "digest=="+dgst.String()))
			require.Equal(e, before, a.info(dgst))
			a.requireContent(dgst, p)
		}
		require.Empty(e, walk(e, e.ctx, b.store))
	}},
	{"one ref in two namespaces is two ingestions", func(e *tenants) {
		a, b := e.as("a"), e.as("b")
		for _, n := range sizes {
			pa, pb := blob("from a", n), blob("from b", n+3)
			ref := fmt.Sprint("ref ", n)
			wa, wb := a.open(ref, withSize(int64(n+1))), b.open(ref)
			a.write(wa, pa)
			require.Zero(e, b.status(wb).Offset)
			b.write(wb, pb)
			require.NoError(e, wa.Close())
			b.openErr(errdefs.ErrUnavailable, ref)
			require.Equal(e, digest.FromBytes(pa), a.open(ref).Digest())
			require.NoError(e, a.store.Abort(e.ctx, ref))
			a.requireNoIngestion(ref)
			st, err := b.store.Status(e.ctx, ref)
			require.NoError(e, err)
			require.Equal(e, int64(n+3), st.Offset)
			require.NoError(e, wb.Commit(e.ctx, 0, ""))
			b.requireContent(digest.FromBytes(pb), pb)
			a.requireAbsent(digest.FromBytes(pb))
		}
	}},
	{"refs and names that look like one another's are kept apart", func(e *tenants) {
		names := []string{"a", "a-a", "a.a", "a_a", "aa", "A", "version", "v1", "1"}
		for i, name := range names {
			ns := e.as(name)
			ns.leave("a/ref", blob(name, i+1))
			ns.leave("ref", blob(name, 100+i))
			ns.put([]byte(name))
		}
		e.reopen()
		for i, name := range names {
			ns := e.as(name)
			require.Equal(e, []string{"a/ref", "ref"}, ns.refs())
			ns.requireLeft("a/ref", blob(name, i+1))
			ns.requireLeft("ref", blob(name, 100+i))
			require.Equal(e, []digest.Digest{digest.FromString(name)}, digestsOf(walk(e, e.ctx, ns.store)))
		}
	}},
	{"all bytes sent again make a record of one's own; the bytes are kept once", func(e *tenants) {
		for _, n := range sizes {
			p := blob("held twice", n)
			dgst := e.as("a").put(p, cellar.WithLabels(map[string]string{"of": "a"}))
			e.as("b").put(p, cellar.WithLabels(map[string]string{"of": "b"}))
			require.Equal(e, map[string]string{"of": "a"}, e.as("a").info(dgst).Labels)
			require.Equal(e, map[string]string{"of": "b"}, e.as("b").info(dgst).Labels)
			require.True(e, e.as("b").info(dgst).CreatedAt.After(e.as("a").info(dgst).CreatedAt))
			e.requireBlobs(dgst)
			e.as("b").requireContent(dgst, p)
			require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
			e.as("a").requireAbsent(dgst)
			e.as("b").requireContent(dgst, p)
			e.collect()
			e.as("b").requireContent(dgst, p)
			require.NoError(e, e.as("b").store.Delete(e.ctx, dgst))
			e.collect()
			e.requireBlobs()
		}
	}},
	{"an Update in one namespace changes no other", func(e *tenants) {
		p := []byte("relabelled")
		dgst := e.as("a").put(p)
		e.as("b").put(p)
		before := e.as("a").info(dgst)
		_, err := e.as("b").store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: map[string]string{"x": "y"}})
		require.NoError(e, err)
		require.Equal(e, before, e.as("a").info(dgst))
	}},
	{"a name that breaks the rules is InvalidArgument", func(e *tenants) {
		for _, name := range []string{"", " ", ".", "..", "../x", "a/b", "a b", "-a", "a-", "a--b", "a..b", "ü", "a\x00", hexOf('a', 77)} {
			_, err := e.pool.Namespace(name)
			requireClass(e, err, errdefs.ErrInvalidArgument)
		}
		e.as(hexOf('a', 76)).put([]byte("longest name"))
	}},
	{"namespaces that write, delete and collect at once never lose what they hold", func(e *tenants) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(e.ctx, 700*time.Millisecond)
		defer cancel()
		rounds := make([]int, 4)
		for i := range rounds {
			ns := e.as(fmt.Sprint("ns", i))
			wg.Go(func() { rounds[i] = ns.holdAndDrop(ctx, i) })
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := e.tryCollect(e.ctx); err != nil {
					e.Error(err)
				}
			}
		})
		wg.Wait()
		for i, n := range rounds {
			require.Positive(e, n, "namespace %d did nothing", i)
		}
		e.collect()
		e.requireBlobs()
	}},
}

// holdAndDrop writes, reads and deletes the few contents that all namespaces
// have in common, and returns how many rounds it made.
func (e *env) holdAndDrop(ctx context.Context, id int) int {
	for round := 0; ; round++ {
		if ctx.Err() != nil {
			return round
		}
		p := blob(fmt.Sprint("common ", (round+id)%3), []int{100, 80_000}[round%2])
		if err := e.holdOnce(fmt.Sprint("ref ", id), p); err != nil {
			e.Errorf("namespace %d, round %d: %v", id, round, err)
			return round
		}
	}
}

func (e *env) holdOnce(ref string, p []byte) error {
	dgst := digest.FromBytes(p)
	w, err := e.store.Writer(e.ctx, cellar.WithRef(ref), withDigest(dgst))
	if err != nil {
		return err
	}
	if st, err := w.Status(); err != nil || st.Offset == 0 {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if err := w.Commit(e.ctx, int64(len(p)), dgst); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	got, err := cellar.ReadBlob(e.ctx, e.store, describe(dgst, 0))
	if err != nil {
		return fmt.Errorf("read what was committed: %w", err)
	}
	if string(got) != string(p) {
		return fmt.Errorf("read %d other bytes", len(got))
	}
	return e.store.Delete(e.ctx, dgst)
}

var collectionPromises = []tenantPromise{
	{"what was deleted everywhere is reclaimed, and can be written again", func(e *tenants) {
		for _, n := range sizes {
			p := blob("garbage", n)
			dgst := e.as("a").put(p)
			e.collect()
			e.requireBlobs(dgst)
			require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
			e.collect()
			e.requireBlobs()
			e.as("a").put(p)
			e.as("a").requireContent(dgst, p)
			require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
			e.collect()
		}
	}},
	{"content and ingestions, open and left, survive collections and opening again (W-G1)", func(e *tenants) {
		a := e.as("a")
		for _, n := range sizes {
			a.put(blob("held", n))
			a.leave(fmt.Sprint("left ", n), blob("left", n))
		}
		w := a.open("open")
		a.write(w, blob("open", 70_000))
		e.collect()
		a.write(w, []byte("more"))
		require.NoError(e, w.Close())
		e.reopen()
		e.collect()
		a = e.as("a")
		for _, n := range sizes {
			a.requireContent(digest.FromBytes(blob("held", n)), blob("held", n))
			a.requireLeft(fmt.Sprint("left ", n), blob("left", n))
		}
		a.requireLeft("open", append(blob("open", 70_000), "more"...))
	}},
	{"a reader that is open outlives the collection of its content", func(e *tenants) {
		a := e.as("a")
		for _, n := range sizes {
			p := blob("outlived", n)
			dgst := a.put(p)
			ra := a.reader(dgst)
			require.NoError(e, a.store.Delete(e.ctx, dgst))
			e.collect()
			e.requireBlobs()
			got := make([]byte, n)
			_, err := ra.ReadAt(got, 0)
			if n > 0 {
				require.NoError(e, err)
			}
			requireBytes(e, p, got)
		}
	}},
	{"deletions that were not collected are found after opening again (W-D2)", func(e *tenants) {
		dgst := e.as("a").put(blob("forgotten", 100_000))
		small := e.as("a").put(blob("forgotten too", 100))
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		require.NoError(e, e.as("a").store.Delete(e.ctx, small))
		e.reopen()
		e.collect()
		e.requireBlobs()
	}},
	{"aborted and failed ingestions leave no bytes (W-D3, W-G3)", func(e *tenants) {
		a := e.as("a")
		a.leave("aborted", blob("x", 100_000))
		require.NoError(e, a.store.Abort(e.ctx, "aborted"))
		w := a.open("failed")
		a.write(w, blob("y", 100_000))
		requireClass(e, w.Commit(e.ctx, 1, ""), errdefs.ErrFailedPrecondition)
		require.NoError(e, a.store.Abort(e.ctx, "failed"))
		e.collect()
		e.requireBlobs()
		require.Empty(e, a.statuses())
	}},
	{"stray files stop neither a collection nor what it removes (W-G6)", func(e *tenants) {
		if e.tc.Stray == nil {
			e.Skip("no folder to put them in")
		}
		a := e.as("a")
		var kept []digest.Digest
		for i := range 10 {
			a.put(blob(fmt.Sprint("kept ", i), 100+i*20_000))
			kept = append(kept, digest.FromBytes(blob(fmt.Sprint("kept ", i), 100+i*20_000)))
			require.NoError(e, a.store.Delete(e.ctx, a.put(blob(fmt.Sprint("garbage ", i), 100+i*20_000))))
		}
		a.leave("ref", []byte("left"))
		e.tc.Stray(e.T, e.dir)
		e.collect()
		e.requireBlobs(kept...)
		a.requireLeft("ref", []byte("left"))
		e.reopen()
		e.collect()
		e.requireBlobs(kept...)
		e.as("a").requireLeft("ref", []byte("left"))
	}},
	{"a context that is done stops a collection with its error", func(e *tenants) {
		dgst := e.as("a").put([]byte("kept for now"))
		require.NoError(e, e.as("a").store.Delete(e.ctx, dgst))
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		requireClass(e, e.tryCollect(ctx), context.Canceled)
		e.requireBlobs(dgst)
		e.collect()
		e.requireBlobs()
	}},
	{"missing or wrong bytes are DataLoss, and writing the content again mends them (W-D7)", func(e *tenants) {
		if e.tc.Damage == nil {
			e.Skip("nothing to damage")
		}
		for _, n := range sizes[1:] {
			p := blob("damaged", n)
			dgst := e.as("a").put(p)
			for _, damage := range [][]byte{nil, p[:n-1], append([]byte("too long"), p...)} {
				require.NoError(e, e.pool.Close())
				e.tc.Damage(e.T, e.dir, dgst, damage)
				e.pool = e.tc.Open(e.T, e.dir, nil)
				_, err := e.as("a").store.ReaderAt(e.ctx, describe(dgst, 0))
				requireClass(e, err, errdefs.ErrDataLoss)
				w := e.as("a").open("again", withDigest(dgst))
				e.as("a").write(w, p)
				if err := w.Commit(e.ctx, int64(n), dgst); err != nil {
					requireClass(e, err, errdefs.ErrAlreadyExists)
				}
				e.as("a").requireContent(dgst, p)
			}
		}
	}},
}
