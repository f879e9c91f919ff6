package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/cellarstore/cellar/gc"
	"github.com/spf13/cobra"
)

func (a *app) gcCommand() *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Give back the space of what nobody needs any more",
		Long: `Collects in all namespaces: removes content that is no root (the label
containerd.io/gc.root, which "cellar ingest" sets) and that no root refers to,
then the bytes that no namespace holds any more, those that a crash left, and
ingestions that were abandoned; and says what it removed.

Content that is new stays for the grace period even so, that there is time to
refer to it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return &usageError{fmt.Errorf("--grace %s is negative", grace)}
			}
			var opts []gc.Option
			if cmd.Flags().Changed("grace") {
				opts = append(opts, gc.WithGrace(grace))
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				stats, err := s.GarbageCollect(ctx, opts...)
				return errors.Join(err, a.printStats(stats))
			})
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 0, "how long new content stays without a reference (default 10m)")
	return cmd
}

func (a *app) printStats(stats gc.Stats) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Reclaimed:\t%d bytes (%s)\n", stats.Bytes, humanSize(stats.Bytes))
	fmt.Fprintf(w, "Blobs:\t%d, of them %d that never had a record\n", stats.Blobs, stats.Orphans)
	fmt.Fprintf(w, "Records:\t%d that nothing referred to\n", stats.Records)
	fmt.Fprintf(w, "Leases:\t%d expired\n", stats.Leases)
	fmt.Fprintf(w, "Ingestions:\t%d abandoned\n", stats.Ingests)
	fmt.Fprintf(w, "Time:\t%s, in which writers waited %s at most\n", milliseconds(stats.Elapsed), milliseconds(stats.LongestStall))
	for _, name := range slices.Sorted(maps.Keys(stats.Namespaces)) {
		in := stats.Namespaces[name]
		fmt.Fprintf(w, "In %s:\t%d records (%s), %d leases, %d ingestions\n", name, in.Records, humanSize(in.Bytes), in.Leases, in.Ingests)
	}
	return w.Flush()
}
