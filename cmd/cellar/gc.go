package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/cellarstore/cellar/gc"
	"github.com/spf13/cobra"
)

func (a *app) gcCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Give back the space of what no namespace holds",
		Long: `Removes the bytes that no namespace holds any more, those that a crash left
without a record, and ingestions that were abandoned for too long. What is
there to be read stays, in all namespaces.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				stats, err := s.GarbageCollect(ctx)
				return errors.Join(err, a.printStats(stats))
			})
		},
	}
}

func (a *app) printStats(stats gc.Stats) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Reclaimed:\t%d bytes (%s)\n", stats.Bytes, humanSize(stats.Bytes))
	fmt.Fprintf(w, "Blobs:\t%d, of them %d that never had a record\n", stats.Blobs, stats.Orphans)
	fmt.Fprintf(w, "Ingestions:\t%d abandoned\n", stats.Ingests)
	fmt.Fprintf(w, "Time:\t%s\n", milliseconds(stats.Elapsed))
	return w.Flush()
}
