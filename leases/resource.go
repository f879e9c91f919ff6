package leases

import (
	_ "crypto/sha256" // registers the algorithms that digests are checked with
	_ "crypto/sha512"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// The types of resources.
const (
	// Content holds committed content; the id is its digest. The content, and
	// what it refers to, is kept.
	Content = "content"

	// Ingests holds an ingestion; the id is its ref. It is kept for as long as
	// the lease, and so is the content that it stands for.
	Ingests = "ingests"

	// Images and Snapshots are taken, listed and given back for tools that
	// hold such things as well, and keep nothing here. The id is a name; the
	// type of a snapshot goes on with a slash and the name of its snapshotter.
	Images    = "images"
	Snapshots = "snapshots"
)

// maxResourceID is the length in bytes of the longest id of a resource: that
// of the longest ref.
const maxResourceID = 4096

// Resource is something that a lease holds. It need not exist.
type Resource struct {
	// Type is [Content], [Ingests], [Images], or [Snapshots] with a slash and
	// a name.
	Type string
	// ID names the resource among those of its type.
	ID string
}

// String returns the type and the id, one after the other.
func (r Resource) String() string { return r.Type + " " + r.ID }

// Validate returns NotImplemented for a type that is not known, and
// InvalidArgument for one that has too many parts or too few, for content
// whose id is no digest, and for an id that is empty or longer than 4096 bytes.
// The name of a snapshotter has that limit too, and no zero byte.
func (r Resource) Validate() error {
	kind, name, named := strings.Cut(r.Type, "/")
	switch kind {
	case Content, Ingests, Images:
		if named {
			return r.refuse("the type has more than one part")
		}
	case Snapshots:
		if name == "" || len(name) > maxResourceID || strings.ContainsAny(name, "/\x00") {
			return r.refuse(`the type is not "snapshots/" and a name`)
		}
	default:
		return fmt.Errorf("lease resource type %s: %w", shorten(r.Type), errdefs.ErrNotImplemented)
	}
	switch {
	case r.ID == "":
		return r.refuse("the id is empty")
	case len(r.ID) > maxResourceID:
		return r.refuse(fmt.Sprintf("the id has %d bytes, over the limit of %d", len(r.ID), maxResourceID))
	case kind == Content:
		if err := digest.Digest(r.ID).Validate(); err != nil {
			return r.refuse("the id is not a digest", err)
		}
	}
	return nil
}

// refuse says what is wrong with the resource, and why if there is a cause.
func (r Resource) refuse(what string, cause ...error) error {
	err := fmt.Errorf("lease resource %s %s: %s: %w", shorten(r.Type), shorten(r.ID), what, errdefs.ErrInvalidArgument)
	for _, c := range cause {
		err = fmt.Errorf("%w: %w", err, c)
	}
	return err
}

// shorten quotes the first bytes of a string that comes from outside.
func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", s[:limit])
}
