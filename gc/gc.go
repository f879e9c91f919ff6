// Package gc is the collector as a problem of graphs and counters: which nodes
// can be reached, what a collection did, and what it needs to know of the time
// since the last one. It knows neither where records lie nor what they are of.
package gc

import "time"

// Stats says what one collection did. It is filled in whether or not the
// collection came to its end. Sizes are in bytes.
type Stats struct {
	// Elapsed is how long the collection took, Mark, Unlink and Sweep its
	// phases: finding what is reachable, deleting records, removing bytes.
	Elapsed, Mark, Unlink, Sweep time.Duration
	// LongestStall is the longest time for which writers had to wait because
	// of the collection.
	LongestStall time.Duration

	// Live counts the records that were found reachable. It is zero if nothing
	// had changed since the last collection, which then looked at none.
	Live int
	// Records, Leases and Ingests count what was removed: records that nothing
	// referred to, leases that had expired, ingestions left for too long.
	Records, Leases, Ingests int
	// Blobs and Bytes count what was removed from the raw store. Orphans are
	// those of Blobs that had no record, as a crash leaves them.
	Blobs   int
	Bytes   int64
	Orphans int
	// Namespaces tells for each namespace what was removed from it.
	Namespaces map[string]NamespaceStats
	// Errors counts what could not be removed and will be tried again.
	Errors int
}

// NamespaceStats is what a collection removed from one namespace. Bytes are
// those that the removed records spoke of; other namespaces may hold them.
type NamespaceStats struct {
	Records, Leases, Ingests int
	Bytes                    int64
}

// Option changes how one collection works.
type Option func(*Options)

// Options is what a collection is asked for. The zero value is the default of
// the store.
type Options struct {
	// Grace is how long new content is kept without a reference; nil is the
	// store's own.
	Grace *time.Duration
}

// WithGrace sets for how long content that nothing refers to is kept after it
// was written. Zero or less keeps none.
func WithGrace(d time.Duration) Option {
	return func(o *Options) { o.Grace = &d }
}

// NewOptions returns what opts ask for, in their order.
func NewOptions(opts ...Option) Options {
	var o Options
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Activity counts what happened to a store since it was opened. The counters
// never go down.
type Activity struct {
	// Deletions counts what may have made garbage: records, leases and
	// references removed.
	Deletions uint64
	// Mutations counts every change.
	Mutations uint64
	// Bytes is the size of all records deleted.
	Bytes int64
	// NextExpiry is when the next lease, ingestion or grace period ends; zero
	// if none does.
	NextExpiry time.Time
}
