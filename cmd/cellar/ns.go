package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/cellarstore/cellar/namespaces"
	"github.com/spf13/cobra"
)

func (a *app) nsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ns",
		Short: "Create, list, label and remove namespaces",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("ns: want create, ls, label or rm")}
			}
			return &usageError{fmt.Errorf("ns: unknown verb %q, want create, ls, label or rm", args[0])}
		},
	}
	cmd.AddCommand(a.nsCreateCommand(), a.nsLsCommand(), a.nsLabelCommand(), a.nsRmCommand())
	return cmd
}

func (a *app) nsCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME [KEY=VALUE...]",
		Short: "Create a namespace; the first write in one does so as well",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := parseLabels(args[1:], false)
			if err != nil {
				return err
			}
			if err := namespaces.Validate(args[0]); err != nil {
				return err
			}
			return a.with(cmd.Context(), mayCreate, func(ctx context.Context, s *session) error {
				return s.Namespaces().Create(ctx, args[0], labels)
			})
		},
	}
}

func (a *app) nsLsCommand() *cobra.Command {
	var filters []string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List namespaces",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.listNamespaces(ctx, s.Namespaces(), filters, quiet)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "expression over name and labels.KEY; may be repeated")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	return cmd
}

func (a *app) listNamespaces(ctx context.Context, store namespaces.Store, filters []string, quiet bool) error {
	names, err := store.List(ctx, filters...)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if !quiet {
		fmt.Fprintln(w, "NAME\tLABELS")
	}
	for _, name := range names {
		if quiet {
			fmt.Fprintln(w, name)
			continue
		}
		labels, err := store.Labels(ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\n", name, formatLabels(labels))
	}
	return w.Flush()
}

func (a *app) nsLabelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "label NAME KEY=VALUE|KEY- ...",
		Short: "Set and remove labels of a namespace",
		Example: `  cellar ns label base containerd.io/namespace.shareable=true
      lends what "base" holds to every other namespace`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := parseLabels(args[1:], true)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.labelNamespace(ctx, s, args[0], changes)
			})
		},
	}
}

// labelNamespace changes labels of a namespace that is there, all or none.
func (a *app) labelNamespace(ctx context.Context, s *session, name string, changes map[string]string) error {
	if _, err := s.Namespaces().Labels(ctx, name); err != nil {
		return err
	}
	err := s.Update(ctx, func(ctx context.Context) error {
		for _, key := range sortedKeys(changes) {
			if err := s.Namespaces().SetLabel(ctx, name, key, changes[key]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	labels, err := s.Namespaces().Labels(ctx, name)
	if err != nil {
		return err
	}
	return a.printLabels(labels)
}

func (a *app) nsRmCommand() *cobra.Command {
	var content bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a namespace",
		Long: `Removes a namespace with its labels, leases and unfinished ingestions. One that
holds content stays, unless --content says that it goes too.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				var opts []namespaces.DeleteOpt
				if content {
					opts = append(opts, namespaces.WithContent())
				}
				return s.Namespaces().Delete(ctx, args[0], opts...)
			})
		},
	}
	cmd.Flags().BoolVar(&content, "content", false, "remove the namespace's content as well")
	return cmd
}
