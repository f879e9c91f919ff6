package main

import (
	"bufio"
	"context"

	"github.com/spf13/cobra"
)

const graphLong = `Draws what keeps what in the namespace: from the roots (label
containerd.io/gc.root) and the leases down the references, those that records
make (containerd.io/gc.ref.content...) and those of records that belong to others
(containerd.io/gc.bref.content...). What neither reaches comes last, as
unreferenced: "cellar gc" takes it, once it is no longer new. With DIGEST only
what hangs below that is drawn.

Marks: "root"; "missing", what a label or a lease names and is not there;
"unreferenced"; and below DIGEST "lease ID".

Formats:
  tree     for people. What hangs in several places is drawn once, and is
           "(above)" or "(below)" in the others. Keys lack "containerd.io/".
  dot      for Graphviz: cellar graph --format dot | dot -Tsvg >graph.svg
  mermaid  a flowchart for Markdown; some viewers stop at 500 references
  json     one object:
    schema      "cellar.graph/1"
    namespace
    records     a list of {digest, size, root, leases, missing, unreferenced};
                root is the label's key, leases are ids
    references  a list of {from, to, label, back}: from keeps to; the label is
                from's, or to's with back
    leases      a list of {id, expires, flat, content}; without expires it never
                ends, flat keeps content without what that refers to`

// graphFlags is what the user says of the drawing.
type graphFlags struct {
	format string
	whole  bool
}

func (a *app) graphCommand() *cobra.Command {
	var f graphFlags
	formats := []string{"tree", "dot", "mermaid", "json"}
	cmd := &cobra.Command{
		Use:               "graph [DIGEST...]",
		Short:             "Draw what refers to what",
		Long:              graphLong,
		ValidArgsFunction: a.completeDigests,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(f.format, formats...); err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.graph(ctx, s, args, f)
			})
		},
	}
	addFormatFlag(cmd, &f.format, formats...)
	cmd.Flags().BoolVar(&f.whole, "no-trunc", false, "print digests whole in the tree")
	return cmd
}

func (a *app) graph(ctx context.Context, s *session, args []string, f graphFlags) error {
	g, err := readGraph(ctx, s)
	if err != nil {
		return err
	}
	var tops []*node
	for _, arg := range args {
		dgst, err := s.resolve(ctx, arg)
		if err != nil {
			return err
		}
		n := g.byName[dgst.String()]
		if n == nil || n.missing {
			return noContent(arg, []string{s.name})
		}
		tops = append(tops, n)
	}
	if len(tops) > 0 {
		g = g.below(tops)
	}
	if f.format == "json" {
		return a.printJSON(g.report())
	}
	w := bufio.NewWriter(a.out)
	switch f.format {
	case "dot":
		g.writeDot(w)
	case "mermaid":
		g.writeMermaid(w)
	default:
		newTree(w, g, f.whole).write(tops)
	}
	return w.Flush()
}
