package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var walkPromises = []promise{
	{"an empty store has nothing to walk", func(e *env) {
		require.Empty(e, walk(e, e.ctx, e.store))
		require.Empty(e, walk(e, e.ctx, e.store, "size>0"))
	}},
	{"without filters, or with an empty one, all content in the order of digests, as Info tells it", func(e *env) {
		want := e.fill(40)
		for _, filters := range [][]string{nil, {""}, {"size==1", ""}} {
			infos := walk(e, e.ctx, e.store, filters...)
			require.Equal(e, want, digestsOf(infos))
			for _, info := range infos {
				require.Equal(e, e.info(info.Digest), info)
			}
		}
	}},
	{"what one of the filters matches", func(e *env) {
		small, large := e.put(blob("small", 10)), e.put(blob("large", 100_000))
		both := []digest.Digest{small, large}
		slices.Sort(both)
		for filter, want := range map[string][]digest.Digest{
			"digest==" + small.String():                  {small},
			"digest!=" + small.String():                  {large},
			"digest~=" + large.Encoded()[:20]:            {large},
			"digest==" + digest.FromString("x").String(): nil,
			"size==10":                         {small},
			"size>10":                          {large},
			"size<=100000":                     both,
			"size>=10,size<100000":             {small},
			`createdat>"2000-01-01T00:00:00Z"`: both,
			`updatedat<"2000-01-01T00:00:00Z"`: nil,
			"digest==" + small.String() + ",size==" + fmt.Sprint(11): nil,
		} {
			require.Equal(e, want, digestsOf(walk(e, e.ctx, e.store, filter)), filter)
		}
		require.Equal(e, both, digestsOf(walk(e, e.ctx, e.store, "size==10", "size==100000", "size==10")))
	}},
	{"filters see labels", func(e *env) {
		e.needLabels()
		red := e.put([]byte("red"), cellar.WithLabels(map[string]string{"color": "red", "a.b/c": "1"}))
		blue := e.put([]byte("blue"), cellar.WithLabels(map[string]string{"color": "blue"}))
		bare := e.put([]byte("bare"))
		for filter, want := range map[string][]digest.Digest{
			"labels.color==red":         {red},
			"labels.color":              {red, blue},
			"labels.color~=^b":          {blue},
			"labels.color!=red":         {blue, bare},
			`labels."a.b/c"==1`:         {red},
			`labels.a."b/c"==1`:         {red},
			"labels.none":               nil,
			"labels.color==red,size==4": nil,
		} {
			slices.Sort(want)
			require.Equal(e, want, digestsOf(walk(e, e.ctx, e.store, filter)), filter)
		}
	}},
	{"a filter that does not parse is InvalidArgument and fn is not called", func(e *env) {
		e.put([]byte("content"))
		for _, filter := range badFilters {
			err := e.store.Walk(e.ctx, func(cellar.Info) error {
				e.Errorf("called with filter %q", filter)
				return nil
			}, "", filter)
			requireClass(e, err, errdefs.ErrInvalidArgument)
		}
	}},
	{"an error from fn ends the walk and is returned as it is", func(e *env) {
		e.fill(5)
		stop, calls := errors.New("stop"), 0
		err := e.store.Walk(e.ctx, func(cellar.Info) error {
			if calls++; calls == 3 {
				return stop
			}
			return nil
		})
		require.True(e, err == stop, "%v", err)
		require.Equal(e, 3, calls)
	}},
	{"fn may call the store, and change what is walked", func(e *env) {
		want := e.fill(20)
		var seen []digest.Digest
		err := e.store.Walk(e.ctx, func(info cellar.Info) error {
			seen = append(seen, info.Digest)
			require.Equal(e, info, e.info(info.Digest))
			e.put([]byte("from fn " + info.Digest.String()))
			require.NoError(e, e.store.Walk(e.ctx, func(cellar.Info) error { return nil }))
			return e.store.Delete(e.ctx, info.Digest)
		}, "size<200")
		require.NoError(e, err)
		require.Subset(e, seen, want)
		for _, dgst := range want {
			e.requireAbsent(dgst)
		}
	}},
	{"content that is there throughout is seen exactly once while other content comes and goes", func(e *env) {
		want := e.fill(30)
		ctx, cancel := context.WithCancel(e.ctx)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { e.comeAndGo(ctx, i) })
		}
		for range 20 {
			seen := map[digest.Digest]int{}
			infos := walk(e, e.ctx, e.store)
			require.True(e, slices.IsSorted(digestsOf(infos)))
			for _, info := range infos {
				seen[info.Digest]++
			}
			for dgst, n := range seen {
				require.Equal(e, 1, n, "%s", dgst)
			}
			for _, dgst := range want {
				require.Equal(e, 1, seen[dgst], "%s", dgst)
			}
		}
		cancel()
		wg.Wait()
	}},
	{"a context that ends during the walk ends it with its error", func(e *env) {
		e.fill(5)
		ctx, cancel := context.WithCancel(e.ctx)
		calls := 0
		err := e.store.Walk(ctx, func(cellar.Info) error {
			calls++
			cancel()
			return nil
		})
		requireClass(e, err, context.Canceled)
		require.Equal(e, 1, calls)
	}},
	{"what is given to fn is the caller's", func(e *env) {
		e.needLabels()
		dgst := e.put([]byte("mine"), cellar.WithLabels(map[string]string{"a": "1"}))
		for range 2 {
			for _, info := range walk(e, e.ctx, e.store) {
				require.Equal(e, map[string]string{"a": "1"}, info.Labels)
				info.Labels["a"] = "changed"
			}
		}
		require.Equal(e, map[string]string{"a": "1"}, e.info(dgst).Labels)
	}},
	{"stray files change nothing (W-G5, W-G6)", func(e *env) {
		if e.impl.Stray == nil {
			e.Skip("no folder to put them in")
		}
		want := e.fill(5)
		e.leave("ref", []byte("left"))
		e.impl.Stray(e.T, e.dir)
		for range 2 {
			require.Equal(e, want, digestsOf(walk(e, e.ctx, e.store)))
			require.Equal(e, []string{"ref"}, e.refs())
			e.requireLeft("ref", []byte("left"))
			e.put(blob("beside strays", 100))
			require.NoError(e, e.store.Delete(e.ctx, digest.FromBytes(blob("beside strays", 100))))
			e.reopen()
		}
	}},
}

// fill puts n pieces of content of three algorithms in and returns their
// digests in order.
func (e *env) fill(n int) []digest.Digest {
	e.Helper()
	var all []digest.Digest
	for i := range n {
		alg := algorithms[i%len(algorithms)]
		p := blob(fmt.Sprint("fill ", i), i*7)
		w := e.open("fill", withDigest(alg.FromBytes(p)))
		e.write(w, p)
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		all = append(all, w.Digest())
	}
	slices.Sort(all)
	return all
}

// comeAndGo commits and deletes content until ctx ends; it reports and does
// not end the test.
func (e *env) comeAndGo(ctx context.Context, id int) {
	for i := 0; ctx.Err() == nil; i++ {
		p := []byte(fmt.Sprint("comes and goes ", id, i%10))
		w, err := e.store.Writer(e.ctx, cellar.WithRef(fmt.Sprint("comes ", id)))
		if err != nil {
			e.Error(err)
			return
		}
		_, writeErr := w.Write(p)
		if err := errors.Join(writeErr, w.Commit(e.ctx, 0, ""), e.store.Delete(e.ctx, digest.FromBytes(p))); err != nil {
			e.Error(err)
			return
		}
	}
}

func digestsOf(infos []cellar.Info) []digest.Digest {
	var all []digest.Digest
	for _, info := range infos {
		all = append(all, info.Digest)
	}
	return all
}
