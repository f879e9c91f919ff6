package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func (a *app) lsCommand() *cobra.Command {
	var filters []string
	var quiet, noTrunc bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List content",
		Long: `Lists the namespace's content in the order of the digests. Filters are
expressions over digest, size, createdat, updatedat and labels.KEY, with a comma
for "and"; of several filters, one has to match.`,
		Example: `  cellar ls --filter 'size>=10MiB' --filter labels.team==blue
  cellar ls -q --filter 'createdat>24h,labels.kind~=^log'   (younger than a day)`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				if quiet {
					return listDigests(ctx, a.out, s.store, filters)
				}
				return listTable(ctx, a.out, s.store, filters, noTrunc)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&filters, "filter", "f", nil, "expression that content must match; may be repeated")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print digests only")
	flags.BoolVar(&noTrunc, "no-trunc", false, "print digests and labels whole")
	return cmd
}

func listDigests(ctx context.Context, out io.Writer, store cellar.Manager, filters []string) error {
	return store.Walk(ctx, func(info cellar.Info) error {
		_, err := fmt.Fprintln(out, info.Digest)
		return err
	}, filters...)
}

// tableChunk is how many rows are aligned, and held, together.
const tableChunk = 1000

func listTable(ctx context.Context, out io.Writer, store cellar.Manager, filters []string, noTrunc bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DIGEST\tSIZE\tAGE\tLABELS")
	rows := 0
	err := store.Walk(ctx, func(info cellar.Info) error {
		dgst, shown := info.Digest.String(), formatLabels(info.Labels)
		if !noTrunc {
			dgst, shown = shortDigest(dgst), truncate(shown, 48)
		}
		if rows++; rows%tableChunk == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", dgst, humanSize(info.Size), age(info.CreatedAt), shown)
		return err
	}, filters...)
	if err != nil {
		return err
	}
	return w.Flush()
}

// shortDigest is the algorithm and the first 12 characters, enough for get.
func shortDigest(dgst string) string {
	const short = len("sha256:") + 12
	return dgst[:min(short, len(dgst))]
}

// truncate cuts s after limit runes.
func truncate(s string, limit int) string {
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

func humanSize(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// age says how long ago t was.
func age(t time.Time) string { return span(time.Since(t)) }

// span says how long d is, in the largest unit that fits.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
