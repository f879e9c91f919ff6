package cellar

import (
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
)

// Info describes committed content.
type Info struct {
	Digest digest.Digest
	// Size is the length in bytes.
	Size int64
	// CreatedAt lies within the call of Commit, UpdatedAt within that of
	// Commit or of the last Update. Both are UTC.
	CreatedAt time.Time
	UpdatedAt time.Time
	// Labels is nil where there are none.
	Labels map[string]string
}

// Status describes an ingestion.
type Status struct {
	Ref string
	// Offset is the number of bytes received so far.
	Offset int64
	// Total is the size that the first writer was opened with, zero if unknown.
	Total int64
	// Expected is the digest that the last writer which named one was opened
	// with, empty if none did.
	Expected digest.Digest
	// StartedAt lies within the first Writer call of the ref; UpdatedAt is the
	// time of the last Write, or StartedAt. Both are UTC and survive Close.
	StartedAt time.Time
	UpdatedAt time.Time
}

// Opt changes the description that Commit stores with the content. Stores use
// its Labels.
type Opt func(*Info) error

// WithLabels makes labels those of the content. Of several, the last one
// counts. The map is copied.
func WithLabels(labels map[string]string) Opt {
	return func(info *Info) error {
		info.Labels = maps.Clone(labels)
		return nil
	}
}
