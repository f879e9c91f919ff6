package namespaces

import (
	"context"
	"strings"
)

// Store keeps the namespaces of a content store.
//
// A namespace comes about by Create, by SetLabel, or with the first content,
// ingestion or lease that is written in it. Its name obeys [Validate]: every
// method answers InvalidArgument for one that does not. Its labels obey the
// limits of package labels, and a label with an empty value is not kept.
//
// All methods may be called concurrently, and return the context's error,
// having changed nothing, when the context is done before the work begins.
// When a method that changes something returns nil, the change is durable.
type Store interface {
	// Create makes a namespace with labels, which may be nil and stay the
	// caller's. One that is there already, however it came about, is
	// AlreadyExists and keeps its labels.
	Create(ctx context.Context, name string, labels map[string]string) error

	// Labels returns the labels of a namespace, nil if it has none. The map is
	// the caller's. A namespace that is not there is NotFound.
	Labels(ctx context.Context, name string) (map[string]string, error)

	// SetLabel sets one label of a namespace, or removes it where value is
	// empty. A namespace that is not there is created with that label, even
	// where the value is empty. Removing a label that is not there is no error.
	// A label over the limits is InvalidArgument and changes nothing, nor does
	// it create the namespace.
	SetLabel(ctx context.Context, name, key, value string) error

	// List returns the names of the namespaces that one of the filters
	// matches, in the order of the names; without filters, or with an empty
	// one, all. The fields are those of [Info.Field]. A filter that does not
	// parse is InvalidArgument. A namespace that comes or goes meanwhile may
	// be in the list or not.
	List(ctx context.Context, filters ...string) ([]string, error)

	// Delete removes a namespace with its labels, leases and ingestions, at
	// once or not at all. A namespace that is not there is NotFound. One that
	// holds content is FailedPrecondition, and stays as it is, unless
	// [WithContent] asks for its content to go as well.
	//
	// A writer that is open on one of the ingestions fails from then on with
	// Aborted and does not bring the namespace back. Content goes as with
	// Delete of a content store: what other namespaces hold they keep, and the
	// bytes that none of them holds go with the next collection.
	Delete(ctx context.Context, name string, opts ...DeleteOpt) error
}

// DeleteOptions says how a namespace is deleted.
type DeleteOptions struct {
	// Content is whether the namespace goes although it holds content.
	Content bool
}

// DeleteOpt changes how a namespace is deleted.
type DeleteOpt func(*DeleteOptions)

// WithContent deletes the namespace with the content that it holds.
func WithContent() DeleteOpt {
	return func(opts *DeleteOptions) { opts.Content = true }
}

// NewDeleteOptions returns what opts ask for, in their order.
func NewDeleteOptions(opts ...DeleteOpt) DeleteOptions {
	var o DeleteOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Info describes a namespace.
type Info struct {
	Name string
	// Labels is nil where there are none.
	Labels map[string]string
}

// Field returns the value of a field for filters, and whether it is there:
// "name", and "labels" followed by the key, whose parts are joined by dots.
func (info Info) Field(path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "name":
		return info.Name, info.Name != ""
	case "labels":
		return label(info.Labels, path[1:])
	}
	return "", false
}

// label looks up the label whose key the parts make.
func label(labels map[string]string, parts []string) (string, bool) {
	var key string
	switch len(parts) {
	case 0:
		return "", false
	case 1:
		key = parts[0]
	default:
		key = strings.Join(parts, ".")
	}
	value, ok := labels[key]
	return value, ok
}
