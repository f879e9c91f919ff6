package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
	"github.com/cellarstore/cellar/metadata"
)

// Names beginning with W are those of weaknesses that other stores of this
// kind have; each test shows that this one lacks it.

var errKilled = errors.New("killed here")

// W-D1: a crash between placing the bytes and the record leaves garbage that
// the first collection of the next process finds by itself, nothing visible,
// and a ref that can be used.
func TestW_D1_CrashBeforeRecord(t *testing.T) {
	for _, size := range []int{small, large} {
		for _, point := range []string{"placed", "before commit"} {
			t.Run(fmt.Sprintf("%d %s", size, point), func(t *testing.T) {
				w := newWorld(t)
				p := blob("orphan", size)
				dgst := digest.FromBytes(p)
				w.failAt(point, errKilled)
				require.ErrorIs(t, w.begin("a", "r", p).Commit(t.Context(), 0, ""), errKilled)
				w.kill()
				w.requireAbsent("a", dgst)
				require.Equal(t, inOrder(dgst), w.stored(), "the test makes no orphan")
				w.collect()
				require.Empty(t, w.stored())

				cw := w.open("a", "r")
				w.write(cw, p[w.status(cw).Offset:])
				require.NoError(t, cw.Commit(t.Context(), int64(size), dgst))
				w.requireContent("a", p)
				w.collect()
				w.requireContent("a", p)
			})
		}
	}
}

// W-D2: a crash between Delete and the sweep, in the middle of it, or before
// the queue is shortened, loses no garbage and harms nothing else.
func TestW_D2_CrashInTheSweep(t *testing.T) {
	for _, removed := range []int{0, 1, 2, 3} {
		t.Run(fmt.Sprint(removed), func(t *testing.T) {
			raw := &removingRaw{}
			w := newWorld(t, withRaw(func(r cellar.RawStore) cellar.Store { raw.RawStore = r; return raw }))
			kept := blob("kept", small)
			w.put("a", kept)
			for i := range 3 {
				w.delete("a", w.put("a", blob(fmt.Sprint(i), small+i*large)))
			}
			raw.left, raw.limited = removed, true
			w.failAt("before commit", errKilled)
			_, err := w.db.GarbageCollect(t.Context())
			require.Error(t, err)
			raw.limited = false
			w.kill()
			w.requireContent("a", kept)
			require.Len(t, w.stored(), 4-removed)
			w.collect()
			require.Equal(t, inOrder(digest.FromBytes(kept)), w.stored())
			require.Zero(t, w.db.Unheld())
		})
	}
}

// removingRaw fails removals after some, and may do something before each.
type removingRaw struct {
	cellar.RawStore
	limited bool
	left    int
	before  func(dgst digest.Digest)
}

func (r *removingRaw) Remove(ctx context.Context, dgst digest.Digest) (int64, error) {
	if r.before != nil {
		r.before(dgst)
	}
	if r.limited {
		if r.left == 0 {
			return 0, errors.Join(errDataLoss, syscall.EIO)
		}
		r.left--
	}
	return r.RawStore.Remove(ctx, dgst)
}

// A failure to remove one blob is returned and does not keep the others; the
// next collection tries again.
func TestCollectGoesOnAfterOneFailure(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.delete("a", w.put("a", blob(fmt.Sprint(i), small)))
	}
	stuck := blobPath(w.stored()[2])
	w.fault.OnCall(func(op vfs.Op, name string) error {
		if op == vfs.OpRemove && name == stuck {
			return syscall.EIO
		}
		return nil
	})
	stats, err := w.db.GarbageCollect(t.Context())
	require.ErrorIs(t, err, syscall.EIO)
	require.EqualValues(t, 4, stats.Blobs)
	require.EqualValues(t, 4*small, stats.Bytes)
	require.Len(t, w.stored(), 1)
	w.fault.OnCall(nil)
	w.collect()
	require.Empty(t, w.stored())
}

// Content that is written and deleted again while a collection that found it
// dead is still running stays garbage that the next collection finds.
func TestCollectForgetsNothingMeanwhile(t *testing.T) {
	raw := &removingRaw{}
	w := newWorld(t, withRaw(func(r cellar.RawStore) cellar.Store { raw.RawStore = r; return raw }))
	w.collect() // the first one looks for garbage in another way
	p, q := blob("p", small), blob("q", small)
	w.delete("a", w.put("a", p))
	w.delete("a", w.put("a", q))
	var first digest.Digest
	raw.before = func(dgst digest.Digest) {
		if first == "" {
			first = dgst
			return
		}
		raw.before = nil // first is gone, and about to leave the queue
		again := p
		if first == digest.FromBytes(q) {
			again = q
		}
		w.delete("a", w.put("a", again))
	}
	w.collect()
	w.collect()
	require.Empty(t, w.stored(), "no collection of this process finds it any more")
}

// W1: a commit that relies on bytes which another namespace has staged keeps
// them, although that one deletes them and a collection is just finishing.
func TestCollectKeepsWhatACommitReliesOn(t *testing.T) {
	raw := &removingRaw{}
	w := newWorld(t, withRaw(func(r cellar.RawStore) cellar.Store { raw.RawStore = r; return raw }))
	w.collect() // the first one looks for garbage in another way
	all := map[digest.Digest][]byte{}
	for _, name := range []string{"p", "q"} {
		all[w.put("a", blob(name, small))] = blob(name, small)
	}
	for dgst := range all {
		w.delete("a", dgst)
	}
	placed, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var p []byte
	raw.before = func(dgst digest.Digest) {
		if p == nil {
			p = all[dgst]
			return
		}
		raw.before = nil // p is gone, and about to leave the queue
		w.put("a", p)
		cw := w.begin("b", "r", p)
		w.at(func(point string) error {
			if point == "placed" {
				close(placed)
				<-goOn
			}
			return nil
		})
		go func() { done <- cw.Commit(context.Background(), 0, "") }()
		<-placed
		w.delete("a", digest.FromBytes(p))
	}
	w.collect()
	close(goOn)
	require.NoError(t, <-done)
	w.crash.Store(nil)
	w.requireContent("b", p)
	w.powerLoss(1, 0)
	w.requireContent("b", p)
}

// W-D3: a commit that is refused places nothing, and leaves the data in its
// ingestion.
func TestW_D3_RefusedCommitKeepsData(t *testing.T) {
	boom := errors.New("boom")
	wrong := digest.FromString("something else")
	refusals := map[string]struct {
		size     int64
		expected digest.Digest
		opt      cellar.Opt
		class    error
	}{
		"empty label key": {opt: cellar.WithLabels(map[string]string{"": "x"}), class: errInvalid},
		"too long a label": {
			opt: cellar.WithLabels(map[string]string{"k": strings.Repeat("v", 1<<16)}), class: errInvalid,
		},
		"negative size":    {size: -1, class: errInvalid},
		"malformed digest": {expected: "sha256:12", class: errInvalid},
		"other digest":     {expected: wrong, class: errPrecondition},
		"other sha512":     {expected: digest.SHA512.FromString("x"), class: errPrecondition},
		"other size":       {size: 7, class: errPrecondition},
		"failing option":   {opt: func(*cellar.Info) error { return boom }, class: boom},
	}
	for name, r := range refusals {
		for _, size := range []int{small, large} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				w := newWorld(t)
				p := blob("kept", size)
				cw := w.begin("a", "r", p)
				opts := []cellar.Opt{}
				if r.opt != nil {
					opts = append(opts, r.opt)
				}
				err := cw.Commit(t.Context(), r.size, r.expected, opts...)
				require.ErrorIs(t, err, r.class)
				require.Empty(t, w.stored(), "nothing was placed")
				again := w.open("a", "r")
				require.EqualValues(t, size, w.status(again).Offset)
				require.NoError(t, again.Commit(t.Context(), int64(size), digest.FromBytes(p)))
				w.requireContent("a", p)
			})
		}
	}
}

// W-D4: a writer that can't be opened leaves no ref locked, no file open and no
// ingestion behind, whichever call failed.
func TestW_D4_FailedOpenLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.put("a", blob("before", large))
	idle := w.fault.Handles()
	for n := 1; ; n++ {
		require.Less(t, n, 100)
		w.fault.Fail(vfs.OpAny, n, syscall.EMFILE)
		cw, err := w.ns("a").Writer(t.Context(), cellar.WithRef("r"), withSize(large))
		hit := w.fault.Heal()
		if err != nil {
			requireClass(t, err, errExhausted)
			require.Equal(t, idle, w.fault.Handles(), "call %d", n)
			continue
		}
		require.NoError(t, cw.Close())
		if !hit {
			break
		}
	}
	require.NoError(t, w.ns("a").Abort(t.Context(), "r"))
	require.Empty(t, w.rawRefs())

	w.failAt("before commit", errDisk)
	require.Error(t, w.db.Update(t.Context(), func(context.Context) error { return nil }))
	_, err := w.ns("a").Writer(t.Context(), cellar.WithRef("r"), withSize(large))
	require.ErrorIs(t, err, errUnavailable)
	require.Empty(t, w.rawRefs())
	require.Equal(t, idle, w.fault.Handles())
}

// W-D5: no record without bytes: a writer that took content over keeps it from
// being collected, fails when its ingestion is aborted, and fails when the
// content is gone all the same; the content can then be sent again.
func TestW_D5_NoDanglingRecord(t *testing.T) {
	for _, size := range []int{small, large} {
		p := blob("lent", size)
		dgst := digest.FromBytes(p)
		setup := func(t *testing.T) (*world, cellar.Writer) {
			w := newWorld(t, withPolicy(metadata.Shared))
			w.put("a", p)
			cw := w.open("b", "r", withDigest(dgst))
			require.EqualValues(t, size, w.status(cw).Offset)
			return w, cw
		}
		t.Run(fmt.Sprintf("source deleted %d", size), func(t *testing.T) {
			w, cw := setup(t)
			w.delete("a", dgst)
			w.collect()
			require.NoError(t, cw.Commit(t.Context(), 0, ""))
			w.requireContent("b", p)
			w.collect()
			w.powerLoss(1, 0)
			w.requireContent("b", p)
		})
		t.Run(fmt.Sprintf("aborted %d", size), func(t *testing.T) {
			w, cw := setup(t)
			require.NoError(t, w.ns("b").Abort(t.Context(), "r"))
			w.delete("a", dgst)
			w.collect()
			require.Empty(t, w.stored())
			requireClass(t, cw.Commit(t.Context(), 0, ""), errAborted)
			w.requireAbsent("b", dgst)
			w.put("b", p)
			w.requireContent("b", p)
		})
		t.Run(fmt.Sprintf("bytes gone %d", size), func(t *testing.T) {
			w, cw := setup(t)
			w.delete("a", dgst)
			w.replaceBlob(dgst, nil)
			requireClass(t, cw.Commit(t.Context(), 0, ""), errNotFound)
			w.requireAbsent("b", dgst)
			w.put("b", p)
			w.requireContent("b", p)
		})
		t.Run(fmt.Sprintf("bytes wrong %d", size), func(t *testing.T) {
			w, cw := setup(t)
			w.delete("a", dgst)
			w.replaceBlob(dgst, make([]byte, size))
			requireClass(t, cw.Commit(t.Context(), 0, ""), errDataLoss)
			w.requireAbsent("b", dgst)
			w.put("b", p)
			w.requireContent("b", p)
		})
		t.Run(fmt.Sprintf("expired %d", size), func(t *testing.T) {
			c := newClock()
			w := newWorld(t, withPolicy(metadata.Shared), withClock(c))
			w.put("a", p)
			cw := w.open("b", "r", withDigest(dgst))
			w.delete("a", dgst)
			c.step(1000 * time.Hour)
			w.collect()
			require.NoError(t, cw.Commit(t.Context(), 0, ""), "a live writer's content stays")
			w.requireContent("b", p)
		})
	}
}

// W-D6: a collection between the Commit inside an Update and the end of that
// Update can't remove the bytes.
func TestW_D6_CollectDuringUpdate(t *testing.T) {
	for _, size := range []int{small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			p := blob("inside", size)
			require.NoError(t, w.db.Update(t.Context(), func(ctx context.Context) error {
				w.putIn(ctx, "a", p)
				collected := make(chan error, 1)
				go func() {
					_, err := w.db.GarbageCollect(context.Background())
					collected <- err
				}()
				// It may wait for this Update to end, but not take the bytes.
				select {
				case err := <-collected:
					require.NoError(t, err)
				case <-time.After(50 * time.Millisecond):
					t.Cleanup(func() { require.NoError(t, <-collected) })
				}
				return nil
			}))
			w.requireContent("a", p)
			w.collect()
			w.requireContent("a", p)
		})
	}
}

// W-D7: what lies under a digest already is not trusted because it is there.
func TestW_D7_DebrisIsReplaced(t *testing.T) {
	for _, size := range []int{small, large} {
		p := blob("right", size)
		dgst := digest.FromBytes(p)
		for name, debris := range map[string][]byte{"empty": {}, "zeros": make([]byte, size), "half": p[:size/2]} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				w := newWorld(t)
				w.put("a", blob("makes the directory", size))
				w.replaceBlob(dgst, debris)
				w.put("a", p)
				w.requireContent("a", p)
				w.powerLoss(1, 0)
				w.requireContent("a", p)
			})
			t.Run(fmt.Sprintf("%s under a record %d", name, size), func(t *testing.T) {
				w := newWorld(t)
				w.put("a", p)
				require.NoError(t, w.db.Settle(t.Context()))
				w.die(w.mem.Clone)
				w.replaceBlob(dgst, debris)
				w.start()
				if len(debris) != size {
					_, err := w.ns("a").ReaderAt(t.Context(), describe(dgst, 0))
					requireClass(t, err, errDataLoss)
				}
				w.put("b", p)
				w.requireContent("a", p)
				w.requireContent("b", p)
				w.powerLoss(1, 0)
				w.requireContent("a", p)
			})
		}
	}
}

// W-D7: a record whose bytes are missing or cut is healed by writing the
// content again, also in the same namespace.
func TestW_D7_DamagedContentIsHealed(t *testing.T) {
	for _, size := range []int{small, large} {
		for name, left := range map[string][]byte{"missing": nil, "cut": {1, 2, 3}} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				w := newWorld(t)
				p := blob("damaged", size)
				dgst := w.put("a", p, cellar.WithLabels(map[string]string{"k": "v"}))
				require.NoError(t, w.db.Settle(t.Context()))
				w.replaceBlob(dgst, left)
				findings, err := w.db.Check(t.Context())
				require.NoError(t, err)
				require.Len(t, findings, 1)
				_, err = w.ns("a").ReaderAt(t.Context(), describe(dgst, 0))
				requireClass(t, err, errDataLoss)

				cw := w.open("a", "again", withDigest(dgst))
				w.write(cw, p)
				requireClass(t, cw.Commit(t.Context(), 0, ""), errExists)
				w.requireContent("a", p)
				w.requireSound()
			})
		}
	}
}

// W-D8: when only the record could not be written, the client sends nothing
// again.
func TestW_D8_RetrySendsNothing(t *testing.T) {
	w := newWorld(t)
	p := blob("sent once", large)
	cw := w.begin("a", "r", p)
	ctx, cancel := context.WithCancel(t.Context())
	w.at(func(point string) error {
		if point == "placed" {
			cancel()
		}
		return nil
	})
	requireClass(t, cw.Commit(ctx, 0, ""), context.Canceled)
	w.crash.Store(nil)
	w.requireAbsent("a", digest.FromBytes(p))
	w.collect()
	again := w.open("a", "r")
	require.EqualValues(t, large, w.status(again).Offset)
	require.NoError(t, again.Commit(t.Context(), 0, ""))
	w.requireContent("a", p)
}

// guardedRaw notes every call that comes from inside a write transaction.
type guardedRaw struct {
	cellar.RawStore
	mu    sync.Mutex
	calls int
	bad   []string
}

// look notes the caller if one of the functions that run a transaction is on
// its stack.
func (r *guardedRaw) look() cellar.RawStore {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		for _, fn := range []string{"(*DB).tryBatch", "(*transaction).use", "(*DB).commit"} {
			if strings.HasSuffix(frame.Function, fn) {
				r.bad = append(r.bad, frame.Function)
			}
		}
		if !more {
			return r.RawStore
		}
	}
}
