package layout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cellarstore/cellar"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Result counts what Import did.
type Result struct {
	// New and NewBytes are what was written; Present is how many blobs the
	// namespace had already.
	New      int
	NewBytes int64
	Present  int
}

// Import writes the plan's nodes into store, children before parents, and sets
// their labels. Labels that a node has already stay, unless they are among
// those.
//
// A plan with missing blobs is NotFound, naming them, and nothing is written.
// An import that ends early leaves what it wrote; a second one goes on. Bytes
// that do not match their descriptor are FailedPrecondition and are not
// stored. A namespace that has everything is no error.
func (l *Layout) Import(ctx context.Context, store cellar.Store, plan *Plan) (Result, error) {
	var result Result
	if len(plan.Missing) > 0 {
		return result, missingError(plan.Missing)
	}
	for _, node := range plan.Nodes {
		there, err := cellar.Exists(ctx, store, node.Descriptor)
		if err != nil {
			return result, err
		}
		if there {
			result.Present++
			if err := addLabels(ctx, store, node); err != nil {
				return result, err
			}
			continue
		}
		if err := l.write(ctx, store, node); err != nil {
			return result, err
		}
		result.New++
		result.NewBytes += node.Size
	}
	return result, nil
}

// write copies one blob of l into store.
func (l *Layout) write(ctx context.Context, store cellar.Store, node Node) error {
	f, err := l.open(node.Descriptor)
	if err != nil {
		return err
	}
	ref := "layout-" + node.Digest.String()
	err = cellar.WriteBlob(ctx, store, ref, f, node.Descriptor, cellar.WithLabels(node.Labels))
	if errdefs.IsFailedPrecondition(err) {
		// What was written is wrong for good: a resumed write could not mend it.
		if abortErr := store.Abort(ctx, ref); !errdefs.IsNotFound(abortErr) {
			err = errors.Join(err, abortErr)
		}
	}
	return errors.Join(err, f.Close())
}

// addLabels sets the node's labels on content that is there.
func addLabels(ctx context.Context, store cellar.Store, node Node) error {
	if len(node.Labels) == 0 {
		return nil
	}
	var paths []string
	for key := range node.Labels {
		paths = append(paths, "labels."+key)
	}
	_, err := store.Update(ctx, cellar.Info{Digest: node.Digest, Labels: node.Labels}, paths...)
	return err
}

func missingError(missing []ocispec.Descriptor) error {
	var names []string
	for _, desc := range missing {
		names = append(names, desc.Digest.String())
	}
	return fmt.Errorf("the layout lacks %d blobs (%s): %w", len(missing), strings.Join(names, ", "), errdefs.ErrNotFound)
}
