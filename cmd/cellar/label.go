package main

import (
	"context"
	"fmt"

	"github.com/cellarstore/cellar"
	"github.com/spf13/cobra"
)

func (a *app) labelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "label DIGEST KEY=VALUE|KEY- ...",
		Short: "Set and remove labels of content",
		Long: `Sets labels (KEY=VALUE) and removes them (KEY-); the others stay. Prints the
labels that the content then has.`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeDigests,
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := parseLabels(args[1:], true)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				dgst, err := s.resolve(ctx, args[0])
				if err != nil {
					return err
				}
				info, err := s.store.Update(ctx, cellar.Info{Digest: dgst, Labels: changes}, labelPaths(changes)...)
				if err != nil {
					return err
				}
				return a.printLabels(info.Labels)
			})
		},
	}
}

func (a *app) printLabels(labels map[string]string) error {
	for _, key := range sortedKeys(labels) {
		if _, err := fmt.Fprintf(a.out, "%s=%s\n", key, labels[key]); err != nil {
			return err
		}
	}
	return nil
}
