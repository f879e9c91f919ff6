package gc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cellarstore/cellar/gc"
)

// graph is a small world to mark. Names that are referred to need not be nodes.
type graph struct {
	nodes []string
	roots []string
	flat  []string
	refs  map[string][]string
	back  map[string][]string // child: its parents
}

// parse reads a graph: "a" is a node, "a>b" a reference, "b<a" keeps b while a
// is reached, "*a" makes a a root, "~a" a flat one, "!a" says that a is not
// there although it is named.
func parse(text string) graph {
	g := graph{refs: map[string][]string{}, back: map[string][]string{}}
	missing := map[string]bool{}
	for _, word := range strings.Fields(text) {
		switch name, other, _ := strings.Cut(strings.TrimLeft(word, "*~!"), ">"); {
		case word[0] == '*':
			g.roots = append(g.roots, name)
		case word[0] == '~':
			g.flat = append(g.flat, name)
		case word[0] == '!':
			missing[name] = true
		case other != "":
			g.refs[name] = append(g.refs[name], other)
			g.nodes = append(g.nodes, name, other)
			continue
		case strings.Contains(name, "<"):
			child, parent, _ := strings.Cut(name, "<")
			g.back[child] = append(g.back[child], parent)
			g.nodes = append(g.nodes, child, parent)
			continue
		}
		g.nodes = append(g.nodes, strings.TrimLeft(word, "*~!"))
	}
	g.nodes = slices.DeleteFunc(g.nodes, func(n string) bool { return missing[n] })
	slices.Sort(g.nodes)
	g.nodes = slices.Compact(g.nodes)
	return g
}

// begin returns the marks of g as they are before Run, the keys, and the
// function that gives the references.
func (g graph) begin() (*gc.Marks, *gc.Keys, func(i int, yield func(key []byte)) error) {
	keys := &gc.Keys{}
	for _, n := range g.nodes {
		keys.Append([]byte(n))
	}
	marks := gc.NewMarks(keys)
	for child, parents := range g.back {
		if i, ok := keys.Find([]byte(child)); ok {
			for _, parent := range parents {
				marks.Back([]byte(parent), i)
			}
		}
	}
	for _, n := range g.roots {
		marks.Root([]byte(n))
	}
	for _, n := range g.flat {
		marks.Flat([]byte(n))
	}
	return marks, keys, func(i int, yield func(key []byte)) error {
		for _, to := range g.refs[string(keys.At(i))] {
			yield([]byte(to))
		}
		return nil
	}
}

// live returns the marked nodes in order, having checked that the ways to ask
// for them agree.
func (g graph) live(t require.TestingT, marks *gc.Marks) []string {
	live, dead := []string{}, []string{}
	for i, n := range g.nodes {
		if marks.Marked(i) {
			live = append(live, n)
		} else {
			dead = append(dead, n)
		}
	}
	unmarked := []string{}
	marks.Unmarked(0, func(i int) bool {
		unmarked = append(unmarked, g.nodes[i])
		return true
	})
	require.Equal(t, dead, unmarked)
	require.Equal(t, len(live), marks.Live())
	return live
}

// fixpoint returns what is live in g by definition. What is reached is the
// smallest set of names that holds the roots, what a node in it refers to, and
// each node that has a back reference to a name in it. Live are the nodes in
// that set, and the flat roots.
func (g graph) fixpoint() []string {
	reached := map[string]bool{}
	for _, n := range g.roots {
		reached[n] = true
	}
	for changed := true; changed; {
		changed = false
		reach := func(n string) {
			if !reached[n] {
				reached[n], changed = true, true
			}
		}
		for _, n := range g.nodes {
			if reached[n] {
				for _, to := range g.refs[n] {
					reach(to)
				}
			}
			for _, parent := range g.back[n] {
				if reached[parent] {
					reach(n)
				}
			}
		}
	}
	return slices.DeleteFunc(append([]string{}, g.nodes...), func(n string) bool {
		return !reached[n] && !slices.Contains(g.flat, n)
	})
}

func TestMark(t *testing.T) {
	// What can be reached is marked, and nothing else.
	for _, c := range []struct{ name, graph, live string }{
		{"nothing", "", ""},
		{"no root", "a>b c", ""},
		{"alone", "*a b", "a"},
		{"chain", "*a a>b b>c d>e", "a b c"},
		{"from the middle of a chain", "a>b *b b>c", "b c"},
		{"fan", "*a a>b a>c a>d e", "a b c d"},
		{"fan in", "*a *b a>c b>c d>c", "a b c"},
		{"cycle", "*a a>b b>c c>a d", "a b c"},
		{"cycle that nothing reaches", "*a b>c c>b", "a"},
		{"to itself", "*a a>a b>b", "a"},
		{"two roots", "*a *c a>b c>d e", "a b c d"},
		{"root twice", "*a *a a>b", "a b"},
		{"dead edge", "*a a>x a>b !x", "a b"},
		{"root that is not there", "*x !x a", ""},
		{"chain through what is not there", "*a a>x x>b !x", "a"},

		{"flat root", "~a a>b", "a"},
		{"flat root that is not there", "~x !x a", ""},
		{"flat twice", "~a ~a a>b", "a"},
		{"flat and reached", "~b *a a>b b>c", "a b c"},
		{"flat and reached through a back reference", "*a ~b b<a b>c", "a b c"},
		{"flat and a root", "~a *a a>b", "a b"},
		{"flat in a cycle", "~a a>b b>a", "a"},

		{"back reference", "*a b<a c", "a b"},
		{"back reference to what is not reached", "*c b<a", "c"},
		{"back reference to what is neither there nor reached", "b<x !x *c", "c"},
		{"back reference to what is not there, but referred to", "*a a>x b<x b>c !x", "a b c"},
		{"back reference to what is not there, but a root", "*x b<x c<x !x d", "b c"},
		{"back reference to what is not there, but reached through it", "*x b<x b>x c<y b>y !x !y", "b c"},
		{"back reference to what is not there, but a flat root", "~x b<x !x", ""},
		{"back reference of what is not there", "*a x<a x>b !x", "a"},
		{"back reference is followed on", "*a b<a b>c", "a b c"},
		{"back reference to a child", "*a a>b c<b", "a b c"},
		{"back reference to what only a back reference keeps", "*a b<a c<b d<c", "a b c d"},
		{"back reference cycle, reached", "*a b<a b<c c<b", "a b c"},
		{"back reference cycle, not reached", "*a b<c c<b", "a"},
		{"back reference to itself", "a<a *b", "b"},
		{"back references to one parent", "*a b<a c<a d<a e<b f<x", "a b c d e"},
		{"one of two parents is reached", "*a c<b c<a", "a c"},
		{"flat parents keep nothing", "~a b<a", "a"},
		{"flat, then reached, keeps again", "~b *a a>b c<b", "a b c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := parse(c.graph)
			require.Equal(t, strings.Fields(c.live), g.fixpoint(), "the definition, of %s", c.graph)
			marks, _, refs := g.begin()
			require.NoError(t, marks.Run(context.Background(), refs))
			require.Equal(t, strings.Fields(c.live), g.live(t, marks))
		})
	}
}

// randomGraphs generates graphs of up to 80 nodes, so that marks take more than
// a word, with edges to names that are no nodes.
func randomGraphs() *rapid.Generator[graph] {
	return rapid.Custom(func(t *rapid.T) graph {
		n := rapid.IntRange(0, 80).Draw(t, "nodes")
		name := rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprintf("n%02d", rapid.IntRange(0, n+1).Draw(t, "name"))
		})
		several := rapid.SliceOfN(name, 0, 3)
		edges := rapid.MapOfN(name, several, 0, n)
		g := graph{
			roots: several.Draw(t, "roots"),
			flat:  several.Draw(t, "flat"),
			refs:  edges.Draw(t, "refs"),
			back:  edges.Draw(t, "back"),
		}
		for i := range n {
			g.nodes = append(g.nodes, fmt.Sprintf("n%02d", i))
		}
		return g
	})
}

func TestMarkRandomGraphs(t *testing.T) {
	// On any graph the mark finds the fixpoint that defines what is live.
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraphs().Draw(t, "graph")
		marks, _, refs := g.begin()
		require.NoError(t, marks.Run(context.Background(), refs))
		require.Equal(t, g.fixpoint(), g.live(t, marks))
	})
}

func TestMarkIsExtended(t *testing.T) {
	// Roots that are named after a run are followed by the next one, and what
	// both mark is what one run with all roots marks.
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraphs().Draw(t, "graph")
		marks, _, refs := g.begin()
		require.NoError(t, marks.Run(context.Background(), refs))
		late := rapid.SliceOfN(rapid.IntRange(0, 80), 0, 5).Draw(t, "late roots")
		for _, i := range late {
			n := fmt.Sprintf("n%02d", i)
			marks.Root([]byte(n))
			g.roots = append(g.roots, n)
			require.NoError(t, marks.Run(context.Background(), refs))
		}
		require.Equal(t, g.fixpoint(), g.live(t, marks))
	})
}

func TestBackReferencesAreExtended(t *testing.T) {
	// Back references that are said between two runs hold for what the second
	// run reaches, in whatever order they are said.
	g := parse("*a b c d e f d>e")
	marks, keys, refs := g.begin()
	back := func(parent, child string) {
		i, ok := keys.Find([]byte(child))
		require.True(t, ok)
		marks.Back([]byte(parent), i)
	}
	back("b", "c")
	require.NoError(t, marks.Run(context.Background(), refs))
	require.Equal(t, []string{"a"}, g.live(t, marks))
	back("e", "f")
	back("b", "d")
	marks.Root([]byte("b"))
	require.NoError(t, marks.Run(context.Background(), refs))
	require.Equal(t, g.nodes, g.live(t, marks))
}

func TestRunAsksOnce(t *testing.T) {
	// refs is called once for each node that is followed, and for no other.
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraphs().Draw(t, "graph")
		flat := g.flat
		g.flat = nil
		followed := g.fixpoint()
		g.flat = flat
		marks, _, refs := g.begin()
		asked := []string{}
		require.NoError(t, marks.Run(context.Background(), func(i int, yield func(key []byte)) error {
			asked = append(asked, g.nodes[i])
			return refs(i, yield)
		}))
		slices.Sort(asked)
		require.Equal(t, followed, asked)
	})
}

func TestRunIsResumedAfterAnError(t *testing.T) {
	// A run that refs broke off, whatever it gave before, goes on with the same
	// node and ends where one without an error ends.
	failure := errors.New("the record is damaged")
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraphs().Draw(t, "graph")
		marks, _, refs := g.begin()
		fails := rapid.MapOf(rapid.IntRange(0, 80), rapid.IntRange(1, 3)).Draw(t, "failures")
		broken, times := -1, 0
		for {
			err := marks.Run(context.Background(), func(i int, yield func(key []byte)) error {
				if broken >= 0 {
					require.Equal(t, broken, i)
					broken = -1
				}
				if fails[i] > 0 {
					fails[i]--
					broken = i
					var n int
					_ = refs(i, func(key []byte) {
						if n++; n == 1 {
							yield(key)
						}
					})
					return failure
				}
				return refs(i, yield)
			})
			if err == nil {
				break
			}
			require.ErrorIs(t, err, failure)
			times++
			require.LessOrEqual(t, times, 3*81)
		}
		require.Equal(t, g.fixpoint(), g.live(t, marks))
	})
}

// line returns a chain of n nodes from a root, and its length in nodes.
func line(n int) graph {
	g := graph{refs: map[string][]string{}, roots: []string{"n000000"}}
	for i := range n {
		name := fmt.Sprintf("n%06d", i)
		g.nodes = append(g.nodes, name)
		g.refs[name] = []string{fmt.Sprintf("n%06d", i+1)}
	}
	return g
}

func TestRunIsInterruptedByItsContext(t *testing.T) {
	// A run ends within some thousand nodes after its context, with the
	// context's error, and the next run marks the rest. If the context is done
	// before, nothing is followed.
	const n = 50_000
	g := line(n)
	marks, _, refs := g.begin()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	calls, within := 0, 0
	count := func(i int, yield func(key []byte)) error {
		if calls++; calls == 10_000 {
			cancel()
		}
		if ctx.Err() != nil {
			within++
		}
		return refs(i, yield)
	}
	require.ErrorIs(t, marks.Run(ctx, count), context.Canceled)
	require.LessOrEqual(t, within, 2000)
	require.Less(t, marks.Live(), n)

	before := calls
	require.ErrorIs(t, marks.Run(ctx, count), context.Canceled)
	require.Equal(t, before, calls, "followed with a context that is done")

	require.NoError(t, marks.Run(context.Background(), count))
	require.Equal(t, n, marks.Live())
	require.Equal(t, n, calls, "a node was followed twice")
}

func TestUnmarkedIsResumed(t *testing.T) {
	// Unmarked gives the nodes from the index it is told, stops when it is
	// told, and misses and repeats none if it is called in pieces.
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraphs().Draw(t, "graph")
		marks, _, refs := g.begin()
		require.NoError(t, marks.Run(context.Background(), refs))
		var want []int
		for i := range g.nodes {
			if !marks.Marked(i) {
				want = append(want, i)
			}
		}
		batch := rapid.IntRange(1, 70).Draw(t, "batch")
		var got []int
		for from, more := 0, true; more; {
			n := 0
			more = false
			marks.Unmarked(from, func(i int) bool {
				got = append(got, i)
				from, n = i+1, n+1
				more = n == batch
				return !more
			})
		}
		require.Equal(t, want, got)
		marks.Unmarked(len(g.nodes), func(int) bool { t.Fatal("past the end"); return false })
		marks.Unmarked(len(g.nodes)+1000, func(int) bool { t.Fatal("far past the end"); return false })
	})
}

func TestRunAllocatesNothingForANode(t *testing.T) {
	// What a run allocates does not grow with the nodes that it follows.
	const n = 5000
	g := line(n)
	_, keys, _ := g.begin()
	next := func(i int, yield func(key []byte)) error {
		if i+1 < keys.Len() {
			yield(keys.At(i + 1))
		}
		return nil
	}
	allocs := testing.AllocsPerRun(5, func() {
		marks := gc.NewMarks(keys)
		marks.RootAt(0)
		require.NoError(t, marks.Run(context.Background(), next))
		require.Equal(t, n, marks.Live())
	})
	require.Less(t, allocs, 50.0)
}
