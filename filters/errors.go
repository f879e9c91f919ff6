package filters

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// ParseError says what is wrong with an expression, and where. Its class is
// InvalidArgument.
type ParseError struct {
	// Input is the expression.
	Input string
	// Offset is the position in Input, in bytes; that of the end where
	// something is missing there.
	Offset int
	// Message is what is wrong.
	Message string
	// Hint is what to write instead, empty if that is not known.
	Hint string
}

// Error returns message and hint, and in lines of their own the place in the
// input with a caret below it.
func (e *ParseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "filter: %s at byte %d", e.Message, e.Offset)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	line, column := excerpt(e.Input, e.Offset)
	fmt.Fprintf(&b, ": %v\n\t%s\n\t%s^", errdefs.ErrInvalidArgument, line, strings.Repeat(" ", column))
	return b.String()
}

// Unwrap makes the error InvalidArgument.
func (e *ParseError) Unwrap() error { return errdefs.ErrInvalidArgument }

// excerpt returns the part of input around offset on one line, and the column
// of the offset in it.
func excerpt(input string, offset int) (line string, column int) {
	const around = 40 // runes on each side
	start, end := offset, offset
	for range around {
		_, size := utf8.DecodeLastRuneInString(input[:start])
		start -= size
		_, size = utf8.DecodeRuneInString(input[end:])
		end += size
	}
	before := visible(input[start:offset])
	if start > 0 {
		before = "…" + before
	}
	line = before + visible(input[offset:end])
	if end < len(input) {
		line += "…"
	}
	return line, utf8.RuneCountInString(before)
}

// visible returns s with a dot in place of each rune that would break the line.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r != utf8.RuneError && unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return r
		}
		return '·'
	}, s)
}
