package main

import (
	"fmt"
	"io"
	"strings"
)

// treeDepth is how deep the tree goes to the right. What hangs deeper is drawn
// from the left again, further below.
const treeDepth = 32

// tree draws a graph for people.
type tree struct {
	w     io.Writer
	g     *graph
	whole bool // digests
	part  bool // of the graph; the leases are not drawn then, but told of
	drawn map[*node]bool
	later []*node // what was too deep
}

func newTree(w io.Writer, g *graph, whole bool) *tree {
	return &tree{w: w, g: g, whole: whole, drawn: map[*node]bool{}}
}

// write draws what hangs below tops; without any, all there is.
func (t *tree) write(tops []*node) {
	if len(tops) > 0 {
		t.part = true
		for _, n := range tops {
			t.top(n)
		}
		return
	}
	t.summary()
	for _, n := range t.g.nodes {
		if n.root != "" {
			t.top(n)
		}
	}
	for _, h := range t.g.leases {
		t.lease(h)
	}
	for _, n := range t.g.loose() {
		t.top(n)
	}
	for _, n := range t.g.nodes {
		if !n.kept && !t.drawn[n] { // only a circle leads there
			t.top(n)
		}
	}
}

func (t *tree) summary() {
	var records, roots, unreferenced, missing int
	count := func(is bool, n *int) {
		if is {
			*n++
		}
	}
	for _, n := range t.g.nodes {
		count(!n.missing, &records)
		count(n.root != "", &roots)
		count(n.unreferenced(), &unreferenced)
		count(n.missing, &missing)
	}
	fmt.Fprintf(t.w, "%s: records %d, roots %d, unreferenced %d, leases %d, missing %d\n",
		t.g.namespace, records, roots, unreferenced, len(t.g.leases), missing)
}

// loose returns what nothing keeps, save what hangs below another such node.
func (g *graph) loose() []*node {
	hangs := map[*node]bool{}
	for _, n := range g.nodes {
		for _, e := range n.edges {
			hangs[e.to] = hangs[e.to] || !n.kept
		}
	}
	var tops []*node
	for _, n := range g.nodes {
		if !n.kept && !hangs[n] {
			tops = append(tops, n)
		}
	}
	return tops
}

// top draws a node at the left.
func (t *tree) top(n *node) {
	t.branch(n, "", "", "", 0)
	t.rest()
}

// rest draws what was too deep.
func (t *tree) rest() {
	for len(t.later) > 0 {
		n := t.later[0]
		t.later = t.later[1:]
		if !t.drawn[n] {
			t.branch(n, "", "", "", 0)
		}
	}
}

func (t *tree) lease(h *holder) {
	fmt.Fprintln(t.w, h.text())
	for i, n := range h.content {
		lead, indent := arms(i == len(h.content)-1)
		if h.flat {
			t.line(n, lead, "", "")
			continue
		}
		t.branch(n, lead, indent, "", 1)
	}
	t.rest()
}

// branch draws a node after lead, and what it keeps after indent.
func (t *tree) branch(n *node, lead, indent, label string, depth int) {
	switch {
	case len(n.edges) == 0:
		t.drawn[n] = true
		t.line(n, lead, label, "")
		return
	case t.drawn[n]:
		t.line(n, lead, label, "(above)")
		return
	case depth >= treeDepth:
		t.later = append(t.later, n)
		t.line(n, lead, label, "(below)")
		return
	}
	t.drawn[n] = true
	t.line(n, lead, label, "")
	for i, e := range n.edges {
		arm, more := arms(i == len(n.edges)-1)
		t.branch(e.to, indent+arm, indent+more, shortKey(e.label), depth+1)
	}
}

// arms returns what stands before a node, and before all that hangs below it.
func arms(last bool) (lead, indent string) {
	if last {
		return "└─ ", "   "
	}
	return "├─ ", "│  "
}

func (t *tree) line(n *node, lead, label, note string) {
	parts := make([]string, 0, 5)
	if label != "" {
		parts = append(parts, label)
	}
	parts = append(parts, t.name(n))
	if !n.missing {
		parts = append(parts, humanSize(n.size))
	}
	marks := n.marks()
	if t.part {
		for _, id := range n.leases {
			marks = append(marks, "lease "+visible(id))
		}
	}
	if len(marks) > 0 {
		parts = append(parts, strings.Join(marks, ", "))
	}
	if note != "" {
		parts = append(parts, note)
	}
	fmt.Fprintf(t.w, "%s%s\n", lead, strings.Join(parts, "  "))
}

func (t *tree) name(n *node) string {
	if t.whole {
		return visible(n.name)
	}
	return n.short()
}

// short is the beginning of a digest, and what is none whole.
func (n *node) short() string {
	if n.isDigest() {
		return shortDigest(n.name)
	}
	return visible(n.name)
}
