package filters

import (
	"regexp"
	"time"
)

// Fielder is a record that filters can be matched against.
type Fielder interface {
	// Field returns the value of the field that path names, and whether it is
	// there. The path has one element, or two: the second is all that followed
	// the first name, joined with dots. It must not be changed or kept.
	Field(path []string) (value string, present bool)
}

// NumberFielder is implemented by records that have numbers among their
// fields, and so need not write them out to be compared.
type NumberFielder interface {
	// FieldNumber returns the value of a field that is a number, and whether
	// the field is one and is there.
	FieldNumber(path []string) (n int64, present bool)
}

// TimeFielder is implemented by records that have times among their fields,
// and so need not write them out to be compared.
type TimeFielder interface {
	// FieldTime returns the value of a field that is a time, and whether the
	// field is one and is there.
	FieldTime(path []string) (t time.Time, present bool)
}

// Operator is what a selector asks of its field.
type Operator uint8

// The operators.
const (
	// Present asks that the field is there. It has no value.
	Present Operator = iota
	// Equal is "==".
	Equal
	// NotEqual is "!=".
	NotEqual
	// Matches is "~=".
	Matches
	// Less is "<".
	Less
	// LessOrEqual is "<=".
	LessOrEqual
	// Greater is ">".
	Greater
	// GreaterOrEqual is ">=".
	GreaterOrEqual
)

// symbols are the operators as they are written.
var symbols = [...]string{"", "==", "!=", "~=", "<", "<=", ">", ">="}

// String returns the operator as it is written, empty for [Present].
func (op Operator) String() string {
	if int(op) < len(symbols) {
		return symbols[op]
	}
	return "?"
}

// ordered reports whether op compares by order.
func (op Operator) ordered() bool { return op >= Less && op <= GreaterOrEqual }

// Filter is a parsed condition: a record matches if it matches one of the
// alternatives. The zero Filter matches everything. Filters are never changed
// once they are made, and can be used concurrently.
type Filter struct {
	alternatives []Conjunction
}

// Always matches everything.
var Always = Filter{}

// Conjunction is a list of selectors all of which have to match.
type Conjunction []Selector

// Selector is a condition on one field.
type Selector struct {
	path    []string
	op      Operator
	value   string
	reading reading        // of value, unless op is Present or Matches
	re      *regexp.Regexp // where op is Matches
}

// Alternatives returns the conjunctions one of which has to match, none if
// everything matches. They are the filter's own and must not be changed.
func (f Filter) Alternatives() []Conjunction { return f.alternatives }

// MatchesAll reports whether the filter asks for nothing.
func (f Filter) MatchesAll() bool { return len(f.alternatives) == 0 }

// Match reports whether record matches. It allocates nothing itself; give a
// pointer where turning a record into an interface would copy it.
func (f Filter) Match(record Fielder) bool {
	if len(f.alternatives) == 0 {
		return true
	}
	for _, c := range f.alternatives {
		if c.Match(record) {
			return true
		}
	}
	return false
}

// Match reports whether record matches every selector.
func (c Conjunction) Match(record Fielder) bool {
	for i := range c {
		if !c[i].Match(record) {
			return false
		}
	}
	return true
}

// Path returns the field: one element, or two, as [Fielder] explains. It is
// the selector's own and must not be changed.
func (s *Selector) Path() []string { return s.path }

// Operator returns what the selector asks.
func (s *Selector) Operator() Operator { return s.op }

// Value returns what the field is compared with, free of quotes; for [Matches]
// the regular expression.
func (s *Selector) Value() string { return s.value }

// Match reports whether the selector holds for record.
func (s *Selector) Match(record Fielder) bool {
	switch s.op {
	case Present:
		return s.present(record)
	case Equal, NotEqual:
		return s.matchEqual(record)
	case Matches:
		value, present := record.Field(s.path)
		if !present {
			value = ""
		}
		return s.re.MatchString(value)
	}
	cmp, ok := s.compareTyped(record)
	if !ok {
		cmp, ok = s.compareText(record)
	}
	return ok && s.holds(cmp)
}

// present asks for typed fields first, to spare the record writing them out.
func (s *Selector) present(record Fielder) bool {
	if r, ok := record.(NumberFielder); ok {
		if _, present := r.FieldNumber(s.path); present {
			return true
		}
	}
	if r, ok := record.(TimeFielder); ok {
		if _, present := r.FieldTime(s.path); present {
			return true
		}
	}
	_, present := record.Field(s.path)
	return present
}

// matchEqual compares as numbers or times what record declares as such, and
// everything else as text.
func (s *Selector) matchEqual(record Fielder) bool {
	if cmp, ok := s.compareTyped(record); ok {
		return (cmp == 0) == (s.op == Equal)
	}
	value, present := record.Field(s.path)
	if s.op == Equal {
		return present && value == s.value
	}
	if !present {
		value = ""
	}
	return value != s.value
}

// compareTyped compares a field that record declares as a number or time with
// the value, if it can be read as the same.
func (s *Selector) compareTyped(record Fielder) (int, bool) {
	if s.reading.isNumber {
		if r, ok := record.(NumberFielder); ok {
			if n, present := r.FieldNumber(s.path); present {
				return number{whole: n}.compare(s.reading.number), true
			}
		}
	}
	if s.reading.isTime {
		if r, ok := record.(TimeFielder); ok {
			if t, present := r.FieldTime(s.path); present {
				return t.Compare(s.reading.time), true
			}
		}
	}
	return 0, false
}

// compareText compares a field that is text with the value, if both can be
// read as numbers or both as times.
func (s *Selector) compareText(record Fielder) (int, bool) {
	value, present := record.Field(s.path)
	if !present {
		return 0, false
	}
	if s.reading.isNumber {
		if n, ok := parseNumber(value); ok {
			return n.compare(s.reading.number), true
		}
	}
	if s.reading.isTime {
		if t, ok := parseTime(value, wholeOnly); ok {
			return t.Compare(s.reading.time), true
		}
	}
	return 0, false
}

// holds reports whether an ordered operator holds for a field that compares to
// the value as cmp says.
func (s *Selector) holds(cmp int) bool {
	switch s.op {
	case Less:
		return cmp < 0
	case LessOrEqual:
		return cmp <= 0
	case Greater:
		return cmp > 0
	case GreaterOrEqual:
		return cmp >= 0
	}
	return false
}
