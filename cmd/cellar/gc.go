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

const gcLong = `Collects in all namespaces: removes content that is no root (the label
containerd.io/gc.root, which "cellar ingest" sets), that no lease holds, and that
neither refers to; then leases that have expired, ingestions that were abandoned,
and the bytes that no namespace holds any more or that a crash left; and says
what it removed.

Content that is new stays for the grace period even so, that there is time to
refer to it.

With --dry-run it removes nothing, and lists what it would remove and why, and
the references that lead to content that is not there. Bytes that a crash left
show only when they are removed.

--format json prints one object:
  schema      "cellar.gc/1"
  dry_run     whether that is a plan, and nothing was removed
  blobs, bytes, namespaces
              what was removed, or would be; of each namespace, numbers of
              records, leases and ingestions, and the bytes of the records
  orphans, errors, elapsed_ns, longest_stall_ns
              only without --dry-run
  unlinked, expired, abandoned, dangling
              only with --dry-run: lists of {namespace, digest, bytes},
              {namespace, id}, {namespace, ref}, {namespace, from, label, to}`

// gcFlags is what the user says of a collection.
type gcFlags struct {
	grace  time.Duration
	dryRun bool
	format string
}

func (a *app) gcCommand() *cobra.Command {
	var f gcFlags
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Give back the space of what nobody needs any more",
		Long:  gcLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := graceOption(cmd, f.grace)
			if err != nil {
				return err
			}
			if err := checkFormat(f.format, "text", "json"); err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				if f.dryRun {
					return a.plan(ctx, s, f.format, opts)
				}
				return a.collect(ctx, s, f.format, opts)
			})
		},
	}
	addGraceFlag(cmd, &f.grace)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "remove nothing, list what would be removed")
	addFormatFlag(cmd, &f.format, "text", "json")
	return cmd
}

func addGraceFlag(cmd *cobra.Command, grace *time.Duration) {
	cmd.Flags().DurationVar(grace, "grace", 0, "how long new content stays without a reference (default 10m)")
}

// graceOption returns what --grace asks for, nothing if it was not given.
func graceOption(cmd *cobra.Command, grace time.Duration) ([]gc.Option, error) {
	switch {
	case grace < 0:
		return nil, &usageError{fmt.Errorf("--grace %s is negative", grace)}
	case !cmd.Flags().Changed("grace"):
		return nil, nil
	}
	return []gc.Option{gc.WithGrace(grace)}, nil
}

// collect removes what nobody needs, and tells even of what it did before it
// failed.
func (a *app) collect(ctx context.Context, s *session, format string, opts []gc.Option) error {
	stats, err := s.GarbageCollect(ctx, opts...)
	if format == "json" {
		return errors.Join(err, a.printJSON(statsReport(stats)))
	}
	return errors.Join(err, a.printStats(stats))
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

// gcReport is what --format json prints of a collection or a plan of one.
type gcReport struct {
	Schema     string                 `json:"schema"`
	DryRun     bool                   `json:"dry_run"`
	Blobs      int                    `json:"blobs"`
	Bytes      int64                  `json:"bytes"`
	Namespaces map[string]gcNamespace `json:"namespaces"`
	*gcRun
	*gcPlan
}

type gcNamespace struct {
	Records    int   `json:"records"`
	Bytes      int64 `json:"bytes"`
	Leases     int   `json:"leases"`
	Ingestions int   `json:"ingestions"`
}

type gcRun struct {
	Orphans      int           `json:"orphans"`
	Errors       int           `json:"errors"`
	Elapsed      time.Duration `json:"elapsed_ns"`
	LongestStall time.Duration `json:"longest_stall_ns"`
}

func statsReport(stats gc.Stats) gcReport {
	r := gcReport{
		Schema: gcSchema, Blobs: stats.Blobs, Bytes: stats.Bytes, Namespaces: map[string]gcNamespace{},
		gcRun: &gcRun{stats.Orphans, stats.Errors, stats.Elapsed, stats.LongestStall},
	}
	for name, n := range stats.Namespaces {
		r.Namespaces[name] = gcNamespace{n.Records, n.Bytes, n.Leases, n.Ingests}
	}
	return r
}

const gcSchema = "cellar.gc/1"
