package metadata_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/leases"
)

// seams is a raw store that tells a test before and after what a collection
// and a commit ask of it, so that other operations can be done right there.
type seams struct {
	cellar.RawStore
	before, after atomic.Pointer[func(call, subject string)]
	fail          atomic.Pointer[func(call string) error]
}

func (s *seams) around(call, subject string) func() {
	if fn := s.before.Load(); fn != nil {
		(*fn)(call, subject)
	}
	return func() {
		if fn := s.after.Load(); fn != nil {
			(*fn)(call, subject)
		}
	}
}

func (s *seams) refused(call string) error {
	if fn := s.fail.Load(); fn != nil {
		return (*fn)(call)
	}
	return nil
}

func (s *seams) onBefore(fn func(call, subject string)) { s.before.Store(&fn) }
func (s *seams) onAfter(fn func(call, subject string))  { s.after.Store(&fn) }
func (s *seams) calm()                                  { s.before.Store(nil); s.after.Store(nil); s.fail.Store(nil) }

func (s *seams) Abort(ctx context.Context, ref string) error {
	defer s.around("abort", ref)()
	return s.RawStore.Abort(ctx, ref)
}

func (s *seams) Remove(ctx context.Context, dgst digest.Digest) (int64, error) {
	defer s.around("remove", dgst.String())()
	if err := s.refused("remove"); err != nil {
		return 0, err
	}
	return s.RawStore.Remove(ctx, dgst)
}

func (s *seams) Place(ctx context.Context, dgst digest.Digest, p []byte) error {
	defer s.around("place", dgst.String())()
	return s.RawStore.Place(ctx, dgst, p)
}

func (s *seams) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	defer s.around("info", dgst.String())()
	return s.RawStore.Info(ctx, dgst)
}

func (s *seams) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	defer s.around("reader", desc.Digest.String())()
	return s.RawStore.ReaderAt(ctx, desc)
}

func (s *seams) ListStatuses(ctx context.Context, fs ...string) ([]cellar.Status, error) {
	defer s.around("list", "")()
	if err := s.refused("list"); err != nil {
		return nil, err
	}
	return s.RawStore.ListStatuses(ctx, fs...)
}

func (s *seams) Walk(ctx context.Context, fn cellar.WalkFunc, fs ...string) error {
	defer s.around("walk", "")()
	return s.RawStore.Walk(ctx, fn, fs...)
}

func (s *seams) Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (cellar.Writer, error) {
	defer s.around("ingest", ref)()
	return s.RawStore.Ingest(ctx, ref, total, alg)
}

// siege is a world whose clock, raw store and grace a test commands.
type siege struct {
	*world
	c   *clock
	raw *seams
}

func newSiege(t *testing.T, change ...func(*world)) *siege {
	t.Helper()
	s := &siege{c: newClock(), raw: &seams{}}
	s.world = newWorld(t, append([]func(*world){withClock(s.c), withGrace(-1), withRaw(func(raw cellar.RawStore) cellar.Store {
		s.raw.RawStore = raw
		return s.raw
	})}, change...)...)
	t.Cleanup(s.raw.calm) // before the world is stopped
	// A map that need not grow: a growing one waits for the reader of a mark.
	require.NoError(t, s.db.PutRaw("pad", []byte("pad"), make([]byte, 8<<20)))
	return s
}

func withGrace(d time.Duration) func(*world) { return func(w *world) { w.opts.Grace = d } }

// during runs a collection and calls fn in the middle of its mark: the snapshot
// is taken, the barrier is up, nothing is marked.
func (s *siege) during(fn func(), opts ...gc.Option) (gc.Stats, error) {
	s.Helper()
	s.oldIngest()
	called := false
	s.raw.onBefore(func(call, subject string) {
		if call == "abort" && subject == "old/old" && !called {
			called = true
			fn()
		}
	})
	stats, err := s.db.GarbageCollect(context.Background(), opts...)
	s.raw.before.Store(nil)
	require.True(s, called, "the collection did not get to its mark")
	return stats, err
}

// oldIngest leaves an ingestion that a collection will drop while it marks.
func (s *siege) oldIngest() {
	s.Helper()
	require.NoError(s, s.begin("old", "old", blob("old", 10)).Close())
	s.c.step(25 * time.Hour)
}

func (s *siege) label(ns string, dgst digest.Digest, set map[string]string) {
	s.Helper()
	_, err := s.ns(ns).Update(s.Context(), cellar.Info{Digest: dgst, Labels: set})
	require.NoError(s, err)
}

func (s *siege) lease(ns, id string, opts ...leases.Opt) leases.Manager {
	s.Helper()
	m, err := s.db.NamespaceLeases(ns)
	require.NoError(s, err)
	_, err = m.Create(s.Context(), append(opts, leases.WithID(id))...)
	require.NoError(s, err)
	return m
}

func (s *siege) has(ns string, dgst digest.Digest) bool {
	s.Helper()
	_, err := s.ns(ns).Info(context.Background(), dgst)
	if err != nil {
		requireClass(s, err, errNotFound)
	}
	return err == nil
}

func withLabels(kv ...string) cellar.Opt {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return cellar.WithLabels(m)
}

const (
	rootLabel = "containerd.io/gc.root"
	refLabel  = "containerd.io/gc.ref.content"
	backLabel = "containerd.io/gc.bref.content"
)

// Everything that makes content reachable while a collection marks keeps it,
// with what it refers to.
func TestReachableDuringMark(t *testing.T) {
	x, y := blob("x", small), blob("y", large) // x refers to y
	dx, dy := digest.FromBytes(x), digest.FromBytes(y)
	content := func(d digest.Digest) leases.Resource { return leases.Resource{Type: leases.Content, ID: d.String()} }
	for name, fn := range map[string]func(s *siege, m leases.Manager){
		"root": func(s *siege, _ leases.Manager) {
			s.label("a", dx, map[string]string{rootLabel: "1", refLabel: dy.String()})
		},
		"reference": func(s *siege, _ leases.Manager) {
			s.put("a", blob("z", small), withLabels(rootLabel, "1", refLabel, dx.String()))
		},
		"back reference": func(s *siege, _ leases.Manager) {
			root := s.put("a", blob("z", small), withLabels(rootLabel, "1"))
			s.label("a", dx, map[string]string{backLabel: root.String(), refLabel: dy.String()})
		},
		"lease": func(s *siege, m leases.Manager) { require.NoError(s, m.AddResource(s.Context(), "l", content(dx))) },
		"answer": func(s *siege, _ leases.Manager) {
			_, err := s.ns("a").Writer(s.Context(), cellar.WithRef("r"), withDigest(dx))
			requireClass(s, err, errExists)
		},
		"leased answer": func(s *siege, _ leases.Manager) {
			_, err := s.ns("a").Writer(leases.WithLease(s.Context(), "l"), cellar.WithRef("r"), withDigest(dx))
			requireClass(s, err, errExists)
		},
		"commit that exists": func(s *siege, _ leases.Manager) { requireClass(s, tryPut(s.world, "r", x), errExists) },
		"deleted and written anew": func(s *siege, _ leases.Manager) {
			s.delete("a", dx)
			s.put("a", x, withLabels(rootLabel, "1", refLabel, dy.String()))
		},
		"transaction": func(s *siege, _ leases.Manager) {
			require.NoError(s, s.db.Update(s.Context(), func(ctx context.Context) error {
				_, err := s.ns("a").Update(ctx, cellar.Info{Digest: dx, Labels: map[string]string{rootLabel: "1", refLabel: dy.String()}})
				return err
			}))
		},
		"reference moved": func(s *siege, _ leases.Manager) {
			s.put("a", blob("z", small), withLabels(rootLabel, "1", refLabel, dy.String()))
			s.delete("a", dx)
			s.put("a", x, withLabels(rootLabel, "1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSiege(t)
			s.put("a", y)
			s.put("a", x, withLabels(refLabel, dy.String()))
			m := s.lease("a", "l")
			gone := s.put("a", blob("gone", small))
			_, err := s.during(func() { fn(s, m) })
			require.NoError(t, err)
			s.requireContent("a", x)
			s.requireContent("a", y)
			require.False(t, s.has("a", gone))
		})
	}
}

// A flat lease that becomes one that is not, while a collection marks, keeps
// what its content refers to.
func TestFlatLeaseReplacedDuringMark(t *testing.T) {
	s := newSiege(t)
	y := s.put("a", blob("y", small))
	x := s.put("a", blob("x", small), withLabels(refLabel, y.String()))
	m := s.lease("a", "l", leases.WithLabels(map[string]string{"containerd.io/gc.flat": "1"}))
	resource := leases.Resource{Type: leases.Content, ID: x.String()}
	require.NoError(t, m.AddResource(t.Context(), "l", resource))
	_, err := s.during(func() {
		_, err := m.Delete(t.Context(), "l")
		require.NoError(t, err)
		s.lease("a", "l")
		require.NoError(t, m.AddResource(t.Context(), "l", resource))
	})
	require.NoError(t, err)
	require.True(t, s.has("a", x))
	require.True(t, s.has("a", y))
}

// D3: content that is written again between the removal of its bytes and the
// end of its digest's wait stays, and so does what is staged of it.
func TestD3_WrittenAgainBeforeDequeue(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := newSiege(t)
			s.collect() // the first one reads the names of all blobs
			contents := map[string][]byte{}
			for i := range 3 {
				p := blob(fmt.Sprint(i), size)
				contents[s.put("a", p).String()] = p
			}
			var again []byte
			s.raw.onAfter(func(call, subject string) {
				if call == "remove" && again == nil {
					again = contents[subject]
				} else if call == "remove" { // of the next in the same batch
					s.raw.after.Store(nil)
					s.put("a", again, withLabels(rootLabel, "1"))
				}
			})
			s.collect()
			require.NotNil(t, again)
			s.requireContent("a", again)
			s.powerLoss(1, 0)
			s.requireContent("a", again)
			s.collect()
			require.Equal(t, []digest.Digest{digest.FromBytes(again)}, s.stored())
			require.Zero(t, s.db.Unheld())
		})
	}
}

// Whatever ends a collection early, the next one does all of it, and nothing
// listens in between.
func TestCancelledAtEachPhase(t *testing.T) {
	for _, call := range []string{"abort", "list", "remove"} {
		t.Run(call, func(t *testing.T) {
			s := newSiege(t)
			kept := s.put("a", blob("kept", small), withLabels(rootLabel, "1"))
			for i := range 5 {
				s.put("a", blob(fmt.Sprint(i), large))
			}
			s.oldIngest()
			ctx, cancel := context.WithCancel(t.Context())
			s.raw.onBefore(func(at, _ string) {
				if at == call {
					cancel()
				}
			})
			_, err := s.db.GarbageCollect(ctx)
			require.ErrorIs(t, err, context.Canceled)
			s.raw.before.Store(nil)
			if p := blob("0", large); !s.has("a", digest.FromBytes(p)) {
				s.put("a", p) // what was unlinked can be written again
			}
			s.collect()
			require.Equal(t, []digest.Digest{kept}, s.stored())
			require.Zero(t, s.db.Unheld())
		})
	}
}

// A collection whose handle is condemned in the middle ends with that error, and
// removes no bytes of a record that is there.
func TestCondemnedDuringMark(t *testing.T) {
	s := newSiege(t)
	p := blob("x", large)
	s.put("a", p)
	_, err := s.during(func() {
		s.failAt("before commit", errDisk)
		require.ErrorIs(t, s.db.Mutate(t.Context(), putMeta("k")), errUnavailable)
		s.crash.Store(nil)
	})
	require.ErrorIs(t, err, errUnavailable)
	s.reopen()
	s.requireContent("a", p)
	s.collect()
	require.Empty(t, s.stored())
}
