package namespaces

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// MaxLength is the length in bytes of the longest name.
const MaxLength = 76

// Validate returns InvalidArgument for what is no name of a namespace. A name
// has 1 to [MaxLength] bytes: words of ASCII letters and digits, joined by
// single dots, dashes or underscores.
func Validate(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("namespace name is empty: %w", errdefs.ErrInvalidArgument)
	case len(name) > MaxLength:
		return fmt.Errorf("namespace name %q… has %d bytes, over the limit of %d: %w",
			name[:64], len(name), MaxLength, errdefs.ErrInvalidArgument)
	}
	word := false // whether the byte before belongs to a word
	for i := range len(name) {
		switch {
		case alphanumeric(name[i]):
			word = true
		case word && joins(name[i]):
			word = false
		default:
			return badByte(name, i)
		}
	}
	if !word {
		return badByte(name, len(name)-1)
	}
	return nil
}

// badByte says that name may not have at i what it has there.
func badByte(name string, i int) error {
	return fmt.Errorf("namespace name %q: %q cannot stand at offset %d (letters and digits, joined by single '.', '-' or '_'): %w",
		name, name[i:i+1], i, errdefs.ErrInvalidArgument)
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func joins(c byte) bool { return c == '.' || c == '-' || c == '_' }
