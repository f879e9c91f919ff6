package filters

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// String returns the filter as text. Where there is one alternative, or none,
// it is an expression that Parse reads as the same filter; several are shown
// with "or" between them, which is for people: see [Filter.Strings].
func (f Filter) String() string { return strings.Join(f.Strings(), " or ") }

// Strings returns the filter as a list of expressions, one for each
// alternative, that ParseAll reads as the same filter. It is what the methods
// of stores take.
func (f Filter) Strings() []string {
	list := make([]string, len(f.alternatives))
	for i, c := range f.alternatives {
		list[i] = c.String()
	}
	return list
}

// String returns the conjunction as an expression.
func (c Conjunction) String() string {
	var b strings.Builder
	for i := range c {
		if i > 0 {
			b.WriteByte(',')
		}
		c[i].print(&b)
	}
	return b.String()
}

// String returns the selector as an expression.
func (s *Selector) String() string {
	var b strings.Builder
	s.print(&b)
	return b.String()
}

func (s *Selector) print(b *strings.Builder) {
	printPath(b, s.path)
	if s.op == Present {
		return
	}
	b.WriteString(s.op.String())
	if bareValue(s.value) {
		b.WriteString(s.value)
	} else {
		quote(b, s.value)
	}
}

// printPath writes a path, with quotes only where it needs them.
func printPath(b *strings.Builder, path []string) {
	allowed := wordRune
	for i, name := range path {
		if i > 0 {
			b.WriteByte('.')
		}
		if bareNames(name, i > 0, allowed) {
			b.WriteString(name)
		} else {
			quote(b, name)
		}
		if name == "labels" {
			allowed = labelRune
		}
	}
}

// bareNames reports whether s can be written without quotes: as a name, or as
// several with dots between them where that is the same.
func bareNames(s string, dots bool, allowed func(rune) bool) bool {
	first := true // whether the next rune begins a name
	for _, r := range s {
		switch {
		case r == '.' && dots && !first:
			first = true
		case first && !wordRune(r) || !allowed(r):
			return false
		default:
			first = false
		}
	}
	return !first
}

// bareValue reports whether s can be written as a value without quotes.
func bareValue(s string) bool {
	for i, r := range s {
		if !valueRune(r) || r == utf8.RuneError {
			return false
		}
		if i == 0 && (operatorRune(r) || strings.ContainsRune(`."/|`, r)) {
			return false
		}
	}
	return s != ""
}

// quote writes s in double quotes.
func quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == utf8.RuneError:
			quoteBroken(b, s[i:])
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			quoteControl(b, byte(r))
		case r <= 0xffff:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
}

// quoteControl writes a control character as an escape.
func quoteControl(b *strings.Builder, c byte) {
	if i := strings.IndexByte(simpleRunes, c); i >= 0 {
		b.WriteByte('\\')
		b.WriteByte(simple[i])
		return
	}
	fmt.Fprintf(b, `\x%02x`, c)
}

// quoteBroken writes what s begins with as an escape: a byte that is no UTF-8,
// or U+FFFD itself.
func quoteBroken(b *strings.Builder, s string) {
	if _, size := utf8.DecodeRuneInString(s); size > 1 {
		b.WriteString(`\ufffd`)
		return
	}
	fmt.Fprintf(b, `\x%02x`, s[0])
}
