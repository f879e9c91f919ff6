package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/metadata"
	"github.com/opencontainers/go-digest"
)

// plan tells what a collection would do.
func (a *app) plan(ctx context.Context, s *session, format string, opts []gc.Option) error {
	plan, err := s.Plan(ctx, opts...)
	if err != nil {
		return err
	}
	if format == "json" {
		return a.printJSON(planReport(plan))
	}
	return a.printPlan(plan)
}

func (a *app) printPlan(plan metadata.Plan) error {
	fmt.Fprintln(a.out, "Dry run: nothing was removed. A collection would do this:")
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Reclaim:\t%d bytes (%s) in %d blobs\n", plan.Bytes, humanSize(plan.Bytes), plan.Blobs)
	names := slices.Sorted(maps.Keys(plan.Namespaces))
	for _, name := range names {
		in := plan.Namespaces[name]
		fmt.Fprintf(w, "In %s:\t%d records (%s), %d leases, %d ingestions\n", name, len(in.Records), humanSize(in.Bytes), len(in.Leases), len(in.Ingests))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(names) > 0 {
		fmt.Fprintln(w, "\nNAMESPACE\tCAUSE\tSIZE\tWHAT")
		for _, name := range names {
			printPlanned(w, name, plan.Namespaces[name])
		}
	}
	if len(plan.Dangling) > 0 {
		fmt.Fprintln(w, "\nReferences to content that is not there, which keep nothing:\nNAMESPACE\tFROM\tLABEL\tTO")
		for _, d := range plan.Dangling {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Namespace, d.From, visible(d.Label), visible(string(d.To)))
		}
	}
	return w.Flush()
}

// printPlanned lists what would go from one namespace, a row for each thing.
func printPlanned(w *tabwriter.Writer, name string, in metadata.NamespacePlan) {
	for _, record := range in.Records {
		fmt.Fprintf(w, "%s\tunreferenced\t%s\t%s\n", name, humanSize(record.Size), record.Digest)
	}
	for _, id := range in.Leases {
		fmt.Fprintf(w, "%s\texpired\t-\tlease %s\n", name, visible(id))
	}
	for _, ref := range in.Ingests {
		fmt.Fprintf(w, "%s\tabandoned\t-\tingestion %s\n", name, visible(ref))
	}
}

// gcPlan is what gcReport has only of a plan.
type gcPlan struct {
	Unlinked  []gcRecord   `json:"unlinked"`
	Expired   []gcLease    `json:"expired"`
	Abandoned []gcIngest   `json:"abandoned"`
	Dangling  []gcDangling `json:"dangling"`
}

type gcRecord struct {
	Namespace string        `json:"namespace"`
	Digest    digest.Digest `json:"digest"`
	Bytes     int64         `json:"bytes"`
}

type gcLease struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
}

type gcIngest struct {
	Namespace string `json:"namespace"`
	Ref       string `json:"ref"`
}

type gcDangling struct {
	Namespace string        `json:"namespace"`
	From      digest.Digest `json:"from"`
	Label     string        `json:"label"`
	To        digest.Digest `json:"to"`
}

func planReport(plan metadata.Plan) gcReport {
	p := &gcPlan{Unlinked: []gcRecord{}, Expired: []gcLease{}, Abandoned: []gcIngest{}, Dangling: []gcDangling{}}
	r := gcReport{
		Schema: gcSchema, DryRun: true, Blobs: plan.Blobs, Bytes: plan.Bytes,
		Namespaces: map[string]gcNamespace{}, gcPlan: p,
	}
	for _, name := range slices.Sorted(maps.Keys(plan.Namespaces)) {
		in := plan.Namespaces[name]
		r.Namespaces[name] = gcNamespace{len(in.Records), in.Bytes, len(in.Leases), len(in.Ingests)}
		for _, record := range in.Records {
			p.Unlinked = append(p.Unlinked, gcRecord{name, record.Digest, record.Size})
		}
		for _, id := range in.Leases {
			p.Expired = append(p.Expired, gcLease{name, id})
		}
		for _, ref := range in.Ingests {
			p.Abandoned = append(p.Abandoned, gcIngest{name, ref})
		}
	}
	for _, d := range plan.Dangling {
		p.Dangling = append(p.Dangling, gcDangling(d))
	}
	return r
}
