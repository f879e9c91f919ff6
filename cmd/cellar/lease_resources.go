package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

func (a *app) leaseAddCommand() *cobra.Command {
	var refs []string
	cmd := &cobra.Command{
		Use:   "add ID [DIGEST...] [--ingest REF]",
		Short: "Let a lease hold content or ingestions",
		Long: `Lets a lease hold content, given by digest or the beginning of one, and with
--ingest ingestions, by their refs: all of them or, at an error, none. They need
not be there yet, if the digest is whole.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeLeaseAnd(a.completeDigests),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeLease(cmd.Context(), args, refs, leasing{
				resolve: a.resolveNew,
				change:  leases.Manager.AddResource,
			})
		},
	}
	cmd.Flags().StringArrayVar(&refs, "ingest", nil, "ref of an ingestion; may be repeated")
	return cmd
}

func (a *app) leaseRmCommand() *cobra.Command {
	var refs []string
	cmd := &cobra.Command{
		Use:   "rm ID [DIGEST...] [--ingest REF]",
		Short: "Let a lease let go of content or ingestions",
		Long: `Lets a lease let go of content, given by digest or the beginning of one, and with
--ingest of ingestions, by their refs: all of them or, at an error, none.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeLeaseAnd(a.completeHeld),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeLease(cmd.Context(), args, refs, leasing{
				resolve: a.resolveHeld,
				change:  leases.Manager.DeleteResource,
			})
		},
	}
	cmd.Flags().StringArrayVar(&refs, "ingest", nil, "ref of an ingestion; may be repeated")
	return cmd
}

// leasing is what add and rm do differently.
type leasing struct {
	// resolve turns digests and refs, as they are typed, into resources.
	resolve func(ctx context.Context, s *session, id string, digests, refs []string) ([]leases.Resource, error)
	change  func(m leases.Manager, ctx context.Context, id string, r leases.Resource) error
}

// changeLease changes what the lease args[0] holds, all or nothing.
func (a *app) changeLease(ctx context.Context, args, refs []string, do leasing) error {
	id, digests := args[0], args[1:]
	if len(digests)+len(refs) == 0 {
		return &usageError{errors.New("want a DIGEST or --ingest REF")}
	}
	return a.with(ctx, mustExist, func(ctx context.Context, s *session) error {
		if _, err := s.lease(ctx, id); err != nil {
			return err
		}
		resources, err := do.resolve(ctx, s, id, digests, refs)
		if err != nil {
			return err
		}
		return s.Update(ctx, func(ctx context.Context) error {
			for _, r := range resources {
				if err := do.change(s.leases, ctx, id, r); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// resolveNew returns resources of the namespace, or to come into it.
func (a *app) resolveNew(ctx context.Context, s *session, _ string, digests, refs []string) ([]leases.Resource, error) {
	var all []leases.Resource
	for _, arg := range digests {
		dgst, err := s.resolve(ctx, arg)
		if err != nil {
			return nil, err
		}
		if _, err := s.store.Info(ctx, dgst); errdefs.IsNotFound(err) {
			a.say("%s: not in %q yet; the lease keeps it once it comes", dgst, s.name)
		}
		all = append(all, leases.Resource{Type: leases.Content, ID: dgst.String()})
	}
	for _, ref := range refs {
		all = append(all, leases.Resource{Type: leases.Ingests, ID: ref})
	}
	return all, nil
}

// resolveHeld returns resources that the lease holds. What it does not hold is
// NotFound.
func (a *app) resolveHeld(ctx context.Context, s *session, id string, digests, refs []string) ([]leases.Resource, error) {
	held, err := s.leases.ListResources(ctx, id, leases.Page{})
	if err != nil {
		return nil, err
	}
	var all []leases.Resource
	for _, arg := range digests {
		r, err := heldContent(held, id, arg)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	for _, ref := range refs {
		r := leases.Resource{Type: leases.Ingests, ID: ref}
		if !slices.Contains(held, r) {
			return nil, notHeld(id, ref)
		}
		all = append(all, r)
	}
	return all, nil
}

// heldContent returns the one of what a lease holds that arg names.
func heldContent(held []leases.Resource, id, arg string) (leases.Resource, error) {
	prefix, err := digestPrefix(arg)
	if err != nil {
		return leases.Resource{}, err
	}
	var found []digest.Digest
	for _, r := range held {
		if r.Type == leases.Content && strings.HasPrefix(r.ID, prefix) {
			found = append(found, digest.Digest(r.ID))
		}
	}
	if len(found) == 0 {
		return leases.Resource{}, notHeld(id, arg)
	}
	dgst, err := theOne(arg, found)
	return leases.Resource{Type: leases.Content, ID: dgst.String()}, err
}

func notHeld(id, arg string) error {
	return &leaseError{fmt.Errorf("%s, held by lease %q: %w", cellar.Shorten(arg), id, errdefs.ErrNotFound)}
}

// completeLeaseAnd completes a lease's id first, and digests after it.
func (a *app) completeLeaseAnd(rest cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.completeLeases(cmd, args, typed)
		}
		return rest(cmd, args, typed)
	}
}

// completeHeld offers the digests that the lease args[0] holds and that begin
// with what was typed.
func (a *app) completeHeld(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var found []string
	err := a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
		held, err := s.leases.ListResources(ctx, args[0], leases.Page{})
		for _, r := range held {
			if r.Type == leases.Content && strings.HasPrefix(r.ID, typed) {
				found = append(found, r.ID)
			}
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
