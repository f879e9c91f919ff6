package filters

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// The bounds on what is parsed together.
const (
	// MaxLength is the most bytes of one expression.
	MaxLength = 64 << 10
	// MaxFilters is the most expressions of one list.
	MaxFilters = 1024
	// MaxSelectors is the most selectors in all expressions of a list.
	MaxSelectors = 4096
	// MaxPattern is the most bytes of all regular expressions of a list.
	MaxPattern = 16 << 10
	// MaxProgram is the most steps that the regular expressions of a list are
	// compiled to, where a repeated part counts as often as it is repeated.
	MaxProgram = 16 << 10
)

// Parse parses one expression. The empty one matches everything. The error is a
// [*ParseError], or of class InvalidArgument where it is about no place in
// particular. Ages count from now.
func Parse(s string) (Filter, error) { return Parser{}.Parse(s) }

// ParseAll parses a list of expressions, one of which has to match. None at
// all, or an empty one among them, match everything. One that Parse refuses
// fails the list.
func ParseAll(list ...string) (Filter, error) { return Parser{}.ParseAll(list...) }

// Parser parses with a clock of the caller's.
type Parser struct {
	// Now is what ages count from; nil is time.Now. It is called at most once
	// for a list, and only if there is an age in it.
	Now func() time.Time
}

// Parse is like the function Parse.
func (p Parser) Parse(s string) (Filter, error) { return p.ParseAll(s) }

// ParseAll is like the function ParseAll.
func (p Parser) ParseAll(list ...string) (Filter, error) {
	if len(list) > MaxFilters {
		return Filter{}, fmt.Errorf("%d filters, over the limit of %d: %w", len(list), MaxFilters, errdefs.ErrInvalidArgument)
	}
	budget := budget{selectors: MaxSelectors, pattern: MaxPattern, program: MaxProgram}
	ps := parser{now: p.clock(), budget: &budget}
	var alternatives []Conjunction
	everything := len(list) == 0
	for _, input := range list {
		c, err := ps.expression(input)
		if err != nil {
			return Filter{}, err
		}
		everything = everything || len(c) == 0
		alternatives = append(alternatives, c)
	}
	if everything {
		return Always, nil
	}
	return Filter{alternatives: alternatives}, nil
}

// clock returns a clock that stands still from its first use on.
func (p Parser) clock() func() time.Time {
	var at time.Time
	return func() time.Time {
		if at.IsZero() {
			if p.Now == nil {
				at = time.Now()
			} else {
				at = p.Now()
			}
		}
		return at
	}
}

// budget is what is left of the bounds on a list.
type budget struct{ selectors, pattern, program int }

// parser parses one expression after the other.
type parser struct {
	scanner
	now    func() time.Time
	budget *budget
}

// expression parses a whole input.
func (p *parser) expression(input string) (Conjunction, error) {
	if len(input) > MaxLength {
		return nil, fmt.Errorf("filter has %d bytes, over the limit of %d: %w", len(input), MaxLength, errdefs.ErrInvalidArgument)
	}
	p.scanner = scanner{input: input}
	if err := p.checkRunes(); err != nil || input == "" {
		return nil, err
	}
	var c Conjunction
	for {
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		c = append(c, s)
		if p.atEnd() {
			return c, nil
		}
		if !p.accept(',') {
			return nil, p.unexpected()
		}
	}
}

// selector parses a path and what is asked of it.
func (p *parser) selector() (Selector, error) {
	if p.budget.selectors--; p.budget.selectors < 0 {
		return Selector{}, p.fail(p.pos, fmt.Sprintf("more than %d selectors", MaxSelectors), "")
	}
	path, err := p.path()
	if err != nil {
		return Selector{}, err
	}
	s := Selector{path: path}
	if p.atEnd() || p.peek() == ',' {
		return s, nil
	}
	if s.op, err = p.operator(); err != nil {
		return Selector{}, err
	}
	p.skipSpace()
	start := p.pos
	if s.value, err = p.value(s.op); err != nil {
		return Selector{}, err
	}
	return s, p.complete(&s, start)
}

// complete derives from the value, which begins at start, what matching needs.
func (p *parser) complete(s *Selector, start int) error {
	if s.op == Matches {
		re, err := compile(s.value, p.budget)
		if err != nil {
			return p.fail(start, err.Error(), "")
		}
		s.re = re
		return nil
	}
	s.reading = read(s.value, p.now)
	if s.op.ordered() && !s.reading.isNumber && !s.reading.isTime {
		return p.fail(start, fmt.Sprintf("%s compares by order, and this is no number, size, time or age", s.op),
			"write it like 10, 10MiB, 2026-01-31, 2026-01-31T12:00:00Z, or 24h for a time so long ago")
	}
	return nil
}

// path parses names with dots between them, and joins all but the first.
func (p *parser) path() ([]string, error) {
	first, err := p.name(wordRune)
	if err != nil {
		return nil, err
	}
	allowed := wordRune
	if first == "labels" {
		allowed = labelRune
	}
	path := []string{first}
	for p.accept('.') {
		name, err := p.name(allowed)
		if err != nil {
			return nil, err
		}
		path = append(path, name)
	}
	if len(path) > 2 {
		path = []string{first, strings.Join(path[1:], ".")}
	}
	return path, nil
}

// name parses one name of a path, whose first rune is a word's and whose other
// runes are allowed ones unless it is quoted.
func (p *parser) name(allowed func(rune) bool) (string, error) {
	p.skipSpace()
	start := p.pos
	switch r := p.peek(); {
	case p.atEnd():
		return "", p.fail(start, "the name of a field is missing", "")
	case r == '"':
		return p.quoted()
	case r == '/' || r == '|':
		return "", p.fail(start, "the name of a field begins with "+string(r), "quote names with \"")
	case !wordRune(r):
		return "", p.fail(start, fmt.Sprintf("%q where the name of a field should begin", r), nameHint(r))
	}
	for allowed(p.peek()) {
		p.next()
	}
	return p.input[start:p.pos], nil
}

// operator parses an operator, which has to be there.
func (p *parser) operator() (Operator, error) {
	p.skipSpace()
	start := p.pos
	switch r := p.peek(); {
	case r == '<' || r == '>':
		p.next()
		p.accept('=')
	case operatorRune(r):
		for operatorRune(p.peek()) {
			p.next()
		}
	case p.atEnd():
		return 0, p.fail(start, "blanks at the end", "nothing follows the name of a field that only has to be there")
	default:
		return 0, p.fail(start, fmt.Sprintf("%q where an operator should be", r), operatorHint(r))
	}
	text := p.input[start:p.pos]
	for op, symbol := range symbols[1:] {
		if text == symbol {
			return Operator(op + 1), nil
		}
	}
	return 0, p.fail(start, fmt.Sprintf("there is no operator %q", text), symbolHint(text))
}

// value parses the value that follows op.
func (p *parser) value(op Operator) (string, error) {
	start := p.pos
	if p.atEnd() {
		return "", p.fail(start, "the value is missing", `an empty one is written ""`)
	}
	switch r := p.peek(); {
	case r == '"':
		return p.quoted()
	case r == '/' || r == '|':
		if op != Matches {
			return "", p.fail(start, fmt.Sprintf("a value after %s begins with %c", op, r), `quote it with "`)
		}
		return p.quoted()
	case r == ',':
		return "", p.fail(start, "the value is missing", `an empty one is written "", a comma in a value needs quotes`)
	case r == '.' || operatorRune(r):
		return "", p.fail(start, fmt.Sprintf("a value begins with %c", r), `quote it with "`)
	}
	p.next()
	for valueRune(p.peek()) {
		p.next()
	}
	return p.input[start:p.pos], nil
}

// unexpected refuses what follows a whole selector.
func (p *parser) unexpected() error {
	r := p.peek()
	hint := "selectors are separated by commas"
	if unicode.IsSpace(r) {
		hint = `blanks may not follow a value, and one that has blanks in it is quoted with "`
	}
	return p.fail(p.pos, fmt.Sprintf("%q after a selector", r), hint)
}

// nameHint helps where r stands in place of a name.
func nameHint(r rune) string {
	switch {
	case r == '!':
		return `that a field is not there is written with its name and ~=^$`
	case r == ',' || r == '.':
		return ""
	}
	return `names are of letters, digits and _, others are quoted with "`
}

// operatorHint helps where r stands in place of an operator.
func operatorHint(r rune) string {
	switch {
	case r == '&':
		return "a comma means and"
	case r == '|':
		return "several filters, given one by one, mean or"
	case r == '-' || r == '/' || r > utf8.RuneSelf:
		return `names are of letters, digits and _, of labels also - and /; others are quoted with "`
	}
	return "there are == != ~= < <= > >="
}

// symbolHint helps where text stands in place of an operator.
func symbolHint(text string) string {
	switch {
	case strings.Contains(text, "~"):
		return "a regular expression is compared by ~="
	case strings.Contains(text, "!"):
		return `unequal is !=, and a value that begins with = ! or ~ is quoted with "`
	}
	return `equal is ==, and a value that begins with = ! or ~ is quoted with "`
}
