package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var concurrencyPromises = []promise{
	{"of many writers that want one ref exactly one gets it", func(e *env) {
		for round := range 5 {
			writers, errs := e.race(16, func(int) (cellar.Writer, error) {
				return e.store.Writer(e.ctx, cellar.WithRef("ref"))
			})
			for _, err := range errs {
				requireClass(e, err, errdefs.ErrUnavailable)
			}
			require.Len(e, writers, 1)
			e.write(writers[0], []byte{byte(round)})
			require.Equal(e, int64(round+1), e.status(writers[0]).Offset)
			require.NoError(e, writers[0].Close())
		}
	}},
	{"of many commits of one content exactly one succeeds, the others are AlreadyExists", func(e *env) {
		for _, n := range []int{0, 1000, 200_000} {
			p := blob("same", n)
			writers := make([]cellar.Writer, 12)
			for i := range writers {
				writers[i] = e.open(fmt.Sprint("ref ", n, i))
				e.write(writers[i], p)
			}
			won, errs := e.race(len(writers), func(i int) (cellar.Writer, error) {
				return writers[i], writers[i].Commit(e.ctx, int64(n), digest.FromBytes(p))
			})
			require.Len(e, won, 1)
			for _, err := range errs {
				requireClass(e, err, errdefs.ErrAlreadyExists)
			}
			e.requireContent(digest.FromBytes(p), p)
			require.Empty(e, e.statuses())
		}
	}},
	{"many WriteBlob calls of one content all succeed, on one ref and on many", func(e *env) {
		p := blob("pulled", 150_000)
		desc := describe(digest.FromBytes(p), int64(len(p)))
		for name, ref := range map[string]func(int) string{
			"one ref":   func(int) string { return "ref" },
			"many refs": func(i int) string { return fmt.Sprint("ref ", i) },
		} {
			_, errs := e.race(12, func(i int) (cellar.Writer, error) {
				return nil, cellar.WriteBlob(e.ctx, e.store, ref(i), bytes.NewReader(p), desc)
			})
			require.Empty(e, errs, name)
			e.requireContent(desc.Digest, p)
			require.Empty(e, e.statuses())
			require.NoError(e, e.store.Delete(e.ctx, desc.Digest))
		}
	}},
	{"commits of different content at once all succeed", func(e *env) {
		_, errs := e.race(32, func(i int) (cellar.Writer, error) {
			p := blob(fmt.Sprint("parallel ", i), i*i*200)
			return nil, cellar.WriteBlob(e.ctx, e.store, fmt.Sprint(i), bytes.NewReader(p), describe(digest.FromBytes(p), 0))
		})
		require.Empty(e, errs)
		e.reopen()
		for i := range 32 {
			p := blob(fmt.Sprint("parallel ", i), i*i*200)
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"the methods of one writer run one after the other", func(e *env) {
		w := e.open("ref")
		var wrote atomic.Int64
		e.race(8, func(i int) (cellar.Writer, error) {
			n, err := w.Write(bytes.Repeat([]byte{byte('a' + i)}, 1000))
			wrote.Add(int64(n))
			_, _ = w.Status()
			_ = w.Digest()
			return nil, err
		})
		require.Equal(e, int64(8000), wrote.Load())
		require.NoError(e, w.Commit(e.ctx, 8000, ""))
		p, err := cellar.ReadBlob(e.ctx, e.store, describe(w.Digest(), 0))
		require.NoError(e, err)
		for i := 0; i < len(p); i += 1000 {
			require.Equal(e, bytes.Repeat(p[i:i+1], 1000), p[i:i+1000], "writes are not mixed")
		}
	}},
	{"Commit, Close and Abort at once end in one of their outcomes", func(e *env) {
		for i := range 20 {
			p := []byte(fmt.Sprint("contended ", i))
			w := e.open("ref")
			e.write(w, p)
			ends := []func() error{
				func() error { return w.Commit(e.ctx, 0, "") }, w.Close, func() error { return e.store.Abort(e.ctx, "ref") },
			}
			var committed atomic.Bool
			e.race(len(ends), func(i int) (cellar.Writer, error) {
				err := ends[i]()
				committed.CompareAndSwap(false, i == 0 && err == nil)
				return nil, err
			})
			_, err := e.store.Info(e.ctx, digest.FromBytes(p))
			require.Equal(e, committed.Load(), err == nil, "Commit's answer is the truth")
			if err := e.store.Abort(e.ctx, "ref"); err != nil {
				requireClass(e, err, errdefs.ErrNotFound)
			}
			e.requireNoIngestion("ref")
		}
	}},
	{"all methods may be called concurrently", func(e *env) {
		dgst := e.put(blob("shared", 1000))
		e.leave("left", []byte("left"))
		calls := methods(e.put([]byte("other")))
		ctx := context.WithoutCancel(e.ctx)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { e.churn(fmt.Sprint("churn ", i), 10) })
		}
		for _, call := range calls {
			wg.Go(func() {
				for range 10 {
					for _, class := range classesOf(call(ctx, e.store)) {
						if class == errdefs.ErrInternal || class == errdefs.ErrDataLoss {
							e.Error(class)
						}
					}
				}
			})
		}
		wg.Wait()
		e.requireContent(dgst, blob("shared", 1000))
	}},
}

// race calls fn n times at once and returns the writers of the calls that
// succeeded and the errors of those that did not.
func (e *env) race(n int, fn func(i int) (cellar.Writer, error)) (won []cellar.Writer, errs []error) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		start = make(chan struct{})
	)
	for i := range n {
		wg.Go(func() {
			<-start
			w, err := fn(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				won = append(won, w)
			}
		})
	}
	close(start)
	wg.Wait()
	return won, errs
}
