package local

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

// promises is what a store has acknowledged at some moment.
type promises struct {
	content  map[digest.Digest][]byte // committed or settled
	gone     map[digest.Digest]bool   // deleted
	ingests  map[string][]byte        // what a ref was closed or synced with: at least that much is there
	whole    map[string][]byte        // all that may ever be written by a ref
	touching map[digest.Digest]bool   // content that a call is at work on: there or not
	busy     map[string]bool          // refs that a call is at work on
}

func (p *promises) clone() *promises {
	return &promises{
		content: maps.Clone(p.content), gone: maps.Clone(p.gone), ingests: maps.Clone(p.ingests),
		whole: p.whole, touching: maps.Clone(p.touching), busy: maps.Clone(p.busy),
	}
}

// history is a workload that keeps its promises in step.
type history struct {
	*rig
	mu sync.Mutex
	p  *promises
}

func (h *history) note(fn func(p *promises)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(h.p)
}

func (h *history) start(ref string) *writer {
	h.note(func(p *promises) { p.busy[ref] = true })
	return h.open(ref)
}

// leave closes w; from then on its bytes are promised.
func (h *history) leave(w *writer, data []byte) {
	require.NoError(h.t, w.Close())
	h.note(func(p *promises) { p.ingests[w.header.ref] = data; delete(p.busy, w.header.ref) })
}

func (h *history) commit(w *writer, data []byte) {
	dgst := digest.FromBytes(data)
	h.note(func(p *promises) {
		p.touching[dgst] = true
		delete(p.ingests, w.header.ref)
		p.busy[w.header.ref] = true
	})
	err := w.Commit(bg, int64(len(data)), dgst)
	if !errdefs.IsAlreadyExists(err) {
		require.NoError(h.t, err)
	}
	h.note(func(p *promises) {
		delete(p.touching, dgst)
		delete(p.gone, dgst)
		p.content[dgst] = data
	})
}

func (h *history) delete(data []byte) {
	dgst := digest.FromBytes(data)
	h.note(func(p *promises) { p.touching[dgst] = true; delete(p.content, dgst) })
	require.NoError(h.t, h.Delete(bg, dgst))
	h.note(func(p *promises) { delete(p.touching, dgst); p.gone[dgst] = true })
}

func (h *history) place(blobs ...[]byte) {
	var dgsts []digest.Digest
	for _, p := range blobs {
		dgst := digest.FromBytes(p)
		dgsts = append(dgsts, dgst)
		h.note(func(p *promises) { p.touching[dgst] = true; delete(p.content, dgst) })
		require.NoError(h.t, h.Place(bg, dgst, p))
	}
	require.NoError(h.t, h.Settle(bg, dgsts))
	for i, dgst := range dgsts {
		h.note(func(p *promises) { delete(p.touching, dgst); delete(p.gone, dgst); p.content[dgst] = blobs[i] })
	}
}

// run is the workload: ingest, resume, commit, the same content again,
// truncation, deletion and return, abort, placing.
func (h *history) run() {
	a, b, c, d := pattern(1, 30_000), pattern(2, 3_000), pattern(3, 20_000), pattern(4, 500)
	h.p.whole = map[string][]byte{"a": a, "a2": a, "b": b, "c": c, "c2": c, "d": d}
	w := h.start("a")
	h.write(w, a[:10_000])
	h.write(w, a[10_000:18_000])
	h.leave(w, a[:18_000])
	w = h.start("b")
	h.write(w, b)
	h.commit(w, b)
	w = h.start("a")
	h.write(w, a[18_000:])
	h.commit(w, a)
	w = h.start("a2")
	h.write(w, a)
	h.commit(w, a)

	w = h.start("c") // other bytes first, dropped by Truncate
	h.p.whole["c"] = nil
	h.write(w, pattern(9, 25_000))
	require.NoError(h.t, w.Truncate(0))
	h.write(w, c[:9_000])
	h.leave(w, c[:9_000])
	h.note(func(p *promises) { p.whole = maps.Clone(p.whole); p.whole["c"] = c })
	w = h.start("c")
	h.write(w, c[9_000:])
	h.commit(w, c)

	h.delete(b)
	w = h.start("b")
	h.write(w, b)
	h.commit(w, b)
	h.delete(c)
	w = h.start("c2")
	h.write(w, c[:12_000])
	require.NoError(h.t, h.Abort(bg, "c2"))
	h.place(d, c)
	h.place(d)
}

func TestCrashAtEveryCall(t *testing.T) {
	// A power loss before any call of a workload, with nothing, everything, or
	// some of what was not durable kept: what was acknowledged is there with the
	// right bytes, what was deleted stays away, and nothing else is trusted.
	type moment struct {
		mem  *vfs.Mem
		p    *promises
		what string
	}
	var moments []moment
	h := &history{rig: newRig(t), p: &promises{
		content: map[digest.Digest][]byte{}, gone: map[digest.Digest]bool{}, ingests: map[string][]byte{},
		touching: map[digest.Digest]bool{}, busy: map[string]bool{},
	}}
	h.fault.OnCall(func(op vfs.Op, name string) error {
		if op == vfs.OpRead || op == vfs.OpLstat || op == vfs.OpStat || op == vfs.OpOpen || op == vfs.OpOpenDir || op == vfs.OpReadNames {
			return nil // they change nothing
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, keep := range []float64{0, 0.3, 0.5, 0.8, 1} {
			rng := rand.New(rand.NewPCG(uint64(len(moments)), 7))
			moments = append(moments, moment{h.mem.CrashClone(rng, keep), h.p.clone(), fmt.Sprintf("%v %s, keep %v", op, name, keep)})
		}
		moments = append(moments, moment{h.mem.Clone(), h.p.clone(), fmt.Sprintf("%v %s, killed", op, name)})
		return nil
	})
	h.run()
	h.fault.OnCall(nil)
	require.Greater(t, len(moments), 600, "the workload did something")
	for i, m := range moments {
		if ok := t.Run(fmt.Sprintf("%d", i), func(t *testing.T) { m.p.verify(t, openRig(t, m.mem)) }); !ok {
			t.Fatalf("crash before %s", m.what)
		}
	}
	t.Logf("%d crash states", len(moments))
}

func (p *promises) verify(t *testing.T, r *rig) {
	for dgst, data := range p.content {
		r.requireContent(dgst, data)
	}
	for dgst := range p.gone {
		if p.touching[dgst] {
			continue
		}
		_, err := r.Info(bg, dgst)
		require.True(t, errdefs.IsNotFound(err), "deleted content is back: %v", err)
	}
	_, err := r.ListStatuses(bg)
	require.NoError(t, err)
	for ref, data := range p.whole {
		p.verifyRef(t, r, ref, data)
	}
	var seen []digest.Digest
	require.NoError(t, r.Walk(bg, func(info cellar.Info) error {
		seen = append(seen, info.Digest)
		return nil
	}))
	for _, dgst := range seen { // what nobody promised may be anything; storing it again makes it right
		for _, data := range [][]byte{pattern(1, 30_000), pattern(2, 3_000), pattern(3, 20_000), pattern(4, 500)} {
			if digest.FromBytes(data) == dgst {
				require.NoError(t, client(r.Store, "again", data))
				r.requireContent(dgst, data)
				r.crashed().requireContent(dgst, data)
			}
		}
	}
}

// verifyRef goes on with whatever is there of a ref and commits it.
func (p *promises) verifyRef(t *testing.T, r *rig, ref string, whole []byte) {
	w := r.open(ref)
	n := int(w.offset())
	if promised := p.ingests[ref]; promised != nil && !p.busy[ref] {
		require.GreaterOrEqual(t, n, len(promised), "bytes of %s are lost", ref)
	}
	if whole == nil || p.busy[ref] && n > len(whole) {
		require.NoError(t, w.Truncate(0))
		require.NoError(t, w.Close())
		return
	}
	require.LessOrEqual(t, n, len(whole))
	if ref == "c" && w.Digest() != digest.FromBytes(whole[:n]) {
		require.True(t, p.busy[ref], "other bytes are back after Close")
		require.NoError(t, w.Close())
		return
	}
	require.Equal(t, digest.FromBytes(whole[:n]), w.Digest(), "bytes of %s", ref)
	r.write(w, whole[n:])
	dgst := digest.FromBytes(whole)
	if err := w.Commit(bg, int64(len(whole)), dgst); !errdefs.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	r.requireContent(dgst, whole)
}

func TestPowerLossBetweenTheTwoNamesOfAFile(t *testing.T) {
	// If the rename of Commit is made durable by half, the file has both names.
	// The ingestion is not resumed, for its bytes are content.
	data := pattern(1, 10_000)
	dgst := digest.FromBytes(data)
	r := newRig(t)
	r.put([]byte("blobs/sha256 is there"))
	w := r.open("r")
	r.write(w, data)
	require.NoError(t, w.Sync())
	require.NoError(t, w.Commit(bg, 0, dgst)) // syncs blobs/sha256 and not the ingestion's folder
	mem := r.mem.CrashClone(nil, 0)
	info, err := mem.Lstat(r.blobPath(dgst))
	require.NoError(t, err)
	require.Equal(t, uint64(2), info.Links, "the test makes what it means to")

	r = openRig(t, mem)
	w = r.open("r")
	require.Zero(t, w.offset())
	r.write(w, []byte("other bytes"))
	require.NoError(t, w.Close())
	r.requireContent(dgst, data)
}
