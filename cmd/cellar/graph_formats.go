package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// writeDot draws the graph in the language of Graphviz.
func (g *graph) writeDot(w io.Writer) {
	fmt.Fprintf(w, "digraph %s {\n\trankdir=LR;\n\tnode [shape=box];\n", strconv.Quote(g.namespace))
	for _, h := range g.leases {
		fmt.Fprintf(w, "\t%s [label=%s, shape=ellipse];\n", dotLease(h), dotLabel(h.text()))
	}
	for _, n := range g.nodes {
		fmt.Fprintf(w, "\t%s [label=%s%s];\n", dotNode(n), dotLabel(n.text()...), dotStyle(n))
	}
	for _, h := range g.leases {
		for _, n := range h.content {
			fmt.Fprintf(w, "\t%s -> %s;\n", dotLease(h), dotNode(n))
		}
	}
	for _, n := range g.nodes {
		for _, e := range n.edges {
			fmt.Fprintf(w, "\t%s -> %s [label=%s];\n", dotNode(n), dotNode(e.to), dotLabel(shortKey(e.label)))
		}
	}
	fmt.Fprintln(w, "}")
}

// The ids are unlike each other whatever a lease is called and a label names:
// a quoted Go string is one of Graphviz too, and no digest has a space.
func dotLease(h *holder) string { return strconv.Quote("lease " + h.id) }

func dotNode(n *node) string {
	if n.isDigest() {
		return strconv.Quote(n.name)
	}
	return strconv.Quote("missing " + n.name)
}

func dotStyle(n *node) string {
	switch {
	case n.missing:
		return ", style=dotted"
	case !n.kept:
		return ", style=dashed"
	case n.root != "":
		return ", style=bold"
	}
	return ""
}

var dotEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// dotLabel quotes lines, in which backslashes have no meaning. It changes the
// slice.
func dotLabel(lines ...string) string {
	for i, line := range lines {
		lines[i] = dotEscape.Replace(line)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}

// writeMermaid draws the graph as a flowchart of Mermaid.
func (g *graph) writeMermaid(w io.Writer) {
	ids := make(map[*node]string, len(g.nodes))
	fmt.Fprintln(w, "flowchart LR")
	for i, h := range g.leases {
		fmt.Fprintf(w, "  l%d([%s])\n", i, mermaidText(h.text()))
	}
	for i, n := range g.nodes {
		ids[n] = "n" + strconv.Itoa(i)
		fmt.Fprintf(w, "  %s[%s]\n", ids[n], mermaidText(n.text()...))
	}
	for i, h := range g.leases {
		for _, n := range h.content {
			fmt.Fprintf(w, "  l%d --> %s\n", i, ids[n])
		}
	}
	for _, n := range g.nodes {
		for _, e := range n.edges {
			fmt.Fprintf(w, "  %s -->|%s| %s\n", ids[n], mermaidText(shortKey(e.label)), ids[e.to])
		}
	}
}

// mermaidText quotes lines. What is neither letter nor digit nor harmless
// becomes the number of its character, so that Mermaid reads nothing into it.
func mermaidText(lines ...string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, line := range lines {
		if i > 0 {
			b.WriteString("<br>")
		}
		for _, r := range line {
			if r >= 0x80 || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(" .,:/-", r) {
				b.WriteRune(r)
				continue
			}
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// text is what stands in the box of a node.
func (n *node) text() []string {
	lines := []string{n.short()}
	if !n.missing {
		lines = append(lines, humanSize(n.size))
	}
	return append(lines, n.marks()...)
}

// text is what stands in the box of a lease.
func (h *holder) text() string {
	if h.flat {
		return "lease " + visible(h.id) + ", flat"
	}
	return "lease " + visible(h.id)
}

// graphReport is what --format json prints.
type graphReport struct {
	Schema     string           `json:"schema"`
	Namespace  string           `json:"namespace"`
	Records    []graphRecord    `json:"records"`
	References []graphReference `json:"references"`
	Leases     []graphLease     `json:"leases"`
}

type graphRecord struct {
	Digest       string   `json:"digest"`
	Size         int64    `json:"size"`
	Root         string   `json:"root,omitempty"`
	Leases       []string `json:"leases,omitempty"`
	Missing      bool     `json:"missing,omitempty"`
	Unreferenced bool     `json:"unreferenced,omitempty"`
}

type graphReference struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Label string `json:"label"`
	Back  bool   `json:"back,omitempty"`
}

type graphLease struct {
	ID      string     `json:"id"`
	Expires *time.Time `json:"expires,omitempty"`
	Flat    bool       `json:"flat,omitempty"`
	Content []string   `json:"content"`
}

func (g *graph) report() graphReport {
	r := graphReport{
		Schema: "cellar.graph/1", Namespace: g.namespace,
		Records: []graphRecord{}, References: []graphReference{}, Leases: []graphLease{},
	}
	for _, n := range g.nodes {
		r.Records = append(r.Records, graphRecord{n.name, n.size, n.root, n.leases, n.missing, n.unreferenced()})
		for _, e := range n.edges {
			r.References = append(r.References, graphReference{n.name, e.to.name, e.label, e.back})
		}
	}
	for _, h := range g.leases {
		l := graphLease{ID: h.id, Flat: h.flat, Content: []string{}}
		if !h.expires.IsZero() {
			l.Expires = &h.expires
		}
		for _, n := range h.content {
			l.Content = append(l.Content, n.name)
		}
		r.Leases = append(r.Leases, l)
	}
	return r
}
