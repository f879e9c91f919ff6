package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// graph is the content of a namespace and what keeps what.
type graph struct {
	namespace string
	// nodes are in the order of their names.
	nodes  []*node
	byName map[string]*node
	leases []*holder
}

// node is a record, or something missing that is named where a record's digest
// is expected.
type node struct {
	name    string // the digest; if missing, perhaps not even that
	size    int64
	missing bool
	root    string   // the key of the label that makes it one
	leases  []string // ids of those that hold it
	kept    bool     // a root or a lease reaches it
	edges   []edge   // to what it keeps
}

// edge leads from a node to one that it keeps.
type edge struct {
	label string
	back  bool // the label is that of to
	to    *node
}

// holder is a lease and the content that it holds.
type holder struct {
	id      string
	expires time.Time
	flat    bool
	content []*node
}

// readGraph reads the whole namespace.
func readGraph(ctx context.Context, s *session) (*graph, error) {
	g := &graph{namespace: s.name, byName: map[string]*node{}}
	err := s.store.Walk(ctx, func(info cellar.Info) error {
		g.add(info)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := g.addLeases(ctx, s.leases); err != nil {
		return nil, err
	}
	for _, n := range g.byName {
		slices.SortFunc(n.edges, compareEdges)
		g.nodes = append(g.nodes, n)
	}
	slices.SortFunc(g.nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	g.markKept()
	return g, nil
}

// node returns the node of that name. It is missing until its record is added.
func (g *graph) node(name string) *node {
	n := g.byName[name]
	if n == nil {
		n = &node{name: name, missing: true}
		g.byName[name] = n
	}
	return n
}

func (g *graph) add(info cellar.Info) {
	n := g.node(info.Digest.String())
	n.missing, n.size = false, info.Size
	for key, value := range info.Labels {
		if labels.KindOf(key) == labels.Root && (n.root == "" || key < n.root) {
			n.root = key
		}
		ref, ok := labels.ParseReference(key, value)
		switch {
		case !ok:
		case !ref.Back:
			n.edges = append(n.edges, edge{label: key, to: g.node(value)})
		case digest.Digest(value).Validate() == nil: // otherwise it belongs to nothing
			parent := g.node(value)
			parent.edges = append(parent.edges, edge{label: key, back: true, to: n})
		}
	}
}

func (g *graph) addLeases(ctx context.Context, m leases.Manager) error {
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		held, err := m.ListResources(ctx, l.ID, leases.Page{})
		if errdefs.IsNotFound(err) {
			continue // its time came just now
		}
		if err != nil {
			return err
		}
		h := &holder{id: l.ID, expires: l.ExpiresAt}
		_, h.flat = l.Labels[labels.GCFlat]
		for _, r := range held {
			if r.Type == leases.Content {
				n := g.node(r.ID)
				n.leases = append(n.leases, l.ID)
				h.content = append(h.content, n)
			}
		}
		g.leases = append(g.leases, h)
	}
	return nil
}

// compareEdges orders by label, numbers at its end by value, and then by what
// is kept.
func compareEdges(a, b edge) int {
	if a.label == b.label {
		return strings.Compare(a.to.name, b.to.name)
	}
	const digits = "0123456789"
	return cmp.Or(
		strings.Compare(strings.TrimRight(a.label, digits), strings.TrimRight(b.label, digits)),
		cmp.Compare(len(a.label), len(b.label)),
		strings.Compare(a.label, b.label),
	)
}

// markKept marks what a collection without grace would keep, ingestions aside.
func (g *graph) markKept() {
	var tops []*node
	for _, n := range g.nodes {
		if n.root != "" {
			tops = append(tops, n)
		}
	}
	for _, h := range g.leases {
		if !h.flat {
			tops = append(tops, h.content...)
		}
	}
	for n := range reached(tops) {
		n.kept = true
	}
	for _, h := range g.leases {
		for _, n := range h.content {
			n.kept = true
		}
	}
}

// reached returns tops and all that they keep.
func reached(tops []*node) map[*node]bool {
	seen := map[*node]bool{}
	for queue := slices.Clone(tops); len(queue) > 0; {
		n := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		for _, e := range n.edges {
			queue = append(queue, e.to)
		}
	}
	return seen
}

// below returns the part of g that tops keep, and the leases that hold any of
// it.
func (g *graph) below(tops []*node) *graph {
	seen := reached(tops)
	unseen := func(n *node) bool { return !seen[n] }
	part := &graph{namespace: g.namespace, byName: g.byName, nodes: slices.DeleteFunc(slices.Clone(g.nodes), unseen)}
	for _, h := range g.leases {
		held := *h
		held.content = slices.DeleteFunc(slices.Clone(h.content), unseen)
		if len(held.content) > 0 {
			part.leases = append(part.leases, &held)
		}
	}
	return part
}

// isDigest reports whether the name is one, as that of a record always is.
func (n *node) isDigest() bool {
	return !n.missing || digest.Digest(n.name).Validate() == nil
}

// unreferenced tells of records only.
func (n *node) unreferenced() bool { return !n.kept && !n.missing }

// marks says what there is to say of a node beside its size.
func (n *node) marks() []string {
	var marks []string
	if n.root != "" {
		marks = append(marks, "root")
	}
	switch {
	case n.missing:
		marks = append(marks, "missing")
	case !n.kept:
		marks = append(marks, "unreferenced")
	}
	return marks
}

// shortKey is a label's key without what all those have in common that refer.
func shortKey(key string) string {
	return visible(strings.TrimPrefix(key, "containerd.io/"))
}
