package cellar

import (
	_ "crypto/sha256" // registers the algorithms that content is hashed with
	_ "crypto/sha512"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Every error that a store returns belongs to a class of package errdefs, or
// is the error of a context:
//
//	InvalidArgument     a malformed digest, ref, name, label, filter or size
//	NotFound            no such content, ingestion, namespace or lease
//	AlreadyExists       it is there already; nothing was changed
//	FailedPrecondition  bytes do not match what was promised; a closed writer; no namespace
//	Aborted             the ingestion was aborted under its writer
//	Unavailable         the ref is held by another writer; the store is held by
//	                    another process, or was shut after a failed write
//	ResourceExhausted   no space, no file descriptors, a quota
//	PermissionDenied    the operating system refused; a read-only file system
//	DataLoss            damage: the error names the file or key
//	Internal            anything else, with its cause
//
// A cause stays reachable: an error can be NotFound and fs.ErrNotExist at once.

// ErrReset is returned by a Write or Commit to ask [Copy] to start again from
// the beginning of its source.
var ErrReset = errors.New("writer has been reset")

// LockedError says that a ref is held by another writer. Its class is
// Unavailable.
type LockedError struct {
	Ref   string
	Since time.Time
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("ref %s is locked since %s by another writer: %v", Shorten(e.Ref), e.Since.UTC().Format(time.RFC3339), errdefs.ErrUnavailable)
}

// Unwrap makes the error Unavailable.
func (e *LockedError) Unwrap() error { return errdefs.ErrUnavailable }

// ValidateDigest returns InvalidArgument for a digest that is malformed or not
// sha256, sha384 or sha512. It never panics, whatever the string.
func ValidateDigest(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("digest %s: %w: %w", Shorten(dgst.String()), errdefs.ErrInvalidArgument, err)
	}
	return nil
}

// ValidateRef returns InvalidArgument for a ref that is empty or longer than
// [MaxRefLength].
func ValidateRef(ref string) error {
	switch {
	case ref == "":
		return fmt.Errorf("ref is empty, give one with WithRef: %w", errdefs.ErrInvalidArgument)
	case len(ref) > MaxRefLength:
		return fmt.Errorf("ref %s has %d bytes, over the limit of %d: %w", Shorten(ref), len(ref), MaxRefLength, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Shorten returns s, quoted and cut after 64 bytes, for use in messages about
// strings that come from outside.
func Shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes)", s[:limit], len(s))
}
