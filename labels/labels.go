package labels

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// The limits on the labels of one record.
const (
	// MaxSize is the most bytes that a key and its value have together.
	MaxSize = 4096
	// MaxCount is the most labels that one record has.
	MaxCount = 1024
	// MaxTotal is the most bytes that the keys and values of one record have
	// together.
	MaxTotal = 256 << 10
)

// NamespaceShareable is the label that makes a namespace lend its content to
// others, where its value is "true".
const NamespaceShareable = "containerd.io/namespace.shareable"

// shownKey is how much of a key an error shows, in bytes.
const shownKey = 64

// ValidatePair returns InvalidArgument for an empty key, or for a key and
// value that have more than [MaxSize] bytes together.
func ValidatePair(key, value string) error {
	if key == "" {
		return fmt.Errorf("label key is empty: %w", errdefs.ErrInvalidArgument)
	}
	if size := len(key) + len(value); size > MaxSize {
		return fmt.Errorf("label %s: key and value have %d bytes, over the limit of %d: %w",
			shorten(key), size, MaxSize, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Validate returns InvalidArgument where [ValidatePair] does for one of the
// labels, and where they are more than [MaxCount] or have more than [MaxTotal]
// bytes together. Of several labels that are wrong it names the first by key.
func Validate(labels map[string]string) error {
	var (
		worst string
		first error
		total int
	)
	for key, value := range labels {
		total += len(key) + len(value)
		if err := ValidatePair(key, value); err != nil && (first == nil || key < worst) {
			worst, first = key, err
		}
	}
	switch {
	case first != nil:
		return first
	case len(labels) > MaxCount:
		return fmt.Errorf("%d labels, over the limit of %d for one record: %w",
			len(labels), MaxCount, errdefs.ErrInvalidArgument)
	case total > MaxTotal:
		return fmt.Errorf("labels have %d bytes together, over the limit of %d for one record: %w",
			total, MaxTotal, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Clean returns a copy of labels without those whose value is empty, nil if
// none are left.
func Clean(labels map[string]string) map[string]string {
	var kept map[string]string
	for key, value := range labels {
		if value == "" {
			continue
		}
		if kept == nil {
			kept = make(map[string]string, len(labels))
		}
		kept[key] = value
	}
	return kept
}

// errPath is the cause of every refused field path.
var errPath = errors.New(`only "labels" and "labels.KEY" can be updated`)

// Update returns what current becomes when it is updated from next along the
// field paths, in their order:
//
//   - "labels", and no path at all: every label is that of next.
//   - "labels.KEY": the label KEY is that of next; where next has it empty or
//     not at all, it is removed. KEY is all that follows the first "labels.",
//     dots and slashes included.
//
// Any other path is InvalidArgument, and so is a result that [Validate]
// refuses. The result is a new map without empty values, nil if there are no
// labels; neither argument is changed.
func Update(current, next map[string]string, fieldpaths ...string) (map[string]string, error) {
	result := Clean(next)
	if len(fieldpaths) > 0 {
		result = Clean(current)
	}
	for _, path := range fieldpaths {
		if path == "labels" {
			result = Clean(next)
			continue
		}
		key, ok := strings.CutPrefix(path, "labels.")
		if !ok || key == "" {
			return nil, fmt.Errorf("field path %s: %w: %w", shorten(path), errPath, errdefs.ErrInvalidArgument)
		}
		result = set(result, key, next[key])
	}
	if err := Validate(result); err != nil {
		return nil, err
	}
	return result, nil
}

// set changes one label of labels, which may be nil, in place.
func set(labels map[string]string, key, value string) map[string]string {
	if value != "" {
		if labels == nil {
			labels = make(map[string]string, 1)
		}
		labels[key] = value
		return labels
	}
	delete(labels, key)
	if len(labels) == 0 {
		return nil
	}
	return labels
}

// shorten quotes the first bytes of a string that comes from outside.
func shorten(s string) string {
	if len(s) <= shownKey {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", s[:shownKey])
}
