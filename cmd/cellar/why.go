package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/metadata"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

const whyLong = `Tells what keeps content: the shortest way from a root, a lease, the grace period
or an ingestion to it, one step a line, each with the label that leads to the
next; or that nothing does, and the next "cellar gc" unlinks it. Both are answers:
the exit code is 0. That content is new is told only if nothing else keeps it.

--format json prints one object:
  schema        "cellar.why/1"
  explanations  a list, one for each namespace that has the content:
    namespace, digest, kept
    cause       "root", "lease", "flat lease", "grace", "use", "ingestion", "nothing"
    name        the root's label, the lease's id, the ingestion's ref
    until       when the grace or use ends (RFC 3339)
    path        a list of {digest, label, back}: the label leads to the next
                step; with back it is the next one's own and names this one;
                without one, this refers to what is not there and the next
                one belongs to`

// whyFlags is what the user says of the question.
type whyFlags struct {
	grace  time.Duration
	all    bool
	format string
	whole  bool
}

func (a *app) whyCommand() *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:               "why DIGEST",
		Short:             "Tell what keeps content, or that nothing does",
		Long:              whyLong,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstArg(a.completeDigests),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := graceOption(cmd, f.grace)
			if err != nil {
				return err
			}
			if err := checkFormat(f.format, "text", "json"); err != nil {
				return err
			}
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.why(ctx, s, args[0], f, opts)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "tell it of every namespace that has the content")
	flags.BoolVar(&f.whole, "no-trunc", false, "print digests whole")
	addGraceFlag(cmd, &f.grace)
	addFormatFlag(cmd, &f.format, "text", "json")
	return cmd
}

func (a *app) why(ctx context.Context, s *session, arg string, f whyFlags, opts []gc.Option) error {
	names := []string{s.name}
	if f.all {
		var err error
		if names, err = s.Namespaces().List(ctx); err != nil {
			return err
		}
	}
	dgst, err := s.resolveIn(ctx, arg, names)
	if err != nil {
		return err
	}
	all, err := s.explainIn(ctx, dgst, names, opts)
	if err != nil {
		return err
	}
	if f.format == "json" {
		return a.printJSON(whyReport(all))
	}
	for _, e := range all {
		a.printExplanation(e, f.whole)
	}
	return nil
}

// explainIn explains content in those of the namespaces that have it; in none
// is NotFound.
func (s *session) explainIn(ctx context.Context, dgst digest.Digest, names []string, opts []gc.Option) ([]metadata.Explanation, error) {
	var all []metadata.Explanation
	for _, name := range names {
		e, err := s.explainLasting(ctx, name, dgst, opts)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, noContent(dgst.String(), names)
	}
	return all, nil
}

// explainLasting explains content by what keeps it longer than grace does, if
// anything does that.
func (s *session) explainLasting(ctx context.Context, name string, dgst digest.Digest, opts []gc.Option) (metadata.Explanation, error) {
	e, err := s.Explain(ctx, name, dgst, gc.WithGrace(0))
	if err != nil || e.Kept() {
		return e, err
	}
	return s.Explain(ctx, name, dgst, opts...)
}

func (a *app) printExplanation(e metadata.Explanation, whole bool) {
	show := func(dgst digest.Digest) string {
		if whole {
			return dgst.String()
		}
		return shortDigest(dgst.String())
	}
	if !e.Kept() {
		fmt.Fprintf(a.out, "%s: nothing keeps %s, the next collection unlinks it\n", e.Namespace, show(e.Digest))
		return
	}
	fmt.Fprintf(a.out, "%s: %s is kept by %s\n", e.Namespace, show(e.Digest), causeText(e))
	for i, step := range e.Path {
		lead := ""
		if i < len(e.Path)-1 {
			lead = "  " + leadText(step)
		}
		fmt.Fprintf(a.out, "  %s%s\n", show(step.Digest), lead)
	}
}

func causeText(e metadata.Explanation) string {
	left := max(time.Until(e.Until), 0).Round(time.Second)
	switch e.Cause {
	case metadata.CauseRoot:
		return "a root, by label " + visible(e.Name)
	case metadata.CauseLease:
		return "lease " + visible(e.Name)
	case metadata.CauseFlatLease:
		return "lease " + visible(e.Name) + ", which is flat: not what it refers to"
	case metadata.CauseGrace:
		return fmt.Sprintf("nothing but the grace period, which ends in %s", left)
	case metadata.CauseUse:
		return fmt.Sprintf("nothing but a writer that found it there, whose grace period ends in %s", left)
	case metadata.CauseIngest:
		return "ingestion " + visible(e.Name) + ", which took it over"
	}
	return string(e.Cause)
}

// leadText says how a step that is not the last leads to the next.
func leadText(step metadata.Step) string {
	switch {
	case step.Label == "":
		return "refers to what is not there, and what the next one belongs to"
	case step.Back:
		return "is named by the next one's label " + visible(step.Label)
	}
	return "refers by label " + visible(step.Label) + " to"
}

type whyAnswer struct {
	Schema       string           `json:"schema"`
	Explanations []whyExplanation `json:"explanations"`
}

type whyExplanation struct {
	Namespace string         `json:"namespace"`
	Digest    digest.Digest  `json:"digest"`
	Kept      bool           `json:"kept"`
	Cause     metadata.Cause `json:"cause"`
	Name      string         `json:"name,omitempty"`
	Until     *time.Time     `json:"until,omitempty"`
	Path      []whyStep      `json:"path"`
}

type whyStep struct {
	Digest digest.Digest `json:"digest"`
	Label  string        `json:"label,omitempty"`
	Back   bool          `json:"back,omitempty"`
}

func whyReport(all []metadata.Explanation) whyAnswer {
	answer := whyAnswer{Schema: "cellar.why/1"}
	for _, e := range all {
		one := whyExplanation{Namespace: e.Namespace, Digest: e.Digest, Kept: e.Kept(), Cause: e.Cause, Name: e.Name, Path: []whyStep{}}
		if !e.Until.IsZero() {
			one.Until = &e.Until
		}
		for _, step := range e.Path {
			one.Path = append(one.Path, whyStep(step))
		}
		answer.Explanations = append(answer.Explanations, one)
	}
	return answer
}
