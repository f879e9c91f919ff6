package leases

import (
	"context"
	"maps"
	"time"
)

// Manager keeps the leases of one namespace.
//
// A lease that has expired is gone from that moment on: to every method it is
// NotFound, and its id can be used again. The one exception is a lease that was
// created with a label "containerd.io/gc.expire" whose time was over already: as
// in containerd, it is there until the next collection.
//
// All methods may be called concurrently, and return the context's error,
// having changed nothing, when the context is done before the work begins. An
// id that [ValidateID] refuses is InvalidArgument. When a method that changes
// something returns nil, the change is durable.
type Manager interface {
	// Create makes a lease and returns it. Without [WithID] it has an id of
	// [NewID]; without [WithExpiry], [WithTTL] or a label that sets one it
	// never expires. An id that is in use is AlreadyExists; labels over the
	// limits of package labels are InvalidArgument. An expiry that lies in the
	// past is no error: the lease is gone at once, or, if a label gave it, with
	// the next collection, from which it keeps nothing. The error of an option is
	// returned as it is, before anything is changed.
	Create(ctx context.Context, opts ...Opt) (Lease, error)

	// Get describes a lease. One that is not there is NotFound. The result is
	// the caller's, labels included.
	Get(ctx context.Context, id string) (Lease, error)

	// List describes the leases that one of the filters matches, ordered by
	// id; without filters, or with an empty one, all. The fields are those of
	// [Lease.Field]. A filter that does not parse is InvalidArgument. Leases
	// that come or go meanwhile may be in the list or not.
	List(ctx context.Context, filters ...string) ([]Lease, error)

	// Renew makes expiresAt the time at which the lease ends, sooner or later
	// than before, and returns the lease; a zero time makes it end never. A
	// time in the past ends it at once. One that is not there is NotFound: a
	// lease that has expired cannot be brought back, since what it held may
	// be gone.
	Renew(ctx context.Context, id string, expiresAt time.Time) (Lease, error)

	// Delete ends a lease and tells what it held. One that is not there is
	// NotFound, or with [IfExists] no error and nothing released. The content
	// is removed by the next collection if nothing else keeps it; with
	// [Synchronous] that collection has run when Delete returns. If it fails
	// its error is returned, and the lease is gone all the same.
	Delete(ctx context.Context, id string, opts ...DeleteOpt) (Released, error)

	// AddResource makes the lease hold r, in the same way as a write with the
	// lease in its context does. Adding what it holds already changes nothing.
	// A lease that is not there is NotFound; of one that is, a resource that
	// [Resource.Validate] refuses is answered as it says. The resource itself
	// need not exist.
	AddResource(ctx context.Context, id string, r Resource) error

	// DeleteResource makes the lease hold r no longer. What it does not hold
	// is no error. A lease that is not there is NotFound; of one that is, a
	// resource that [Resource.Validate] refuses is answered as it says.
	DeleteResource(ctx context.Context, id string, r Resource) error

	// ListResources returns what the lease holds, ordered by type and then by
	// id as strings, one page of it at a time. A page that is not full is the
	// last. A lease that is not there is NotFound; a negative limit is
	// InvalidArgument. What is added or given back between two pages may be
	// seen or not; all else is seen exactly once.
	ListResources(ctx context.Context, id string, page Page) ([]Resource, error)
}

// Page says which part of a list is wanted.
type Page struct {
	// After is the last resource of the page before, zero for the first page.
	// It need not be in the list any more.
	After Resource
	// Limit is the most resources that are wanted, zero for all.
	Limit int
}

// Released tells what a lease held when it was deleted.
type Released struct {
	// Content, Ingests and Other are numbers of resources, by their type.
	Content int
	Ingests int
	Other   int
}

// CreateOptions is what a lease is made with.
type CreateOptions struct {
	// ID is the id, empty for a random one.
	ID string
	// ExpiresAt is when the lease ends, zero if unknown or never.
	ExpiresAt time.Time
	// TTL is how long the lease lasts from its creation by the manager's
	// clock, zero if that is not how its end is given.
	TTL time.Duration
	// Labels are the labels. A "containerd.io/gc.expire" among them that is a
	// time in RFC 3339 sets the expiry where neither ExpiresAt nor TTL does.
	Labels map[string]string
}

// Opt sets something in CreateOptions.
type Opt func(*CreateOptions) error

// NewCreateOptions returns what opts ask for, in their order, or the first
// error that one of them returns.
func NewCreateOptions(opts ...Opt) (CreateOptions, error) {
	var o CreateOptions
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return CreateOptions{}, err
		}
	}
	return o, nil
}

// WithID gives the lease its id; InvalidArgument where [ValidateID] refuses it.
func WithID(id string) Opt {
	return func(o *CreateOptions) error {
		o.ID = id
		return ValidateID(id)
	}
}

// WithExpiry makes the lease end at t; a zero t means never. Of several
// expiries and times to live the last counts.
func WithExpiry(t time.Time) Opt {
	return func(o *CreateOptions) error {
		o.ExpiresAt, o.TTL = t, 0
		return nil
	}
}

// WithTTL makes the lease end when d has passed since its creation. A d that
// is not positive makes one that is gone at once. Of several expiries and times
// to live the last counts.
func WithTTL(d time.Duration) Opt {
	return func(o *CreateOptions) error {
		if d <= 0 {
			d = -1
		}
		o.ExpiresAt, o.TTL = time.Time{}, d
		return nil
	}
}

// WithLabels gives the lease labels, beside those that were given before. The
// map is copied.
func WithLabels(labels map[string]string) Opt {
	return func(o *CreateOptions) error {
		all := maps.Clone(o.Labels)
		if all == nil {
			all = make(map[string]string, len(labels))
		}
		maps.Copy(all, labels)
		o.Labels = all
		return nil
	}
}

// DeleteOptions says how a lease is deleted.
type DeleteOptions struct {
	// Synchronous is whether Delete waits for a collection.
	Synchronous bool
	// IfExists is whether a lease that is not there is no error.
	IfExists bool
}

// DeleteOpt changes how a lease is deleted.
type DeleteOpt func(*DeleteOptions)

// Synchronous makes Delete return only after a collection has removed what
// nothing keeps any more.
func Synchronous() DeleteOpt {
	return func(o *DeleteOptions) { o.Synchronous = true }
}

// IfExists makes it no error that the lease is not there, for callers that
// clean up and may do so twice.
func IfExists() DeleteOpt {
	return func(o *DeleteOptions) { o.IfExists = true }
}

// NewDeleteOptions returns what opts ask for.
func NewDeleteOptions(opts ...DeleteOpt) DeleteOptions {
	var o DeleteOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
