package storetest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
)

// operation is a kind of call that histories are made of. What a store learns
// to do becomes an entry of the table, and a method of Model.
type operation struct {
	name   string
	weight int
	draw   func(d *drawer) call
}

// call is an operation with its arguments. A call without run is skipped: it
// makes no sense in the state that the model is in.
type call struct {
	text string
	run  func(ctx context.Context, s *side) answer
}

// operationsFor returns the kinds of calls that a pool can take.
func operationsFor(tc Tenancy) []operation {
	table := []operation{
		{"open", 14, drawOpen},
		{"write", 16, drawWrite},
		{"truncate", 2, drawTruncate},
		{"close", 4, drawClose},
		{"commit", 14, drawCommit},
		{"put", 8, drawPut},
		{"status", 3, drawStatus},
		{"list", 2, drawList},
		{"abort", 3, drawAbort},
		{"info", 3, drawInfo},
		{"read", 4, drawRead},
		{"update", 4, drawUpdate},
		{"delete", 7, drawDelete},
		{"walk", 2, drawWalk},
		reopen,
	}
	if !tc.single() {
		table = append(table, operation{"lend", 3, drawLend}, operation{"put", 22, drawPut}, operation{"update", 8, drawUpdate})
		table = append(table, leaseOperations...)
	}
	return table
}

// single tells that there is but one namespace, and nothing to collect.
func (tc Tenancy) single() bool { return tc.Rules.NoLabels }

// names are the namespaces that histories work in.
func (tc Tenancy) names() []string {
	if tc.single() {
		return []string{"a"}
	}
	return []string{"a", "b", "c"}
}

var refs = []string{"r1", "r2", "../r3"}

// contents are the pieces of content that histories are about. Some begin with
// another one, so that ingestions grow from one into the next.
var contents = func() [][]byte {
	base := blob("history", 150_000)
	var all [][]byte
	for _, n := range []int{0, 1, 100, 64 << 10, 64<<10 + 1, 150_000} {
		all = append(all, base[:n])
	}
	return append(all, blob("history, other", 100), blob("history, other", 90_000))
}()

// nodes are the pieces that graphs are made of.
var nodes = func() (all [][]byte) {
	for i := range 6 {
		all = append(all, blob(fmt.Sprint("history, node ", i), 10+i))
	}
	return all
}()

// drawer draws arguments. It may look at the model's side, never at the other.
type drawer struct {
	*rand.Rand
	*stage
}

func pick[T any](d *drawer, choices ...T) T { return choices[d.IntN(len(choices))] }

// namespace draws one, the first more often: graphs grow in it.
func (d *drawer) namespace() string {
	return pick(d, append(d.tc.names(), d.tc.names()[0])...)
}

// digest draws the digest of one of the contents.
func (d *drawer) digest() digest.Digest {
	if !d.tc.single() && d.IntN(2) == 0 {
		return digest.FromBytes(pick(d, nodes...))
	}
	alg := pick(d, digest.SHA256, digest.SHA256, digest.SHA256, digest.SHA512)
	return alg.FromBytes(pick(d, contents...))
}

// digestIn draws a digest that ns may well hold.
func (d *drawer) digestIn(ns string) digest.Digest {
	held := slices.Sorted(maps.Keys(d.model.stores[ns].(*tenant).content))
	if len(held) == 0 || d.IntN(4) == 0 {
		return d.digest()
	}
	return pick(d, held...)
}

func (d *drawer) slot() slot { return slot{d.namespace(), pick(d, refs...)} }

// writer draws a slot and the age of one of its writers: 0 is the newest. The
// older ones are no longer open; calls on them must not harm the newest.
func (d *drawer) writer() (at slot, age int, w *modelWriter) {
	at = d.slot()
	for range 4 {
		if all := d.model.writers[at]; len(all) > 0 && all[len(all)-1].(*modelWriter).state == writerOpen {
			break
		}
		at = d.slot()
	}
	all := d.model.writers[at]
	if len(all) == 0 {
		return at, 0, nil
	}
	if d.IntN(8) == 0 {
		age = min(1, len(all)-1)
	}
	return at, age, all[len(all)-1-age].(*modelWriter)
}

func (s *side) writer(at slot, age int) cellar.Writer {
	all := s.writers[at]
	return all[len(all)-1-age]
}

// observe is what a writer shows of itself.
func observe(w cellar.Writer) any {
	st, err := w.Status()
	if err != nil {
		return err
	}
	return []any{st, w.Digest()}
}

func drawOpen(d *drawer) call {
	at := d.slot()
	p := pick(d, contents...)
	desc := pick(d,
		describe("", 0), describe("", 0),
		describe("", int64(len(p))), describe("", int64(d.IntN(3)*1000)),
		describe(digest.FromBytes(p), 0), describe(digest.FromBytes(p), int64(len(p))),
		describe(digest.FromBytes(p), 77), describe(d.digest(), -1), describe(d.digestIn(d.namespace()), 0),
	)
	lease, in := d.under(at.namespace)
	return call{fmt.Sprintf("%v digest %.14s size %d%s", at, desc.Digest, desc.Size, lease), func(ctx context.Context, s *side) answer {
		w, err := s.stores[at.namespace].Writer(in(ctx), cellar.WithRef(at.ref), cellar.WithDescriptor(desc))
		if err != nil {
			return answerOf(nil, err)
		}
		s.writers[at] = append(s.writers[at], w)
		a := answerOf(observe(w), nil)
		if st, err := w.Status(); err == nil && st.Offset > 0 && st.Offset == st.Total && st.StartedAt.Equal(d.now()) {
			a.remarks = []string{"took over"}
		}
		return a
	}}
}

func drawWrite(d *drawer) call {
	at, age, w := d.writer()
	if w == nil {
		return call{}
	}
	st, err := w.Status()
	require.NoError(d.t, err)
	p := pick(d, contents...)
	rest := p[min(int64(len(p)), st.Offset):]
	if n := len(rest); n > 0 && d.IntN(2) == 0 {
		rest = rest[:d.IntN(n)]
	}
	return call{fmt.Sprintf("%v#%d %d bytes", at, age, len(rest)), func(_ context.Context, s *side) answer {
		w := s.writer(at, age)
		n, err := w.Write(rest)
		if err != nil {
			return answerOf(nil, err)
		}
		return answerOf([]any{n, observe(w)}, nil)
	}}
}

func drawTruncate(d *drawer) call {
	at, age, w := d.writer()
	if w == nil {
		return call{}
	}
	size := pick(d, int64(0), 0, 0, 1, -1)
	if w.state != writerOpen {
		size = 0 // either fault may be told of another one
	}
	return call{fmt.Sprintf("%v#%d to %d", at, age, size), func(_ context.Context, s *side) answer {
		err := s.writer(at, age).Truncate(size)
		return answerOf(observe(s.writer(at, age)), err)
	}}
}

func drawClose(d *drawer) call {
	at, age, w := d.writer()
	if w == nil {
		return call{}
	}
	return call{fmt.Sprintf("%v#%d", at, age), func(_ context.Context, s *side) answer {
		err := s.writer(at, age).Close()
		return answerOf(observe(s.writer(at, age)), err)
	}}
}

func drawCommit(d *drawer) call {
	at, age, w := d.writer()
	if w == nil {
		return call{}
	}
	st, err := w.Status()
	require.NoError(d.t, err)
	right := w.Digest()
	other := right
	if w.state == writerOpen && w.ing.adopted == "" {
		other = digest.SHA384.FromBytes(w.ing.data)
	}
	size := pick(d, 0, st.Offset, st.Offset, st.Offset+1, -1)
	expected := pick(d, "", "", right, right, right, other, d.digest(), "sha256:nonsense")
	labels := d.labels()
	lease, in := d.under(at.namespace)
	text := fmt.Sprintf("%v#%d size %d (of %d) expected %.14s labels %v%s", at, age, size, st.Offset, expected, labels, lease)
	return call{text, func(ctx context.Context, s *side) answer {
		w := s.writer(at, age)
		if err := w.Commit(in(ctx), size, expected, cellar.WithLabels(labels)); err != nil {
			return answerOf(nil, err)
		}
		return answerOf(observe(w), nil)
	}}
}

// drawPut is a whole write in one call, so that there is content to work on.
func drawPut(d *drawer) call {
	ns, p, labels := d.namespace(), pick(d, contents...), d.labels()
	if !d.tc.single() && d.IntN(8) > 0 {
		p = pick(d, nodes...)
	}
	lease, in := d.under(ns)
	return call{fmt.Sprintf("%s %d bytes labels %v%s", ns, len(p), labels, lease), func(ctx context.Context, s *side) answer {
		ctx = in(ctx)
		w, err := s.stores[ns].Writer(ctx, cellar.WithRef("put"))
		if err != nil {
			return answerOf(nil, err)
		}
		if err := w.Truncate(0); err != nil { // one that failed may have left something
			return answerOf(nil, err)
		}
		if _, err := w.Write(p); err != nil {
			return answerOf(nil, err)
		}
		return answerOf(nil, w.Commit(ctx, 0, digest.FromBytes(p), cellar.WithLabels(labels)))
	}}
}

func drawStatus(d *drawer) call {
	at := d.slot()
	return call{fmt.Sprint(at), func(ctx context.Context, s *side) answer {
		return answerOf(s.stores[at.namespace].Status(ctx, at.ref))
	}}
}

func drawList(d *drawer) call {
	ns := d.namespace()
	filters := pick(d, nil, []string{"ref==r1"}, []string{"offset>100", "total>0"}, []string{"ref==,"})
	return call{fmt.Sprint(ns, filters), func(ctx context.Context, s *side) answer {
		statuses, err := s.stores[ns].ListStatuses(ctx, filters...)
		return answerOf(append([]cellar.Status(nil), statuses...), err)
	}}
}

func drawAbort(d *drawer) call {
	at := d.slot()
	lease, in := d.under(at.namespace)
	return call{fmt.Sprint(at, lease), func(ctx context.Context, s *side) answer {
		return answerOf(nil, s.stores[at.namespace].Abort(in(ctx), at.ref))
	}}
}

func drawInfo(d *drawer) call {
	ns := d.namespace()
	dgst := d.digestIn(ns)
	return call{fmt.Sprintf("%s %.14s", ns, dgst), func(ctx context.Context, s *side) answer {
		return answerOf(s.stores[ns].Info(ctx, dgst))
	}}
}

func drawRead(d *drawer) call {
	ns := d.namespace()
	dgst := d.digestIn(ns)
	return call{fmt.Sprintf("%s %.14s", ns, dgst), func(ctx context.Context, s *side) answer {
		p, err := cellar.ReadBlob(ctx, s.stores[ns], describe(dgst, 0))
		return answerOf(dgst.Algorithm().FromBytes(p), err)
	}}
}

func drawDelete(d *drawer) call {
	ns := d.namespace()
	dgst := d.digestIn(ns)
	lease, in := d.under(ns)
	return call{fmt.Sprintf("%s %.14s%s", ns, dgst, lease), func(ctx context.Context, s *side) answer {
		return answerOf(nil, s.stores[ns].Delete(in(ctx), dgst))
	}}
}

func (d *drawer) labels() map[string]string {
	all := map[string]string{}
	for range d.IntN(3) {
		all[pick(d, "a", "b", "a.b/c")] = pick(d, "", "1", "2")
	}
	if d.IntN(30) == 0 {
		all[""] = "no key"
	}
	if !d.tc.single() {
		d.relate(all)
	}
	return all
}

// relate adds labels that make content a root, or refer to other content.
func (d *drawer) relate(all map[string]string) {
	if d.IntN(6) == 0 {
		all[labels.GCRoot] = "yes"
	}
	for range d.IntN(3) {
		all[pick(d, labels.GCRefContent, labels.GCRefContent+".1", labels.GCRefContent+"/2", labels.GCRefContent+"bad")] = d.target()
	}
	if d.IntN(4) == 0 {
		all[pick(d, labels.GCBackRefContent, labels.GCBackRefContent+".1")] = d.target()
	}
}

// target draws the value of a label that refers to content.
func (d *drawer) target() string {
	switch d.IntN(20) {
	case 0:
		return "nonsense"
	case 1, 2, 3:
		return d.digest().String()
	}
	return digest.FromBytes(pick(d, nodes...)).String()
}

func drawUpdate(d *drawer) call {
	ns := d.namespace()
	info := cellar.Info{Digest: d.digestIn(ns), Labels: d.labels()}
	paths := pick(d, nil, []string{"labels"}, []string{"labels.a"}, []string{"labels.a.b/c", "labels.b"}, []string{"labels.a", "size"},
		[]string{"labels." + labels.GCRoot}, []string{"labels." + labels.GCRefContent, "labels." + labels.GCBackRefContent})
	return call{fmt.Sprintf("%s %.14s %v %v", ns, info.Digest, info.Labels, paths), func(ctx context.Context, s *side) answer {
		return answerOf(s.stores[ns].Update(ctx, info, paths...))
	}}
}

func drawWalk(d *drawer) call {
	ns := d.namespace()
	filters := pick(d, nil, []string{"size>50"}, []string{"labels.a==1"}, []string{"digest==" + d.digest().String(), "labels.b"}, []string{"size=="})
	return call{fmt.Sprint(ns, filters), func(ctx context.Context, s *side) answer {
		return answerOf(s.walk(ctx, ns, filters...))
	}}
}

func (s *side) walk(ctx context.Context, ns string, filters ...string) ([]cellar.Info, error) {
	var infos []cellar.Info
	err := s.stores[ns].Walk(ctx, func(info cellar.Info) error {
		infos = append(infos, info)
		return nil
	}, filters...)
	return infos, err
}

func drawLend(d *drawer) call {
	ns, value := d.namespace(), pick(d, "true", "true", "false", "")
	return call{fmt.Sprintf("%s %q", ns, value), func(ctx context.Context, s *side) answer {
		return answerOf(nil, s.pool.SetLabel(ctx, ns, "containerd.io/namespace.shareable", value))
	}}
}

// reopen closes both sides, which leaves all writers, and opens them again.
var reopen = operation{"reopen", 2, func(d *drawer) call {
	return call{"", func(ctx context.Context, s *side) answer {
		if err := s.pool.Close(); err != nil {
			return answerOf(nil, err)
		}
		if s == &d.real {
			s.pool = d.tc.Open(d.t, d.dir+"/pool", d.now)
			return answerOf(nil, nil)
		}
		d.arrange()
		return answerOf(nil, nil)
	}}
}}

// inventory is all that can be seen.
var inventory = operation{"inventory", 0, func(d *drawer) call {
	return call{"", func(ctx context.Context, s *side) answer {
		var all []any
		for _, ns := range d.tc.names() {
			infos, err := s.walk(ctx, ns)
			if err != nil {
				return answerOf(nil, err)
			}
			statuses, err := s.stores[ns].ListStatuses(ctx)
			if err != nil {
				return answerOf(nil, err)
			}
			all = append(all, ns, infos, append([]cellar.Status(nil), statuses...))
			for _, info := range infos {
				p, err := cellar.ReadBlob(ctx, s.stores[ns], describe(info.Digest, 0))
				if err != nil || info.Digest.Algorithm().FromBytes(p) != info.Digest {
					return answerOf(nil, fmt.Errorf("content %s in %q: wrong bytes: %v", info.Digest, ns, err))
				}
			}
		}
		return answerOf(all, nil)
	}}
}}
