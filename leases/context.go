package leases

import "context"

type contextKey struct{}

// WithLease returns a context whose writes are held by the lease id, in place
// of the one that ctx may carry. Whether there is such a lease is asked when it
// is used; an empty id names one that there is not.
func WithLease(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns the id of the lease that ctx carries, and whether it
// carries one.
func FromContext(ctx context.Context) (string, bool) {
	id, ok := ctx.Value(contextKey{}).(string)
	return id, ok
}
