package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/spf13/cobra"
)

func (a *app) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info DIGEST",
		Short:             "Describe content",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeDigests,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				dgst, err := s.resolve(ctx, args[0])
				if err != nil {
					return err
				}
				info, err := s.store.Info(ctx, dgst)
				if err != nil {
					return err
				}
				return a.describe(s, info)
			})
		},
	}
}

func (a *app) describe(s *session, info cellar.Info) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	file := filepath.Join(s.root, "blobs", info.Digest.Algorithm().String(), info.Digest.Encoded())
	fmt.Fprintf(w, "Digest:\t%s\n", info.Digest)
	fmt.Fprintf(w, "Namespace:\t%s\n", s.name)
	fmt.Fprintf(w, "Size:\t%d bytes (%s)\n", info.Size, humanSize(info.Size))
	fmt.Fprintf(w, "Created:\t%s\n", info.CreatedAt.Format(time.RFC3339Nano))
	fmt.Fprintf(w, "Updated:\t%s\n", info.UpdatedAt.Format(time.RFC3339Nano))
	fmt.Fprintf(w, "File:\t%s\n", file)
	title := "Labels:"
	for _, key := range sortedKeys(info.Labels) {
		fmt.Fprintf(w, "%s\t%s=%s\n", title, key, info.Labels[key])
		title = ""
	}
	return w.Flush()
}

func sortedKeys(labels map[string]string) []string {
	keys := make([]string, 0, len(labels))
	for key := range labels {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
