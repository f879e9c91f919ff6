package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// badFilters do not parse.
var badFilters = []string{" ", "ref=x", "ref==", `ref=="open`, "ref==a,", "==", "ref~=/[/"}

var ingestManagerPromises = []promise{
	{"Status tells of open and of left ingestions what their writer tells", func(e *env) {
		for _, n := range sizes {
			ref := fmt.Sprint(n)
			p := blob(ref, n)
			w := e.open(ref, cellar.WithDescriptor(describe(digest.FromBytes(p), int64(n+1))))
			e.write(w, p)
			open, err := e.store.Status(e.ctx, ref)
			require.NoError(e, err)
			require.Equal(e, e.status(w), open)
			require.Equal(e, ref, open.Ref)
			require.Equal(e, int64(n), open.Offset)
			require.Equal(e, int64(n+1), open.Total)
			require.Equal(e, digest.FromBytes(p), open.Expected)
			require.NoError(e, w.Close())
			left, err := e.store.Status(e.ctx, ref)
			require.NoError(e, err)
			require.Equal(e, open, left)
		}
	}},
	{"an ingestion exists from the moment its writer is opened", func(e *env) {
		e.open("ref")
		st, err := e.store.Status(e.ctx, "ref")
		require.NoError(e, err)
		require.Zero(e, st.Offset)
		require.Len(e, e.statuses(), 1)
	}},
	{"a ref without an ingestion is NotFound, for Status and for Abort", func(e *env) {
		e.leave("other", []byte("x"))
		e.put([]byte("committed"))
		for _, ref := range append(slices.Clone(oddRefs), "put "+digest.FromString("committed").String()) {
			_, err := e.store.Status(e.ctx, ref)
			requireClass(e, err, errdefs.ErrNotFound)
			requireClass(e, e.store.Abort(e.ctx, ref), errdefs.ErrNotFound)
		}
		require.Len(e, e.statuses(), 1)
	}},
	{"a ref that no ingestion can have is NotFound or InvalidArgument", func(e *env) {
		for _, ref := range []string{"", strings.Repeat("x", cellar.MaxRefLength+1)} {
			_, status := e.store.Status(e.ctx, ref)
			for _, err := range []error{status, e.store.Abort(e.ctx, ref)} {
				require.True(e, errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err), "%v", err)
			}
		}
	}},
	{"ListStatuses is ordered by ref and complete, without filters or with an empty one", func(e *env) {
		require.Empty(e, e.statuses())
		refs := append(slices.Clone(oddRefs), "b", "a", "c", "B", "ab")
		for i, ref := range refs {
			e.leave(ref, blob(ref, i))
		}
		e.open("open")
		refs = append(refs, "open")
		slices.Sort(refs)
		for _, filters := range [][]string{nil, {""}, {"", "ref==a"}} {
			var got []string
			for _, st := range e.statuses(filters...) {
				one, err := e.store.Status(e.ctx, st.Ref)
				require.NoError(e, err)
				require.Equal(e, one, st)
				got = append(got, st.Ref)
			}
			require.Equal(e, refs, got)
		}
	}},
	{"ListStatuses shows what one of the filters matches", func(e *env) {
		known := digest.FromString("known")
		e.leave("layer-1", []byte("1"))
		e.leave("layer-2", []byte("22"), withSize(100))
		e.leave("manifest", []byte("333"), withDigest(known))
		for filter, want := range map[string][]string{
			"ref==manifest":                    {"manifest"},
			"ref!=manifest":                    {"layer-1", "layer-2"},
			"ref~=^layer":                      {"layer-1", "layer-2"},
			"ref~=/^layer/,ref!=layer-1":       {"layer-2"},
			"ref==none":                        nil,
			"offset==2":                        {"layer-2"},
			"offset>=2":                        {"layer-2", "manifest"},
			"total>0":                          {"layer-2"},
			"expected==" + known.String():      {"manifest"},
			`startedat>"2000-01-01T00:00:00Z"`: {"layer-1", "layer-2", "manifest"},
			`updatedat<"2000-01-01T00:00:00Z"`: nil,
		} {
			require.Equal(e, want, e.refs(filter), filter)
		}
		require.Equal(e, []string{"layer-1", "manifest"}, e.refs("ref==manifest", "ref==layer-1", "ref==layer-1"))
	}},
	{"a filter that does not parse is InvalidArgument", func(e *env) {
		e.leave("ref", []byte("x"))
		for _, filter := range badFilters {
			_, err := e.store.ListStatuses(e.ctx, "ref==ref", filter)
			requireClass(e, err, errdefs.ErrInvalidArgument)
		}
	}},
	{"commits and aborts during a listing never fail it (W-G5)", func(e *env) {
		e.leave("always", []byte("there"))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { e.churn(fmt.Sprint("churn ", i), 15) })
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for listings := 0; ; listings++ {
			require.Contains(e, e.refs(), "always")
			select {
			case <-done:
				require.Equal(e, []string{"always"}, e.refs())
				require.Positive(e, listings)
				return
			default:
			}
		}
	}},
	{"Abort drops a left ingestion; the next writer starts anew", func(e *env) {
		for _, n := range sizes {
			e.leave("ref", blob("dropped", n), withSize(1<<40))
			require.NoError(e, e.store.Abort(e.ctx, "ref"))
			requireClass(e, e.store.Abort(e.ctx, "ref"), errdefs.ErrNotFound)
			e.requireNoIngestion("ref")
			w := e.open("ref")
			require.Zero(e, e.status(w).Total)
			require.Equal(e, digest.FromString(""), w.Digest())
			require.NoError(e, w.Close())
		}
	}},
	{"Abort under an open writer: its calls are Aborted, the ref is free at once", func(e *env) {
		for _, n := range sizes {
			p := blob("aborted", n)
			old := e.open("ref", withSize(1<<40))
			e.write(old, p)
			require.NoError(e, e.store.Abort(e.ctx, "ref"))
			e.requireNoIngestion("ref")
			held := e.open("ref")
			e.requireAborted(old)
			require.Zero(e, e.status(held).Offset)
			e.openErr(errdefs.ErrUnavailable, "ref")
			e.write(held, []byte("anew"))
			require.NoError(e, held.Commit(e.ctx, 4, digest.FromString("anew")))
			require.NoError(e, e.store.Delete(e.ctx, digest.FromString("anew")))
			e.requireAborted(old)
			e.requireAbsent(digest.FromBytes(p))
		}
	}},
	{"what was aborted stays so when the store is opened again", func(e *env) {
		e.leave("ref", blob("gone", 70_000))
		require.NoError(e, e.store.Abort(e.ctx, "ref"))
		e.reopen()
		e.requireNoIngestion("ref")
	}},
	{"Abort touches no other ingestion and no content", func(e *env) {
		p := []byte("content")
		dgst := e.put(p)
		e.leave("ref", p)
		e.leave("ref2", p)
		require.NoError(e, e.store.Abort(e.ctx, "ref"))
		e.requireContent(dgst, p)
		e.requireLeft("ref2", p)
	}},
}

// statuses lists ingestions.
func (e *env) statuses(filters ...string) []cellar.Status {
	e.Helper()
	all, err := e.store.ListStatuses(e.ctx, filters...)
	require.NoError(e, err)
	return all
}

// refs lists the refs of ingestions.
func (e *env) refs(filters ...string) []string {
	e.Helper()
	var refs []string
	for _, st := range e.statuses(filters...) {
		refs = append(refs, st.Ref)
	}
	return refs
}

// requireAborted checks that w is out of use because of an Abort.
func (e *env) requireAborted(w cellar.Writer) {
	e.Helper()
	n, err := w.Write([]byte("late"))
	require.Zero(e, n)
	requireClass(e, err, errdefs.ErrAborted)
	requireClass(e, w.Truncate(0), errdefs.ErrAborted)
	requireClass(e, w.Commit(e.ctx, 0, ""), errdefs.ErrAborted)
	require.NoError(e, w.Close())
}

// churn commits and aborts ingestions of ref in turn; it reports and does not
// end the test, for use in goroutines.
func (e *env) churn(ref string, rounds int) {
	for i := range rounds {
		if err := e.churnOnce(ref, i); err != nil {
			e.Errorf("%s, round %d: %v", ref, i, err)
			return
		}
	}
}

func (e *env) churnOnce(ref string, round int) error {
	ctx := context.WithoutCancel(e.ctx)
	w, err := e.store.Writer(ctx, cellar.WithRef(ref))
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(fmt.Sprint(ref, round))); err != nil {
		return err
	}
	if round%2 == 0 {
		return w.Commit(ctx, 0, "")
	}
	if err := w.Close(); err != nil {
		return err
	}
	return e.store.Abort(ctx, ref)
}
