package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

var endPromises = []leasePromise{
	{"the lease is gone, and Delete tells what it held", func(e *leaseEnv) {
		e.make("x")
		e.add("x", everyResource...)
		e.make("other")
		got, err := e.Manager.Delete(e.ctx, "x")
		require.NoError(e, err)
		require.Equal(e, leases.Released{Content: 3, Ingests: 2, Other: 3}, got)
		e.requireGone("x")
		require.Equal(e, []string{"other"}, e.ids())
		e.make("x")
		e.requireHolds("x")
	}},
	{"a lease that is not there is NotFound, with IfExists nothing is released and no error", func(e *leaseEnv) {
		e.make("x")
		_, err := e.Manager.Delete(e.ctx, "x", leases.IfExists())
		require.NoError(e, err)
		e.make("over", leases.WithTTL(0))
		e.add(e.make("kept").ID, ingestResource("r"))
		for _, id := range []string{"x", "never", "over"} {
			_, err := e.Manager.Delete(e.ctx, id)
			requireClass(e, err, errdefs.ErrNotFound)
			for _, opts := range [][]leases.DeleteOpt{{leases.IfExists()}, {leases.IfExists(), leases.Synchronous()}} {
				got, err := e.Manager.Delete(e.ctx, id, opts...)
				require.NoError(e, err)
				require.Zero(e, got)
			}
		}
		e.requireHolds("kept", ingestResource("r"))
	}},
	{"content goes with the next collection if nothing else keeps it", func(e *leaseEnv) {
		e.make("x")
		e.make("y")
		store := e.as("a").store
		dead := putIn(e, e.under("x"), store, []byte("x alone"))
		both := putIn(e, e.under("x"), store, []byte("both"))
		rooted := putIn(e, e.under("x"), store, []byte("root"), cellar.WithLabels(map[string]string{labels.GCRoot: "1"}))
		e.add("y", contentResource(both))
		_, err := e.Manager.Delete(e.ctx, "x")
		require.NoError(e, err)
		e.as("a").requireContent(dead, []byte("x alone"))
		require.Equal(e, Removed{Records: 1}, e.collectNow())
		e.as("a").requireAbsent(dead)
		e.requireBlobs(both, rooted)
	}},
	{"a synchronous one has collected when it returns", func(e *leaseEnv) {
		e.make("x")
		dgst := putIn(e, e.under("x"), e.as("a").store, []byte("x alone"))
		e.add("x", ingestResource("r"))
		got, err := e.Manager.Delete(e.ctx, "x", leases.Synchronous())
		require.NoError(e, err)
		require.Equal(e, leases.Released{Content: 1, Ingests: 1}, got)
		e.as("a").requireAbsent(dgst)
		e.requireBlobs()
	}},
}

// everyResource is one of each kind and more, in the order of lists.
var everyResource = []leases.Resource{
	contentResource(digest.FromString("a")),
	contentResource(digest.SHA384.FromString("a")),
	contentResource(digest.SHA512.FromString("a")),
	{Type: leases.Images, ID: "docker.io/library/a:b"},
	{Type: leases.Ingests, ID: "a/../b"},
	{Type: leases.Ingests, ID: "ref"},
	{Type: leases.Snapshots + "/a", ID: "z"},
	{Type: leases.Snapshots + "/a-b", ID: "a"},
}

// refused are resources that Validate refuses.
var refused = []leases.Resource{
	{}, {Type: leases.Content}, {Type: leases.Content, ID: "no digest"}, {Type: leases.Ingests}, {Type: "content/x", ID: "x"},
	{Type: leases.Snapshots, ID: "x"}, {Type: "snapshots/a/b", ID: "x"}, {Type: leases.Ingests, ID: hexOf('a', 4097)},
	{Type: "containers", ID: "x"}, {Type: "Content", ID: digest.FromString("x").String()},
}

// requireRefused tries what Validate refuses, and then on a lease that is not
// there.
func (e *leaseEnv) requireRefused(method func(context.Context, string, leases.Resource) error) {
	e.make("x")
	e.add("x", everyResource[0])
	for _, r := range refused {
		err, want := method(e.ctx, "x", r), r.Validate()
		require.Error(e, err)
		require.Equal(e, errdefs.IsInvalidArgument(want), errdefs.IsInvalidArgument(err), "%v: %v", r, err)
		require.Equal(e, errdefs.IsNotImplemented(want), errdefs.IsNotImplemented(err), "%v: %v", r, err)
		requireClass(e, method(e.ctx, "absent", r), errdefs.ErrNotFound)
	}
	e.requireHolds("x", everyResource[0])
}

var addPromises = []leasePromise{
	{"a lease holds each resource once, whether there is such a thing or not", func(e *leaseEnv) {
		e.make("x")
		for range 2 {
			e.add("x", everyResource...)
			e.requireHolds("x", everyResource...)
		}
	}},
	{"content and all that it refers to is kept, as if it had been written under the lease", func(e *leaseEnv) {
		e.make("x")
		a := e.as("a")
		child := a.put([]byte("child"))
		parent := a.put([]byte("parent"), cellar.WithLabels(map[string]string{labels.GCRefContent: child.String()}))
		belongs := a.put([]byte("belongs"), cellar.WithLabels(map[string]string{labels.GCBackRefContent: child.String()}))
		garbage := a.put([]byte("garbage"))
		e.add("x", contentResource(parent))
		require.Equal(e, Removed{Records: 1}, e.collectNow())
		a.requireAbsent(garbage)
		e.requireBlobs(child, parent, belongs)
	}},
	{"a flat lease keeps content without what it refers to", func(e *leaseEnv) {
		e.make("x", leases.WithLabels(map[string]string{labels.GCFlat: "1"}))
		a := e.as("a")
		child := a.put([]byte("child"))
		parent := a.put([]byte("parent"), cellar.WithLabels(map[string]string{labels.GCRefContent: child.String()}))
		a.put([]byte("belongs"), cellar.WithLabels(map[string]string{labels.GCBackRefContent: parent.String()}))
		e.add("x", contentResource(parent))
		require.Equal(e, Removed{Records: 2}, e.collectNow())
		e.requireBlobs(parent)
	}},
	{"content that comes later, or again, is held too", func(e *leaseEnv) {
		e.make("x")
		dgst := digest.FromString("later")
		e.add("x", contentResource(dgst))
		for range 2 {
			e.as("a").put([]byte("later"))
			require.Zero(e, e.collectNow())
			e.as("a").requireContent(dgst, []byte("later"))
			require.NoError(e, e.as("a").store.Delete(e.ctx, dgst), "a lease is no obstacle")
			e.collectNow()
			e.requireBlobs()
		}
		e.requireHolds("x", contentResource(dgst))
	}},
	{"an ingestion is kept for as long as the lease", func(e *leaseEnv) {
		e.make("x")
		e.as("a").leave("held", []byte("held"))
		e.as("a").leave("left", []byte("left"))
		e.add("x", ingestResource("held"))
		e.step(25 * time.Hour)
		require.Equal(e, Removed{Ingests: 1}, e.collectNow())
		e.as("a").requireLeft("held", []byte("held"))
		_, err := e.Manager.Delete(e.ctx, "x")
		require.NoError(e, err)
		e.step(25 * time.Hour)
		e.collectNow()
		require.Empty(e, e.as("a").statuses())
	}},
	{"a lease that is not there is NotFound, and what Validate refuses is refused so", func(e *leaseEnv) {
		e.requireRefused(e.AddResource)
	}},
}

var giveBackPromises = []leasePromise{
	{"the lease holds it no longer", func(e *leaseEnv) {
		e.make("x")
		e.make("y")
		e.add("x", everyResource...)
		e.add("y", everyResource...)
		for i, r := range everyResource {
			require.NoError(e, e.DeleteResource(e.ctx, "x", r))
			e.requireHolds("x", everyResource[i+1:]...)
		}
		e.requireHolds("y", everyResource...)
		dgst := putIn(e, e.under("x"), e.as("a").store, []byte("given back"))
		require.NoError(e, e.DeleteResource(e.ctx, "x", contentResource(dgst)))
		require.Equal(e, Removed{Records: 1}, e.collectNow())
	}},
	{"what it does not hold is no error", func(e *leaseEnv) {
		e.make("x")
		e.add("x", everyResource[1])
		for _, r := range everyResource {
			require.NoError(e, e.DeleteResource(e.ctx, "x", r))
			require.NoError(e, e.DeleteResource(e.ctx, "x", r))
		}
		e.requireHolds("x")
	}},
	{"a lease that is not there is NotFound, and what Validate refuses is refused so", func(e *leaseEnv) {
		e.requireRefused(e.DeleteResource)
	}},
}

var heldPromises = []leasePromise{
	{"resources are ordered by type and then by id", func(e *leaseEnv) {
		e.make("x")
		e.requireHolds("x")
		backwards := slices.Clone(everyResource)
		slices.Reverse(backwards)
		e.add("x", backwards...)
		e.requireHolds("x", everyResource...)
	}},
	{"pages of every size show each once, and a page that is not full is the last", func(e *leaseEnv) {
		e.make("x")
		e.add("x", everyResource...)
		for limit := range len(everyResource) + 2 {
			require.Equal(e, everyResource, e.pages("x", limit, func(leases.Resource) {}), limit)
		}
	}},
	{"what is given back between pages, the last of one included, disturbs nothing", func(e *leaseEnv) {
		e.make("x")
		e.add("x", everyResource...)
		seen := e.pages("x", 1, func(last leases.Resource) {
			require.NoError(e, e.DeleteResource(e.ctx, "x", last))
			e.add("x", everyResource[0])
		})
		require.Equal(e, everyResource, seen)
	}},
	{"a lease that is not there is NotFound, a negative limit InvalidArgument", func(e *leaseEnv) {
		e.make("x")
		_, err := e.ListResources(e.ctx, "x", leases.Page{Limit: -1})
		requireClass(e, err, errdefs.ErrInvalidArgument)
		_, err = e.ListResources(e.ctx, "y", leases.Page{Limit: 1})
		requireClass(e, err, errdefs.ErrNotFound)
	}},
}

// pages lists what a lease holds page by page.
func (e *leaseEnv) pages(id string, limit int, between func(last leases.Resource)) (all []leases.Resource) {
	e.Helper()
	page := leases.Page{Limit: limit}
	for {
		got, err := e.ListResources(e.ctx, id, page)
		require.NoError(e, err)
		all = append(all, got...)
		if limit == 0 || len(got) < limit {
			return all
		}
		require.Len(e, got, limit)
		page.After = got[limit-1]
		between(page.After)
	}
}

var leasedWritePromises = []leasePromise{
	{"an ingestion, and then the content it becomes, is held", func(e *leaseEnv) {
		for i, n := range sizes {
			p, ref, id := blob("leased", n), fmt.Sprint("ref ", i), fmt.Sprint("lease ", i)
			e.make(id)
			w, err := e.as("a").store.Writer(e.under(id), cellar.WithRef(ref))
			require.NoError(e, err)
			e.requireHolds(id, ingestResource(ref))
			_, err = w.Write(p)
			require.NoError(e, err)
			require.NoError(e, w.Commit(e.ctx, int64(n), ""), "the writer's lease needs no telling twice")
			e.requireHolds(id, contentResource(digest.FromBytes(p)))
			require.Zero(e, e.collectNow())
			e.as("a").requireContent(digest.FromBytes(p), p)
		}
	}},
	{"content that is there already is held when that is told, by Writer or by Commit", func(e *leaseEnv) {
		e.make("x")
		e.make("y")
		dgst := e.as("a").put([]byte("there"))
		store := e.as("a").store
		_, err := store.Writer(e.under("x"), cellar.WithRef("r"), withDigest(dgst))
		requireClass(e, err, errdefs.ErrAlreadyExists)
		w, err := store.Writer(e.under("y"), cellar.WithRef("r"))
		require.NoError(e, err)
		_, err = w.Write([]byte("there"))
		require.NoError(e, err)
		requireClass(e, w.Commit(e.ctx, 0, ""), errdefs.ErrAlreadyExists)
		e.requireHolds("x", contentResource(dgst))
		e.requireHolds("y", contentResource(dgst))
		require.Zero(e, e.collectNow())
	}},
	{"Commit under another lease is held by that one", func(e *leaseEnv) {
		e.make("x")
		e.make("y")
		w, err := e.as("a").store.Writer(e.under("x"), cellar.WithRef("r"))
		require.NoError(e, err)
		require.NoError(e, w.Commit(e.under("y"), 0, ""))
		e.requireHolds("x")
		e.requireHolds("y", contentResource(digest.FromString("")))
	}},
	{"without such a lease Writer is NotFound and nothing is there", func(e *leaseEnv) {
		e.make("over", leases.WithTTL(0))
		dgst := e.as("a").put([]byte("there"))
		for _, id := range []string{"", "never", "over", hexOf('a', leases.MaxIDLength+1)} {
			for _, opts := range [][]cellar.WriterOpt{{cellar.WithRef("r")}, {cellar.WithRef("r"), withDigest(dgst)}} {
				_, err := e.as("a").store.Writer(e.under(id), opts...)
				requireClassNamed(e, id, err, errdefs.ErrNotFound)
			}
		}
		e.as("a").requireNoIngestion("r")
	}},
	{"a lease that is gone fails Commit with NotFound, and nothing is lost", func(e *leaseEnv) {
		for i, n := range sizes {
			p, ref := blob("kept", n), fmt.Sprint("ref ", i)
			e.make("x", leases.WithTTL(time.Minute))
			w, err := e.as("a").store.Writer(e.under("x"), cellar.WithRef(ref))
			require.NoError(e, err)
			_, err = w.Write(p)
			require.NoError(e, err)
			e.step(2 * time.Minute)
			requireClass(e, w.Commit(e.ctx, 0, ""), errdefs.ErrNotFound)
			e.as("a").requireAbsent(digest.FromBytes(p))
			e.collectNow()
			e.as("a").requireLeft(ref, p)
			require.NoError(e, e.as("a").open(ref).Commit(e.ctx, 0, ""))
			e.as("a").requireContent(digest.FromBytes(p), p)
		}
	}},
	{"Abort and Delete under a lease give back what it held, and that alone", func(e *leaseEnv) {
		e.make("x")
		e.make("y")
		store := e.as("a").store
		dgst := putIn(e, e.under("x"), store, []byte("deleted"))
		e.add("y", contentResource(dgst), ingestResource("r"))
		e.add("x", ingestResource("r"), ingestResource("other"))
		e.as("a").leave("r", []byte("aborted"))
		require.NoError(e, store.Abort(e.under("x"), "r"))
		require.NoError(e, store.Delete(e.under("x"), dgst))
		e.requireHolds("x", ingestResource("other"))
		e.requireHolds("y", contentResource(dgst), ingestResource("r"))
	}},
}
