package filters

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// The functions below build filters from values of the program's own, which
// need no quoting: what they are given is compared as it is. A field is a name,
// or a name and a dot and the rest, such as "labels.a b".

// Has matches records that have the field.
func Has(field string) Filter { return one(field, Present, "") }

// Eq matches records that have the field, with that value.
func Eq(field, value string) Filter { return one(field, Equal, value) }

// Ne matches records whose field does not have that value. As in an
// expression, one that is not there counts as empty; add [Has] to ask that it
// is there.
func Ne(field, value string) Filter { return one(field, NotEqual, value) }

// Lacks matches records whose field is not there or empty.
func Lacks(field string) Filter {
	return single(Selector{path: split(field), op: Matches, value: empty.String(), re: empty})
}

// empty matches the empty text alone.
var empty = regexp.MustCompile("^$")

// Match matches records in whose field the regular expression matches
// somewhere; a field that is not there counts as empty. A pattern that does not
// compile, or is over [MaxPattern] or [MaxProgram], is InvalidArgument. Text
// that is to be taken literally goes through regexp.QuoteMeta.
func Match(field, pattern string) (Filter, error) {
	re, err := compile(pattern, &budget{pattern: MaxPattern, program: MaxProgram})
	if err != nil {
		return Filter{}, &patternError{err}
	}
	return single(Selector{path: split(field), op: Matches, value: pattern, re: re}), nil
}

// patternError is an error of class InvalidArgument about a pattern.
type patternError struct{ err error }

func (e *patternError) Error() string {
	return "filter: " + e.err.Error() + ": " + errdefs.ErrInvalidArgument.Error()
}

// Unwrap returns the class and the cause.
func (e *patternError) Unwrap() []error { return []error{errdefs.ErrInvalidArgument, e.err} }

// Ordered are the types that fields are compared with by order: numbers, times,
// and durations, which stand for the time so long ago.
type Ordered interface {
	int | int64 | time.Time | time.Duration
}

// Lt matches records that have the field, with a lesser value.
func Lt[T Ordered](field string, value T) Filter { return one(field, Less, literal(value)) }

// Le matches records that have the field, with a lesser value or the same.
func Le[T Ordered](field string, value T) Filter { return one(field, LessOrEqual, literal(value)) }

// Gt matches records that have the field, with a greater value.
func Gt[T Ordered](field string, value T) Filter { return one(field, Greater, literal(value)) }

// Ge matches records that have the field, with a greater value or the same.
func Ge[T Ordered](field string, value T) Filter { return one(field, GreaterOrEqual, literal(value)) }

// And matches what every one of the filters matches; with none, everything.
// The result has as many alternatives as the filters have together when one of
// each is picked in all ways.
func And(filters ...Filter) Filter {
	result := Always
	for _, f := range filters {
		result = both(result, f)
	}
	return result
}

// Or matches what one of the filters matches. With none it matches everything,
// as an empty list of expressions does.
func Or(filters ...Filter) Filter {
	var result Filter
	for _, f := range filters {
		if f.MatchesAll() {
			return Always
		}
		result.alternatives = append(result.alternatives, f.alternatives...)
	}
	return result
}

// both matches what a and b match.
func both(a, b Filter) Filter {
	switch {
	case a.MatchesAll():
		return b
	case b.MatchesAll():
		return a
	}
	var result Filter
	for _, left := range a.alternatives {
		for _, right := range b.alternatives {
			c := make(Conjunction, 0, len(left)+len(right))
			c = append(append(c, left...), right...)
			result.alternatives = append(result.alternatives, c)
		}
	}
	return result
}

// one returns a filter of one selector.
func one(field string, op Operator, value string) Filter {
	s := Selector{path: split(field), op: op, value: value}
	if op != Present {
		s.reading = read(value, time.Now)
	}
	return single(s)
}

func single(s Selector) Filter {
	return Filter{alternatives: []Conjunction{{s}}}
}

// split makes a path of a field: its name, and the rest if there is one.
func split(field string) []string { return strings.SplitN(field, ".", 2) }

// literal writes a value as an expression has it.
func literal[T Ordered](value T) string {
	switch v := any(value).(type) {
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case time.Time:
		return clamp(v.UTC()).Format(time.RFC3339Nano)
	case time.Duration:
		return age(v)
	}
	return ""
}

// age writes a duration so that it is an age for positive values and a time to
// come for negative ones.
func age(d time.Duration) string {
	if d < 0 {
		return "+" + strings.TrimPrefix(d.String(), "-")
	}
	return d.String()
}

// clamp returns t, or what is nearest to it of the times that RFC 3339 has.
func clamp(t time.Time) time.Time {
	first := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}
