package leases

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// MaxIDLength is the length in bytes of the longest id of a lease.
const MaxIDLength = 1024

// Lease describes a lease.
type Lease struct {
	// ID names the lease within its namespace.
	ID string
	// CreatedAt lies within the call of Create. It is UTC.
	CreatedAt time.Time
	// ExpiresAt is when the lease ends, in UTC; zero if it never does. From
	// that moment on it is gone, whether a collection has run or not.
	ExpiresAt time.Time
	// Labels is nil where there are none. Where ExpiresAt is not zero they show
	// it as "containerd.io/gc.expire", which is the same thing under another
	// name and not a second expiry.
	Labels map[string]string
}

// Expired reports whether the lease has ended at the time now.
func (l Lease) Expired(now time.Time) bool {
	return !l.ExpiresAt.IsZero() && now.After(l.ExpiresAt)
}

// ValidateID returns InvalidArgument for an id that is empty or longer than
// [MaxIDLength]. Ids are otherwise arbitrary bytes.
func ValidateID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("lease id is empty: %w", errdefs.ErrInvalidArgument)
	case len(id) > MaxIDLength:
		return fmt.Errorf("lease id %q… has %d bytes, over the limit of %d: %w",
			id[:64], len(id), MaxIDLength, errdefs.ErrInvalidArgument)
	}
	return nil
}

// NewID returns an id that nobody else has: letters and digits with at least
// 128 random bits.
func NewID() string { return strings.ToLower(rand.Text()) }

// Field returns the value of a field for filters, and whether it is there:
// "id", "createdat", "expiresat" and "labels" followed by the key, whose parts
// are joined by dots. Times are RFC 3339 in UTC; one that is zero is not there.
func (l Lease) Field(path []string) (string, bool) {
	if t, ok := l.FieldTime(path); ok {
		return t.Format(time.RFC3339Nano), true
	}
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "id":
		return l.ID, l.ID != ""
	case "labels":
		value, ok := l.Labels[strings.Join(path[1:], ".")]
		return value, ok
	}
	return "", false
}

// FieldTime returns the value of the fields that are times, "createdat" and
// "expiresat", and whether the field is one and there.
func (l Lease) FieldTime(path []string) (time.Time, bool) {
	if len(path) == 0 {
		return time.Time{}, false
	}
	var t time.Time
	switch path[0] {
	case "createdat":
		t = l.CreatedAt
	case "expiresat":
		t = l.ExpiresAt
	}
	return t.UTC(), !t.IsZero()
}
