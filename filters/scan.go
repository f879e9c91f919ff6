package filters

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// end is what peek returns at the end of the input.
const end rune = -1

// scanner walks over an input.
type scanner struct {
	input string
	pos   int
}

// fail returns an error about the place offset.
func (s *scanner) fail(offset int, message, hint string) error {
	return &ParseError{Input: s.input, Offset: offset, Message: message, Hint: hint}
}

// checkRunes refuses what stands nowhere in an expression, so that what follows
// meets none of it.
func (s *scanner) checkRunes() error {
	for i, r := range s.input {
		switch r {
		case 0:
			return s.fail(i, "a NUL", `in quotes it is written \x00`)
		case utf8.RuneError:
			return s.fail(i, "bytes that are not UTF-8", `in quotes they are written like \xff`)
		}
	}
	return nil
}

func (s *scanner) atEnd() bool { return s.pos == len(s.input) }

// peek returns the next rune, end if there is none.
func (s *scanner) peek() rune {
	if s.atEnd() {
		return end
	}
	r, _ := utf8.DecodeRuneInString(s.input[s.pos:])
	return r
}

// next takes the next rune.
func (s *scanner) next() rune {
	r, size := utf8.DecodeRuneInString(s.input[s.pos:])
	s.pos += size
	return r
}

// accept takes the next rune if it is r.
func (s *scanner) accept(r rune) bool {
	if s.peek() != r {
		return false
	}
	s.next()
	return true
}

func (s *scanner) skipSpace() {
	for unicode.IsSpace(s.peek()) {
		s.next()
	}
}

// quoted takes a text in quotes, whichever come next, and returns what it
// stands for.
func (s *scanner) quoted() (string, error) {
	start := s.pos
	quote := s.next()
	var b strings.Builder
	for {
		at := s.pos
		if s.atEnd() {
			return "", s.unclosed(start, quote)
		}
		switch r := s.next(); r {
		case quote:
			return b.String(), nil
		case '\n':
			return "", s.fail(at, "a line break in quotes", `it is written \n`)
		case '\\':
			if err := s.escape(&b, at, quote); err != nil {
				return "", err
			}
		default:
			b.WriteRune(r)
		}
	}
}

// unclosed refuses a text whose quote at start has no other.
func (s *scanner) unclosed(start int, quote rune) error {
	hint := ""
	if quote != '"' {
		hint = fmt.Sprintf("a regular expression that begins with %c is quoted with \"", quote)
	}
	return s.fail(start, fmt.Sprintf("the quote %c is not closed", quote), hint)
}

// simple are the escapes of one rune, and simpleRunes what they stand for.
const (
	simple      = `abfnrtv\`
	simpleRunes = "\a\b\f\n\r\t\v\\"
)

// escape takes what follows the backslash at at, and writes what it stands for.
func (s *scanner) escape(b *strings.Builder, at int, quote rune) error {
	if s.atEnd() {
		return s.unclosed(at, quote)
	}
	switch r := s.next(); {
	case r == quote:
		b.WriteRune(r)
	case r < utf8.RuneSelf && strings.IndexByte(simple, byte(r)) >= 0:
		b.WriteByte(simpleRunes[strings.IndexByte(simple, byte(r))])
	case '0' <= r && r <= '7':
		s.pos--
		return s.numeric(b, at, 8, 3)
	case r == 'x':
		return s.numeric(b, at, 16, 2)
	case r == 'u':
		return s.numeric(b, at, 16, 4)
	case r == 'U':
		return s.numeric(b, at, 16, 8)
	default:
		return s.fail(at, fmt.Sprintf(`there is no escape \%c`, r), `a backslash in quotes is written \\`)
	}
	return nil
}

// numeric takes the digits of an escape. Those of up to three stand for a
// byte, longer ones for a rune.
func (s *scanner) numeric(b *strings.Builder, at int, base, digits uint32) error {
	var value uint32
	for range digits {
		d, ok := digitValue(s.peek())
		if !ok || d >= base {
			return s.fail(at, fmt.Sprintf("an escape without its %d digits", digits), "")
		}
		s.next()
		value = value*base + d
	}
	switch {
	case digits <= 3 && value <= 0xff:
		b.WriteByte(byte(value))
	case digits > 3 && value <= unicode.MaxRune:
		b.WriteRune(rune(value))
	default:
		return s.fail(at, "an escape that stands for no character", "")
	}
	return nil
}

// digitValue returns the value of a hexadecimal digit.
func digitValue(r rune) (uint32, bool) {
	switch {
	case '0' <= r && r <= '9':
		return uint32(r - '0'), true
	case 'a' <= r && r <= 'f':
		return uint32(r-'a') + 10, true
	case 'A' <= r && r <= 'F':
		return uint32(r-'A') + 10, true
	}
	return 0, false
}

// wordRune reports whether r stands in a bare name.
func wordRune(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// labelRune reports whether r stands in the bare name of a label.
func labelRune(r rune) bool { return r == '-' || r == '/' || wordRune(r) }

// operatorRune reports whether r stands in an operator other than those of
// order.
func operatorRune(r rune) bool { return r == '=' || r == '!' || r == '~' }

// valueRune reports whether r stands in a bare value after its first rune.
func valueRune(r rune) bool {
	return r != end && r != ',' && unicode.IsGraphic(r) && !unicode.IsSpace(r)
}
