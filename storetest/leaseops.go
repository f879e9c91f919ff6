package storetest

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// leaseOperations are the calls that make garbage and keep things from being
// it.
var leaseOperations = []operation{
	{"lease", 6, drawLease},
	{"renew", 2, drawRenew},
	{"end", 2, drawEnd},
	{"hold", 5, drawHold},
	{"give back", 2, drawGiveBack},
	{"leases", 1, drawLeases},
	{"held", 1, drawHeld},
	{"advance", 4, drawAdvance},
	{"collect", 6, drawCollect},
	{"graph", 3, drawGraph},
}

var leaseIDs = []string{"l1", "l2", "l3"}

// leaseIn draws a lease that may well be there.
func (d *drawer) leaseIn(ns string) string {
	for range 3 {
		if id := pick(d, leaseIDs...); d.model.stores[ns].(*tenant).lease(id) != nil {
			return id
		}
	}
	return pick(d, leaseIDs...)
}

// under draws the lease for a call's context, and returns how to put it there.
func (d *drawer) under(ns string) (text string, in func(context.Context) context.Context) {
	if d.tc.single() || d.IntN(5) < 3 {
		return "", func(ctx context.Context) context.Context { return ctx }
	}
	id := d.leaseIn(ns)
	if d.IntN(20) == 0 {
		id = ""
	}
	return fmt.Sprintf(" under %q", id), func(ctx context.Context) context.Context { return leases.WithLease(ctx, id) }
}

func (s *side) leases(ns string) leases.Manager { return s.managers[ns] }

func drawLease(d *drawer) call {
	ns, id := d.namespace(), pick(d, leaseIDs...)
	opts := []leases.Opt{leases.WithID(id)}
	text := fmt.Sprintf("%s %s", ns, id)
	given := map[string]string{}
	switch ttl := time.Duration(pick(d, 20, 200, 5000, 100_000)) * time.Second; d.IntN(5) {
	case 0, 1:
		opts, text = append(opts, leases.WithTTL(ttl)), fmt.Sprint(text, " for ", ttl)
	case 2:
		opts, text = append(opts, leases.WithExpiry(d.now().Add(ttl))), fmt.Sprint(text, " until in ", ttl)
	case 3:
		given[labels.GCExpire] = labels.FormatExpiry(d.now().Add(ttl))
	}
	if d.IntN(3) == 0 {
		given[labels.GCFlat] = "yes"
	}
	if d.IntN(4) == 0 {
		given["a"] = pick(d, "", "1")
	}
	opts = append(opts, leases.WithLabels(given))
	return call{fmt.Sprint(text, " labels ", given), func(ctx context.Context, s *side) answer {
		return answerOf(s.leases(ns).Create(ctx, opts...))
	}}
}

func drawRenew(d *drawer) call {
	ns := d.namespace()
	id, at := d.leaseIn(ns), pick(d, d.now().Add(-1), d.now().Add(30*time.Second), d.now().Add(time.Hour), time.Time{})
	return call{fmt.Sprint(ns, " ", id, " until ", at), func(ctx context.Context, s *side) answer {
		return answerOf(s.leases(ns).Renew(ctx, id, at))
	}}
}

// drawEnd deletes a lease. What is gone when it has waited for a collection is
// part of the answer.
func drawEnd(d *drawer) call {
	ns := d.namespace()
	id, wait, lenient := d.leaseIn(ns), d.IntN(3) == 0, d.IntN(4) == 0
	var opts []leases.DeleteOpt
	if wait {
		opts = append(opts, leases.Synchronous())
	}
	if lenient {
		opts = append(opts, leases.IfExists())
	}
	return call{fmt.Sprintf("%s %s synchronous %v if exists %v", ns, id, wait, lenient), func(ctx context.Context, s *side) answer {
		released, err := s.leases(ns).Delete(ctx, id, opts...)
		if err != nil || !wait {
			return answerOf(released, err)
		}
		a := d.survey(ctx, s)
		a.value = []any{released, a.value}
		return a
	}}
}

// resource draws something to be held.
func (d *drawer) resource(ns string) leases.Resource {
	switch d.IntN(8) {
	case 0, 1:
		return leases.Resource{Type: leases.Ingests, ID: pick(d, refs...)}
	case 2:
		return pick(d,
			leases.Resource{Type: leases.Images, ID: "image"}, leases.Resource{Type: "snapshots/native", ID: "s"},
			leases.Resource{Type: "containers", ID: "c"}, leases.Resource{Type: leases.Content, ID: "no digest"},
		)
	}
	return leases.Resource{Type: leases.Content, ID: d.digestIn(ns).String()}
}

func drawHold(d *drawer) call {
	ns := d.namespace()
	id, r := d.leaseIn(ns), d.resource(ns)
	return call{fmt.Sprintf("%s %s %.22s", ns, id, r), func(ctx context.Context, s *side) answer {
		return answerOf(nil, s.leases(ns).AddResource(ctx, id, r))
	}}
}

func drawGiveBack(d *drawer) call {
	ns := d.namespace()
	id, r := d.leaseIn(ns), d.resource(ns)
	return call{fmt.Sprintf("%s %s %.22s", ns, id, r), func(ctx context.Context, s *side) answer {
		return answerOf(nil, s.leases(ns).DeleteResource(ctx, id, r))
	}}
}

func drawLeases(d *drawer) call {
	ns := d.namespace()
	filters := pick(d, nil, []string{"id==l1"}, []string{"labels.a"}, []string{"expiresat<" + labels.FormatExpiry(d.now().Add(time.Minute))}, []string{"id=="})
	return call{fmt.Sprint(ns, filters), func(ctx context.Context, s *side) answer {
		return answerOf(s.leases(ns).List(ctx, filters...))
	}}
}

func drawHeld(d *drawer) call {
	ns := d.namespace()
	id := d.leaseIn(ns)
	page := leases.Page{Limit: pick(d, 0, 1, 3, -1)}
	if d.IntN(2) == 0 {
		page.After = contentResource(d.digest())
	}
	return call{fmt.Sprintf("%s %s %.22s %d", ns, id, page.After, page.Limit), func(ctx context.Context, s *side) answer {
		held, err := s.leases(ns).ListResources(ctx, id, page)
		return answerOf(append([]leases.Resource(nil), held...), err)
	}}
}

// drawAdvance lets time pass, for both sides at once.
func drawAdvance(d *drawer) call {
	by := pick(d, 10, 10, 10, 60, 60, 60, 1000, 20_000, 90_000)
	d.clock.Add(int64(by))
	return call{fmt.Sprint(by, " s"), func(context.Context, *side) answer { return answer{} }}
}

func drawCollect(d *drawer) call {
	grace := pick(d, 0, 0, 30*time.Second, 2*time.Minute, time.Hour)
	return call{fmt.Sprint("grace ", grace), func(ctx context.Context, s *side) answer {
		removed, err := s.pool.Collect(ctx, grace)
		if err != nil {
			return answerOf(nil, err)
		}
		a := d.survey(ctx, s)
		a.value = []any{removed, a.value}
		return a
	}}
}

// drawGraph writes a few nodes that refer to one another: in a row or a ring, or
// back to the first. The first may be a root, or held by a lease.
func drawGraph(d *drawer) call {
	ns, ring, back, rooted := d.namespace(), d.IntN(2) == 0, d.IntN(4) == 0, d.IntN(4) == 0
	lease := pick(d, "", "", d.leaseIn(ns))
	of := d.Perm(len(nodes))[:3]
	name := func(i int) string { return digest.FromBytes(nodes[of[i]]).String() }
	all := make([]map[string]string, len(of))
	for i := range of {
		switch last := i == len(of)-1; {
		case back:
			all[i] = map[string]string{labels.GCBackRefContent: name(0)}
		case !last || ring:
			all[i] = map[string]string{labels.GCRefContent: name((i + 1) % len(of))}
		default:
			all[i] = map[string]string{}
		}
	}
	if rooted {
		all[0][labels.GCRoot] = "yes"
	}
	return call{fmt.Sprintf("%s nodes %v ring %v back %v root %v lease %q", ns, of, ring, back, rooted, lease), func(ctx context.Context, s *side) answer {
		var each []any
		for i, n := range of {
			each = append(each, s.place(ctx, ns, nodes[n], all[i]))
		}
		if lease != "" {
			each = append(each, classesOf(s.leases(ns).AddResource(ctx, lease, leases.Resource{Type: leases.Content, ID: name(0)})))
		}
		return answerOf(each, nil)
	}}
}

// place writes content with labels, or sets those of what is there.
func (s *side) place(ctx context.Context, ns string, p []byte, given map[string]string) []error {
	w, err := s.stores[ns].Writer(ctx, cellar.WithRef("place"), withDigest(digest.FromBytes(p)))
	if errdefs.IsAlreadyExists(err) {
		_, err := s.stores[ns].Update(ctx, cellar.Info{Digest: digest.FromBytes(p), Labels: given})
		return classesOf(err)
	}
	if err != nil {
		return classesOf(err)
	}
	if st, err := w.Status(); err != nil || st.Offset == 0 {
		if _, err := w.Write(p); err != nil {
			return classesOf(err)
		}
	}
	return classesOf(w.Commit(ctx, 0, "", cellar.WithLabels(given)))
}

// survey is all that a collection may have changed. Of the model's side it
// remarks what the collection came upon.
func (d *drawer) survey(ctx context.Context, s *side) answer {
	var all []any
	for _, ns := range d.tc.names() {
		records, err := s.walk(ctx, ns)
		if err != nil {
			return answerOf(nil, err)
		}
		statuses, err := s.stores[ns].ListStatuses(ctx)
		if err != nil {
			return answerOf(nil, err)
		}
		held, err := s.held(ctx, ns)
		if err != nil {
			return answerOf(nil, err)
		}
		all = append(all, ns, records, append([]cellar.Status(nil), statuses...), held)
	}
	blobs, err := s.pool.Blobs(ctx)
	a := answerOf(append(all, blobs), err)
	if s == &d.model {
		a.remarks = d.outcomes()
	}
	return a
}

// held is all leases of a namespace, each with its resources.
func (s *side) held(ctx context.Context, ns string) ([]any, error) {
	all, err := s.leases(ns).List(ctx)
	if err != nil {
		return nil, err
	}
	var shown []any
	for _, l := range all {
		held, err := s.leases(ns).ListResources(ctx, l.ID, leases.Page{})
		if err != nil {
			return nil, err
		}
		shown = append(shown, l, append([]leases.Resource(nil), held...))
	}
	return shown, nil
}
