package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

const leaseLong = `A lease keeps content, what that refers to, and ingestions from being collected,
until it is deleted or its time has come. Take one before work in several steps,
and let go of it once the result is a root or a root refers to it:

  L=$(cellar lease create)
  cellar ingest --lease $L part-1 part-2
  cellar ingest --label containerd.io/gc.ref.content.0=sha256:... whole
  cellar lease delete $L`

func (a *app) leaseCommand() *cobra.Command {
	const verbs = "create, ls, add, rm, renew or delete"
	cmd := &cobra.Command{
		Use:   "lease",
		Short: "Keep content for a time: create, list, change and delete leases",
		Long:  leaseLong,
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("lease: want " + verbs)}
			}
			return &usageError{fmt.Errorf("lease: unknown verb %q, want %s", args[0], verbs)}
		},
	}
	cmd.AddCommand(
		a.leaseCreateCommand(), a.leaseLsCommand(), a.leaseAddCommand(), a.leaseRmCommand(),
		a.leaseRenewCommand(), a.leaseDeleteCommand(),
	)
	return cmd
}

// lease describes a lease. One that is not there is a leaseError.
func (s *session) lease(ctx context.Context, id string) (leases.Lease, error) {
	l, err := s.leases.Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return l, &leaseError{err}
	}
	return l, err
}

// useLease makes the session's writes be held by a lease, unless id is empty.
func (s *session) useLease(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if _, err := s.lease(ctx, id); err != nil {
		return err
	}
	var err error
	s.store, err = s.LeasedNamespace(s.name, id)
	return err
}

// completeLeases offers the ids that begin with what was typed, save those
// that a shell could not be given.
func (a *app) completeLeases(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var found []string
	err := a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
		all, err := s.leases.List(ctx)
		for _, l := range all {
			if strings.HasPrefix(l.ID, typed) && visible(l.ID) == l.ID {
				found = append(found, l.ID)
			}
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// defaultTTL is how long a lease lasts that is made without a word about it,
// so that those which were forgotten keep nothing for ever.
const defaultTTL = 24 * time.Hour

// endFlags is what the user says of a lease's end.
type endFlags struct {
	ttl     time.Duration
	expires string
}

func (f *endFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.ttl, "ttl", defaultTTL, "how long the lease lasts from now")
	cmd.Flags().StringVar(&f.expires, "expires", "", `when it ends, like 2030-12-31T18:00:00Z, or "never"`)
}

// time returns when the lease ends; zero stands for never.
func (f *endFlags) time(cmd *cobra.Command) (time.Time, error) {
	now, given := time.Now(), cmd.Flags().Changed
	switch {
	case given("ttl") && given("expires"):
		return time.Time{}, &usageError{errors.New("--ttl and --expires both say when the lease ends")}
	case f.ttl <= 0:
		return time.Time{}, &usageError{fmt.Errorf(`--ttl %s is over at once; "--expires never" is for a lease without an end`, f.ttl)}
	case !given("expires"):
		return now.Add(f.ttl), nil
	case f.expires == "never":
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, f.expires)
	switch {
	case err != nil:
		return end, &usageError{fmt.Errorf(`--expires %q: want a time like 2030-12-31T18:00:00Z, or "never"`, f.expires)}
	case !end.After(now):
		return end, &usageError{fmt.Errorf(`--expires %s is over; "cellar lease delete" ends a lease now`, f.expires)}
	}
	return end, nil
}

func (a *app) leaseCreateCommand() *cobra.Command {
	var end endFlags
	var id string
	var given []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a lease, and print its id",
		Long: `Creates a lease, and prints its id. It ends by itself after a day, unless --ttl
or --expires say otherwise. With the label containerd.io/gc.flat it keeps content
without what that refers to.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			expires, err := end.time(cmd)
			if err != nil {
				return err
			}
			opts, err := createOptions(expires, given)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("id") {
				opts = append(opts, leases.WithID(id))
			}
			if _, err := leases.NewCreateOptions(opts...); err != nil {
				return err
			}
			return a.with(cmd.Context(), mayCreate, func(ctx context.Context, s *session) error {
				l, err := s.leases.Create(ctx, opts...)
				if err == nil {
					fmt.Fprintln(a.out, l.ID)
				}
				return err
			})
		},
	}
	end.add(cmd)
	cmd.Flags().StringVar(&id, "id", "", "the lease's id (default a random one)")
	cmd.Flags().StringArrayVar(&given, "label", nil, "label KEY=VALUE of the lease; may be repeated")
	return cmd
}

func createOptions(expires time.Time, given []string) ([]leases.Opt, error) {
	set, err := parseLabels(given, false)
	if err != nil {
		return nil, err
	}
	if _, also := set[labels.GCExpire]; also {
		return nil, &usageError{fmt.Errorf("--label %s: --expires says when a lease ends", labels.GCExpire)}
	}
	return []leases.Opt{leases.WithExpiry(expires), leases.WithLabels(set)}, labels.Validate(set)
}

func (a *app) leaseLsCommand() *cobra.Command {
	var filters []string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "ls [ID]",
		Short: "List leases, or what one of them holds",
		Long: `Lists the namespace's leases in the order of their ids; with ID, what that lease
holds: a line for each resource, its type and its id. Filters are expressions
over id, createdat, expiresat and labels.KEY.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: firstArg(a.completeLeases),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (quiet || len(filters) > 0) {
				return &usageError{errors.New("--quiet and --filter are for the list of leases, without ID")}
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				if len(args) == 1 {
					return a.listResources(ctx, s, args[0])
				}
				return a.listLeases(ctx, s, filters, quiet)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "expression that a lease must match; may be repeated")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	return cmd
}

func (a *app) listLeases(ctx context.Context, s *session, filters []string, quiet bool) error {
	all, err := s.leases.List(ctx, filters...)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if !quiet {
		fmt.Fprintln(w, "ID\tCREATED\tEXPIRES\tRESOURCES\tLABELS")
	}
	for _, l := range all {
		if quiet {
			fmt.Fprintln(a.out, l.ID)
			continue
		}
		held, err := s.leases.ListResources(ctx, l.ID, leases.Page{})
		if errdefs.IsNotFound(err) {
			continue // its time came just now
		}
		if err != nil {
			return err
		}
		own := maps.Clone(l.Labels)
		delete(own, labels.GCExpire) // the column before says it
		fmt.Fprintf(w, "%s\t%s ago\t%s\t%d\t%s\n", visible(l.ID), age(l.CreatedAt), remaining(l), len(held), visible(truncate(formatLabels(own), 48)))
	}
	return w.Flush()
}

// remaining says when a lease ends.
func remaining(l leases.Lease) string {
	if l.ExpiresAt.IsZero() {
		return "never"
	}
	return "in " + span(time.Until(l.ExpiresAt))
}

func (a *app) listResources(ctx context.Context, s *session, id string) error {
	if _, err := s.lease(ctx, id); err != nil {
		return err
	}
	held, err := s.leases.ListResources(ctx, id, leases.Page{})
	if err != nil {
		return err
	}
	for _, r := range held {
		fmt.Fprintf(a.out, "%s %s\n", r.Type, visible(r.ID))
	}
	return nil
}

func (a *app) leaseRenewCommand() *cobra.Command {
	var end endFlags
	cmd := &cobra.Command{
		Use:   "renew ID",
		Short: "Move the end of a lease, and print when that is",
		Long: `Moves the end of a lease to a day from now, or to what --ttl or --expires say,
sooner or later than it was, and prints it. One that has expired is gone, and
can't be renewed.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArg(a.completeLeases),
		RunE: func(cmd *cobra.Command, args []string) error {
			expires, err := end.time(cmd)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				if _, err := s.lease(ctx, args[0]); err != nil {
					return err
				}
				l, err := s.leases.Renew(ctx, args[0], expires)
				if err != nil {
					return err
				}
				a.printEnd(l)
				return nil
			})
		},
	}
	end.add(cmd)
	return cmd
}

func (a *app) printEnd(l leases.Lease) {
	if l.ExpiresAt.IsZero() {
		fmt.Fprintln(a.out, "never")
		return
	}
	fmt.Fprintln(a.out, l.ExpiresAt.Format(time.RFC3339))
}

func (a *app) leaseDeleteCommand() *cobra.Command {
	var sync, ifExists bool
	cmd := &cobra.Command{
		Use:   "delete ID...",
		Short: "Delete leases",
		Long: `Deletes leases, and prints their ids. What they held goes with the next "cellar
gc" if nothing else keeps it; with --sync that collection has run when the
command ends. New content stays for the grace period even so.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeLeases,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				err := a.deleteLeases(ctx, s, args, ifExists)
				if err != nil || !sync {
					return err
				}
				stats, err := s.GarbageCollect(ctx)
				a.say("collected: %d records, %d bytes reclaimed", stats.Records, stats.Bytes)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&sync, "sync", false, "collect, and wait for the end of that")
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "do not mind leases that are not there")
	return cmd
}

func (a *app) deleteLeases(ctx context.Context, s *session, ids []string, ifExists bool) error {
	var failures []error
	for _, id := range ids {
		released, err := s.leases.Delete(ctx, id)
		switch {
		case errdefs.IsNotFound(err) && ifExists:
		case errdefs.IsNotFound(err):
			failures = append(failures, &leaseError{err})
		case err != nil:
			failures = append(failures, err)
		default:
			fmt.Fprintln(a.out, id)
			a.say("lease %s: let go of %d content, %d ingestions", visible(id), released.Content, released.Ingests)
		}
	}
	return a.many(len(ids), failures)
}
