package metadata_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

// actor is a goroutine that does random things in a namespace of its own, with
// content that all actors have, and remembers what must be there.
type actor struct {
	w     *world
	ns    string
	store cellar.Store
	rng   *rand.Rand
	knows map[digest.Digest]string // what is there, and its label
	pool  [][]byte
}

// Whatever goroutines do at the same time with the same digests, each finds
// what it knows; Check finds nothing, and collections take everything that
// nobody holds and nothing else.
func TestConcurrentHistories(t *testing.T) {
	for _, policy := range []metadata.Policy{metadata.Isolated, metadata.Shared} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			w := newWorld(t, withPolicy(policy))
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var pool [][]byte
			for i := range 12 {
				pool = append(pool, blob(fmt.Sprint(i), []int{0, 50, small, large}[i%4]))
			}
			steps := 150
			if testing.Short() {
				steps = 40
			}
			ctx, cancel := context.WithCancel(t.Context())
			var actors []*actor
			var working, others sync.WaitGroup
			for i := range 6 {
				ns := fmt.Sprintf("n%d", i)
				a := &actor{w: w, ns: ns, store: w.ns(ns), rng: rand.New(rand.NewPCG(seed, uint64(i))), knows: map[digest.Digest]string{}, pool: pool}
				actors = append(actors, a)
				working.Go(func() {
					for range steps {
						if err := a.step(); err != nil {
							t.Errorf("%s: %v", ns, err)
							return
						}
					}
				})
			}
			others.Go(func() {
				for ctx.Err() == nil {
					if _, err := w.db.GarbageCollect(ctx); err != nil && ctx.Err() == nil {
						t.Errorf("collect: %v", err)
					}
					if err := w.db.Settle(ctx); err != nil && ctx.Err() == nil {
						t.Errorf("settle: %v", err)
					}
				}
			})
			within(t, 2*time.Minute, working.Wait)
			cancel()
			within(t, time.Minute, others.Wait)
			w.requireAgreement(actors)
			w.powerLoss(seed, 0)
			w.requireAgreement(actors)
		})
	}
}

// requireAgreement checks that the store is what the actors know, and that a
// collection leaves exactly that.
func (w *world) requireAgreement(actors []*actor) {
	w.Helper()
	w.requireSound()
	live := map[digest.Digest]bool{}
	for _, a := range actors {
		seen := map[digest.Digest]string{}
		require.NoError(w, w.ns(a.ns).Walk(w.Context(), func(info cellar.Info) error {
			seen[info.Digest] = info.Labels["l"]
			live[info.Digest] = true
			return nil
		}))
		require.Equal(w, a.knows, seen, a.ns)
		for _, p := range a.pool {
			if _, there := seen[digest.FromBytes(p)]; there {
				w.requireContent(a.ns, p)
			}
		}
		for _, ref := range w.listed(a.ns) {
			require.NoError(w, w.ns(a.ns).Abort(w.Context(), ref))
		}
		// What was taken over and left is shown by no list.
		for i := range a.pool {
			if err := w.ns(a.ns).Abort(w.Context(), fmt.Sprint(i)); err != nil {
				requireClass(w, err, errNotFound)
			}
		}
	}
	w.collect()
	var want []digest.Digest
	for dgst := range live {
		want = append(want, dgst)
	}
	require.Equal(w, inOrder(want...), w.stored())
	require.Empty(w, w.rawRefs())
}

// step does one thing and notes what it means.
func (a *actor) step() error {
	i := a.rng.IntN(len(a.pool))
	p := a.pool[i]
	dgst := digest.FromBytes(p)
	_, there := a.knows[dgst]
	ctx := context.Background()
	switch a.rng.IntN(6) {
	case 0, 1:
		return a.commit(ctx, fmt.Sprint(i), p)
	case 2:
		err := a.store.Delete(ctx, dgst)
		delete(a.knows, dgst)
		return expect(err, there, errdefs.IsNotFound)
	case 3:
		label := fmt.Sprint(a.rng.Int())
		_, err := a.store.Update(ctx, cellar.Info{Digest: dgst, Labels: map[string]string{"l": label}}, "labels.l")
		if there {
			a.knows[dgst] = label
		}
		return expect(err, there, errdefs.IsNotFound)
	case 4:
		if err := a.store.Abort(ctx, fmt.Sprint(i)); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		return nil
	default:
		ra, err := a.store.ReaderAt(ctx, describe(dgst, 0))
		if err == nil {
			if got := readAll(a.w, ra); digest.FromBytes(got) != dgst {
				return fmt.Errorf("%s has other bytes", dgst)
			}
		}
		return expect(err, there, errdefs.IsNotFound)
	}
}

// commit writes p under ref as far as it is not written, and commits it or
// leaves it.
func (a *actor) commit(ctx context.Context, ref string, p []byte) error {
	dgst := digest.FromBytes(p)
	_, there := a.knows[dgst]
	var opts []cellar.WriterOpt
	if a.rng.IntN(2) == 0 {
		opts = append(opts, withDigest(dgst))
	}
	cw, err := a.store.Writer(ctx, append(opts, cellar.WithRef(ref))...)
	if err != nil {
		return expect(err, !there || len(opts) == 0, errdefs.IsAlreadyExists)
	}
	defer cw.Close()
	st, err := cw.Status()
	if err != nil {
		return err
	}
	if _, err := cw.Write(p[st.Offset:]); err != nil {
		return err
	}
	if a.rng.IntN(4) == 0 {
		return cw.Close()
	}
	label := fmt.Sprint(a.rng.Int())
	err = cw.Commit(ctx, int64(len(p)), dgst, cellar.WithLabels(map[string]string{"l": label}))
	if !there {
		a.knows[dgst] = label
	}
	return expect(err, !there, errdefs.IsAlreadyExists)
}

// expect returns an error unless err is nil where it should be, and of the
// class otherwise.
func expect(err error, ok bool, class func(error) bool) error {
	switch {
	case ok == (err == nil) && (ok || class(err)):
		return nil
	case ok:
		return fmt.Errorf("should have worked: %w", err)
	}
	return fmt.Errorf("should have been refused otherwise: %w", err)
}
