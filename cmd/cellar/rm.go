package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm DIGEST...",
		Short: "Remove content from the namespace",
		Long: `Removes content from the namespace, and prints the digests. Only the record
goes: the bytes follow with the next "cellar gc", unless another namespace has
them too.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeDigests,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.remove(ctx, s, args)
			})
		},
	}
}

func (a *app) remove(ctx context.Context, s *session, args []string) error {
	var failures []error
	for _, arg := range args {
		dgst, err := s.resolve(ctx, arg)
		if err == nil {
			err = s.store.Delete(ctx, dgst)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("rm %s: %w", arg, err))
			continue
		}
		fmt.Fprintln(a.out, dgst)
	}
	if len(failures) < len(args) {
		a.say(`unlinked in %q; the bytes go with the next "cellar gc", unless another namespace has them`, s.name)
	}
	return a.many(len(args), failures)
}
