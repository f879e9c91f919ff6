package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/cmd/cellar/internal/demo"
	"github.com/cellarstore/cellar/cmd/cellar/internal/layout"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/metadata"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The label by which the image's index refers to its second manifest, the one
// with the tests. A tenant that removes it lets go of that part of the image.
const secondManifest = labels.GCRefContent + ".m.1"

// guide is one tour: the store, what was brought into it, and the report.
type guide struct {
	*narrator
	root string
	keep bool // the store stays when the tour is over

	s           *session
	blue, green cellar.Store
	layout      *layout.Layout
	image       *layout.Plan
	index       ocispec.Descriptor // the image's root

	freed amount // by the collection
	left  pool   // after it
}

func newTour(out io.Writer, root string, keep bool) *guide {
	return &guide{narrator: newNarrator(out), root: root, keep: keep}
}

func (g *guide) run(ctx context.Context) error {
	g.head("A tour of cellar: one pool of bytes, two tenants, one image that both bring.", "The store is in "+g.root)
	steps := []struct {
		title string
		do    func(context.Context) error
	}{
		{"Open a new store", g.open},
		{"Tenant blue brings an image", g.bringBlue},
		{"Tenant green tries to get it by digest alone", g.tryByDigest},
		{"Tenant green brings the same image", g.bringGreen},
		{"Ask: queries with expressions", g.query},
		{"Tenant blue deletes its image", g.deleteBlue},
		{"Tenant green keeps only a part of its image", g.trimGreen},
		{"Collect: give back what nobody holds", g.collect},
		{"Close the store and open it again", g.reopen},
		{"Verify all that is left, byte for byte", g.verify},
	}
	for _, step := range steps {
		if err := g.step(ctx, step.title, step.do); err != nil {
			return g.abandon(step.title, err)
		}
	}
	if g.keep {
		g.note("Look around: cellar --root %s -n green ls", g.root)
	}
	return g.end(g.summary())
}

// summary prints the last line.
func (g *guide) summary() error {
	return g.close("%d blobs of two tenants were %d files; %d files (%s) were given back, %d (%s) stay, intact.",
		2*len(g.image.Nodes), len(g.image.Nodes), g.freed.blobs, humanSize(g.freed.bytes), len(g.left.files), humanSize(g.left.bytes))
}

// end closes the store.
func (g *guide) end(err error) error {
	if g.s == nil {
		return err
	}
	if closeErr := g.s.close(); err == nil {
		err = closeErr
	}
	return err
}

// abandon ends a tour that can't go on.
func (g *guide) abandon(title string, err error) error {
	return g.end(fmt.Errorf("tour, at %q: %w", title, err))
}

func (g *guide) open(context.Context) error {
	g.fact("one file for what is known (%s), one folder for the bytes (blobs/)", databaseName)
	return g.openStore()
}

// openStore opens the store in g.root with the two tenants' views. What nothing
// refers to has no grace, so that the tour need not wait for its end.
func (g *guide) openStore() error {
	s, err := openSession(g.root, "blue", metadata.Options{Grace: -1})
	if err != nil {
		return err
	}
	g.s, g.blue = s, s.store
	g.green, err = s.Namespace("green")
	return err
}

func (g *guide) bringBlue(ctx context.Context) error {
	var err error
	if g.layout, err = layout.Open(demo.Layout()); err != nil {
		return err
	}
	if g.image, err = g.layout.Plan(ctx); err != nil {
		return err
	}
	if len(g.image.Roots) != 1 {
		return fmt.Errorf("the layout names %d images, not one: %w", len(g.image.Roots), errdefs.ErrInternal)
	}
	g.index = g.image.Roots[0]
	g.fact("an OCI image layout: %s", kinds(g.image.Nodes))
	result, err := g.layout.Import(ctx, g.blue, g.image)
	if err != nil {
		return err
	}
	g.check(result.New == len(g.image.Nodes), "%d blobs written, %s, each checked against its digest", result.New, humanSize(result.NewBytes))
	labelled, err := references(ctx, g.blue)
	if err != nil {
		return err
	}
	g.check(labelled["root"] == 1 && labelled["m"] == 2 && labelled["config"] == 2 && labelled["l"] == 5,
		"each labelled with what it refers to, as containerd does it:")
	g.fact("%d gc.root, %d manifests (.m.N), %d configs (.config), %d layers (.l.N)",
		labelled["root"], labelled["m"], labelled["config"], labelled["l"])
	return nil
}

// tryByDigest shows that a digest alone opens nothing in an isolated tenant.
func (g *guide) tryByDigest(ctx context.Context) error {
	layer := g.largest()
	g.fact("blue holds a layer, %s, %s", shortDigest(layer.Digest.String()), humanSize(layer.Size))
	_, err := g.green.Info(ctx, layer.Digest)
	g.check(errdefs.IsNotFound(err), "green asks for it: not found")
	_, err = g.green.ReaderAt(ctx, layer)
	g.check(errdefs.IsNotFound(err), "green opens it: not found")

	const ref = "claim"
	w, err := g.green.Writer(ctx, cellar.WithRef(ref), cellar.WithDescriptor(layer))
	if err != nil {
		return err
	}
	err = w.Commit(ctx, layer.Size, layer.Digest)
	g.check(errdefs.IsFailedPrecondition(err), "green claims to have it, and sends nothing: refused")
	return g.green.Abort(ctx, ref)
}

func (g *guide) bringGreen(ctx context.Context) error {
	before, err := g.disk()
	if err != nil {
		return err
	}
	result, err := g.layout.Import(ctx, g.green, g.image)
	if err != nil {
		return err
	}
	after, err := g.disk()
	if err != nil {
		return err
	}
	blue, err := usage(ctx, g.blue)
	if err != nil {
		return err
	}
	green, err := usage(ctx, g.green)
	if err != nil {
		return err
	}
	g.check(result.New == len(g.image.Nodes), "green had to send all %d blobs, %s", result.New, humanSize(result.NewBytes))
	g.check(after.equal(before), "the disk holds what it held before: every byte is stored once")
	g.fact("%-12s  %9s  %11s", "", "blobs", "bytes")
	for _, row := range []struct {
		who string
		use amount
	}{{"blue sees", blue}, {"green sees", green}, {"on the disk", after.amount()}} {
		g.fact("%-12s  %9d  %11d", row.who, row.use.blobs, row.use.bytes)
	}
	g.check(blue == green && blue == after.amount(), "each sees a whole image, the disk has one")
	return nil
}

// query asks the same questions of the store and of the layout's own files.
func (g *guide) query(ctx context.Context) error {
	const large = 10 << 10
	questions := []struct {
		filter string
		fits   func(layout.Node) bool
	}{
		{`size>=10KiB`, func(n layout.Node) bool { return n.Size >= large }},
		{`labels.containerd.io/gc.root`, func(n layout.Node) bool { return n.Digest == g.index.Digest }},
		{`size<10KiB,labels.containerd.io/gc.ref.content.config~=^sha256:`, func(n layout.Node) bool {
			return n.MediaType == ocispec.MediaTypeImageManifest
		}},
	}
	for _, q := range questions {
		var want []digest.Digest
		for _, node := range g.image.Nodes {
			if q.fits(node) {
				want = append(want, node.Digest)
			}
		}
		slices.Sort(want)
		got, err := digestsIn(ctx, g.green, q.filter)
		if err != nil {
			return err
		}
		g.check(len(want) > 0 && slices.Equal(got, want), "%d of %d: %s", len(got), len(g.image.Nodes), q.filter)
	}
	return nil
}

// deleteBlue deletes the one record on which blue's image hangs.
func (g *guide) deleteBlue(ctx context.Context) error {
	before, err := g.disk()
	if err != nil {
		return err
	}
	if err := g.blue.Delete(ctx, g.index.Digest); err != nil {
		return err
	}
	_, blueErr := g.blue.Info(ctx, g.index.Digest)
	green, err := digestsIn(ctx, g.green)
	if err != nil {
		return err
	}
	after, err := g.disk()
	if err != nil {
		return err
	}
	g.check(errdefs.IsNotFound(blueErr), "gone for blue: the index, to which all the rest belongs")
	g.check(slices.Equal(green, g.reachable("")), "green does not notice: all its %d blobs are there", len(green))
	g.check(after.equal(before), "nothing is freed yet: deleting unlinks, collecting frees")
	return nil
}

// trimGreen lets green go of the manifest with the tests, by a label alone.
func (g *guide) trimGreen(ctx context.Context) error {
	info, err := g.green.Update(ctx, cellar.Info{Digest: g.index.Digest}, "labels."+secondManifest)
	if err != nil {
		return err
	}
	_, there := info.Labels[secondManifest]
	g.check(!there, "its index refers to one manifest, no more to the one with the tests (.m.1)")
	return nil
}

// collect runs a collection and compares what it left with what the labels say.
func (g *guide) collect(ctx context.Context) error {
	before, err := g.disk()
	if err != nil {
		return err
	}
	stats, err := g.s.GarbageCollect(ctx)
	if err != nil {
		return err
	}
	if g.left, err = g.disk(); err != nil {
		return err
	}
	blue, err := digestsIn(ctx, g.blue)
	if err != nil {
		return err
	}
	green, err := digestsIn(ctx, g.green)
	if err != nil {
		return err
	}
	g.freed = before.minus(g.left)
	want, total := g.reachable(secondManifest), len(g.image.Nodes)
	g.check(len(blue) == 0, "blue: the other %d records went too, nothing referred to them", total-1)
	g.check(slices.Equal(green, want), "green: %d records went, %d stay, the ones that its index refers to", total-len(green), len(green))
	g.check(g.freed == amount{stats.Blobs, stats.Bytes} && g.freed.blobs == total-len(want), "reclaimed: %d files, %s, that nobody holds any more", g.freed.blobs, humanSize(g.freed.bytes))
	g.check(len(g.left.files) == len(want), "stayed: %d files, %s, because green holds them, though blue let go", len(g.left.files), humanSize(g.left.bytes))
	again, err := g.s.GarbageCollect(ctx)
	g.check(err == nil && again.Blobs == 0 && again.Records == 0, "a second collection finds nothing to do")
	return err
}

func (g *guide) reopen(ctx context.Context) error {
	want, err := digestsIn(ctx, g.green)
	if err != nil {
		return err
	}
	s := g.s
	g.s = nil
	if err := s.close(); err != nil {
		return err
	}
	if err := g.openStore(); err != nil {
		return err
	}
	got, err := digestsIn(ctx, g.green)
	if err != nil {
		return err
	}
	info, err := g.green.Info(ctx, g.index.Digest)
	if err != nil {
		return err
	}
	g.check(slices.Equal(got, want) && len(info.Labels) > 0, "all %d blobs of green are there, labels and all", len(got))
	return nil
}

// verify hashes what green reads, and every file of the pool.
func (g *guide) verify(ctx context.Context) error {
	kept := g.reachable(secondManifest)
	var bytes int64
	for _, node := range g.image.Nodes {
		if !slices.Contains(kept, node.Digest) {
			continue
		}
		ra, err := g.green.ReaderAt(ctx, node.Descriptor)
		if err != nil {
			return err
		}
		err = copyVerified(ctx, io.Discard, ra, node.Digest)
		if closeErr := ra.Close(); err == nil {
			err = closeErr
		}
		g.check(err == nil, "%s  %9s  %s", shortDigest(node.Digest.String()), humanSize(node.Size), kind(node.MediaType))
		bytes += node.Size
	}
	damaged, err := g.damaged(g.left)
	if err != nil {
		return err
	}
	g.check(len(g.left.files) == len(kept) && g.left.bytes == bytes && damaged == 0,
		"the pool's %d files are these, and each has the digest that it is named by", len(g.left.files))
	return nil
}

// reachable returns what the image's index refers to, itself included, without
// following the reference called except. The digests are sorted.
func (g *guide) reachable(except string) []digest.Digest {
	nodes := map[digest.Digest]layout.Node{}
	for _, node := range g.image.Nodes {
		nodes[node.Digest] = node
	}
	seen := map[digest.Digest]bool{}
	var follow func(digest.Digest)
	follow = func(dgst digest.Digest) {
		if seen[dgst] {
			return
		}
		seen[dgst] = true
		for key, target := range nodes[dgst].Labels {
			if strings.HasPrefix(key, labels.GCRefContent) && (key != except || dgst != g.index.Digest) {
				follow(digest.Digest(target))
			}
		}
	}
	follow(g.index.Digest)
	return slices.Sorted(maps.Keys(seen))
}

// largest is the largest blob of the image.
func (g *guide) largest() ocispec.Descriptor {
	return slices.MaxFunc(g.image.Nodes, func(a, b layout.Node) int { return int(a.Size - b.Size) }).Descriptor
}
