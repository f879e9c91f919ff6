// Package gc holds what a collection is about, apart from where records and
// bytes lie.
package gc

import "time"

// Stats says what one collection did. It is filled in whether or not the
// collection came to its end.
type Stats struct {
	// Elapsed is how long it took, all in all.
	Elapsed time.Duration
	// Blobs and Bytes count what was removed from the raw store.
	Blobs int
	Bytes int64
	// Orphans are those of Blobs that never had a record, or whose record a
	// crash has prevented.
	Orphans int
	// Ingests counts ingestions that were left for too long.
	Ingests int
}
