package layout

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cellarstore/cellar/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of the older, equal format that layouts hold as well.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs."
)

// maxDepth is how deep indexes may be nested.
const maxDepth = 16

// Node is one blob of a layout.
type Node struct {
	ocispec.Descriptor
	// Labels name what the blob refers to, as containerd labels it; a root has
	// the root label too. Nil where there are none.
	Labels map[string]string
}

// Plan is what a layout holds.
type Plan struct {
	// Roots are the descriptors of index.json.
	Roots []ocispec.Descriptor
	// Nodes are the blobs that are reachable and there, each once, and each
	// after all that it refers to.
	Nodes []Node
	// Missing are the blobs that are reachable and not there.
	Missing []ocispec.Descriptor
}

// Bytes is the sum of the nodes' sizes.
func (p *Plan) Bytes() int64 {
	var sum int64
	for _, node := range p.Nodes {
		sum += node.Size
	}
	return sum
}

// Plan follows the descriptors of l from index.json on. Blobs that are missing
// are listed, not an error. A manifest that is not what its digest says, and
// any blob that has another size than its descriptor, is DataLoss; a
// malformed document or descriptor is InvalidArgument.
func (l *Layout) Plan(ctx context.Context) (*Plan, error) {
	w := &planner{layout: l, plan: &Plan{Roots: l.Index.Manifests}, seen: map[digest.Digest]int64{}}
	for _, desc := range l.Index.Manifests {
		if err := w.visit(ctx, desc, 0); err != nil {
			return nil, err
		}
	}
	w.markRoots()
	return w.plan, nil
}

// planner walks a layout in depth-first order.
type planner struct {
	layout *Layout
	plan   *Plan
	seen   map[digest.Digest]int64 // the size that the first descriptor gave
}

// visit adds what desc refers to, and then desc itself.
func (w *planner) visit(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("blob %s lies over %d manifests deep: %w", desc.Digest, maxDepth, errdefs.ErrInvalidArgument)
	}
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	if size, ok := w.seen[desc.Digest]; ok {
		return sameSize(desc, size)
	}
	w.seen[desc.Digest] = desc.Size
	children, err := w.layout.children(desc)
	if errdefs.IsNotFound(err) {
		w.plan.Missing = append(w.plan.Missing, desc)
		return nil
	}
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.visit(ctx, child, depth+1); err != nil {
			return err
		}
	}
	w.plan.Nodes = append(w.plan.Nodes, Node{Descriptor: desc, Labels: childLabels(children)})
	return nil
}

// markRoots gives the root label to what index.json names.
func (w *planner) markRoots() {
	roots := map[digest.Digest]bool{}
	for _, desc := range w.plan.Roots {
		roots[desc.Digest] = true
	}
	for i := range w.plan.Nodes {
		node := &w.plan.Nodes[i]
		if !roots[node.Digest] {
			continue
		}
		if node.Labels == nil {
			node.Labels = map[string]string{}
		}
		node.Labels[labels.GCRoot] = "true"
	}
}

func sameSize(desc ocispec.Descriptor, size int64) error {
	if desc.Size == size {
		return nil
	}
	return fmt.Errorf("descriptors of %s disagree on its size, %d and %d: %w", desc.Digest, size, desc.Size, errdefs.ErrDataLoss)
}

// children returns what the blob of desc refers to, in its order. Blobs of
// types that are not known refer to nothing. It is NotFound if the blob is not
// there.
func (l *Layout) children(desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	switch desc.MediaType {
	case ocispec.MediaTypeImageIndex, dockerIndex:
		var index ocispec.Index
		err := l.parse(desc, &index)
		return index.Manifests, err
	case ocispec.MediaTypeImageManifest, dockerManifest:
		var manifest ocispec.Manifest
		err := l.parse(desc, &manifest)
		return append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...), err
	}
	f, err := l.open(desc)
	if err != nil {
		return nil, err
	}
	return nil, f.Close()
}

func (l *Layout) parse(desc ocispec.Descriptor, v any) error {
	content, err := l.document(desc)
	if err != nil {
		return err
	}
	return decode("manifest "+desc.Digest.String(), content, v)
}

// childLabels names children as containerd does: .config, .l.N for layers,
// .m.N for manifests and indexes, .N for the rest, each kind numbered from 0.
func childLabels(children []ocispec.Descriptor) map[string]string {
	if len(children) == 0 {
		return nil
	}
	refs, next := map[string]string{}, map[string]int{}
	for _, child := range children {
		key := childKey(child.MediaType)
		n := next[key]
		next[key]++
		if n > 0 || strings.HasSuffix(key, ".") {
			key += strconv.Itoa(n)
		}
		refs[key] = child.Digest.String()
	}
	return refs
}

func childKey(mediaType string) string {
	switch {
	case mediaType == ocispec.MediaTypeImageManifest, mediaType == ocispec.MediaTypeImageIndex,
		mediaType == dockerManifest, mediaType == dockerIndex:
		return labels.GCRefContent + ".m."
	case mediaType == ocispec.MediaTypeImageConfig, mediaType == dockerConfig:
		return labels.GCRefContent + ".config"
	case strings.HasPrefix(mediaType, ocispec.MediaTypeImageLayer), strings.HasPrefix(mediaType, dockerLayer):
		return labels.GCRefContent + ".l."
	}
	return labels.GCRefContent + "."
}
