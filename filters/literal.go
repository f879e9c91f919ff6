package filters

import (
	"cmp"
	"math"
	"math/bits"
	"strings"
	"time"
)

// reading is what a value means beside its text. It can be a number and a time
// at once; the field decides.
type reading struct {
	isNumber, isTime bool
	number           number
	time             time.Time
}

// read tells what a value in an expression can be read as. now is asked only
// for ages.
func read(value string, now func() time.Time) reading {
	var r reading
	r.number, r.isNumber = parseNumber(value)
	if r.time, r.isTime = parseTime(value, orBeginning); r.isTime {
		return r
	}
	if age, ok := parseAge(value); ok {
		r.time, r.isTime = now().Add(age), true
	}
	return r
}

// number is a decimal number: whole plus nanos parts in 1e9. Neither has
// another sign than the other.
type number struct {
	whole int64
	nanos int32
}

// compare orders numbers.
func (n number) compare(other number) int {
	if c := cmp.Compare(n.whole, other.whole); c != 0 {
		return c
	}
	return cmp.Compare(n.nanos, other.nanos)
}

// parseNumber reads a number with or without a unit of size. It does not
// allocate, whatever the text.
func parseNumber(s string) (number, bool) {
	negative, s := cutSign(s)
	whole, nanos, unit, ok := cutDecimal(s)
	if !ok {
		return number{}, false
	}
	factor, ok := sizeUnit(unit)
	if !ok {
		return number{}, false
	}
	w, n, ok := scale(whole, nanos, factor)
	if !ok {
		return number{}, false
	}
	if negative {
		w, n = -w, -n
	}
	return number{whole: w, nanos: n}, true
}

// sizeUnit returns what a unit of size stands for, 1 for none.
func sizeUnit(unit string) (uint64, bool) {
	if unit == "" || strings.EqualFold(unit, "b") {
		return 1, true
	}
	power := strings.IndexByte("kmgtpe", unit[0]|0x20)
	if power < 0 {
		return 0, false
	}
	base := uint64(1000)
	rest := unit[1:]
	if rest != "" && rest[0]|0x20 == 'i' {
		base, rest = 1024, rest[1:]
	}
	if rest != "" && !strings.EqualFold(rest, "b") {
		return 0, false
	}
	factor := base
	for range power {
		factor *= base
	}
	return factor, true
}

// parseAge reads a time span: amounts with units, the largest first or in any
// other order. Without a sign, and with a minus, it lies in the past.
func parseAge(s string) (time.Duration, bool) {
	future := strings.HasPrefix(s, "+")
	_, s = cutSign(s)
	if s == "" {
		return 0, false
	}
	var sum int64
	for s != "" {
		whole, nanos, rest, ok := cutDecimal(s)
		if !ok {
			return 0, false
		}
		factor, rest, ok := cutTimeUnit(rest)
		if !ok {
			return 0, false
		}
		part, _, ok := scale(whole, nanos, factor)
		if !ok || part > math.MaxInt64-sum {
			return 0, false
		}
		sum, s = sum+part, rest
	}
	if !future {
		sum = -sum
	}
	return time.Duration(sum), true
}

// timeUnits are the units of ages; one that begins another comes after it.
var timeUnits = [...]struct {
	name string
	span time.Duration
}{
	{"ns", time.Nanosecond},
	{"us", time.Microsecond}, {"µs", time.Microsecond}, {"μs", time.Microsecond},
	{"ms", time.Millisecond},
	{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour},
	{"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour},
}

// cutTimeUnit splits the unit that s begins with from the rest.
func cutTimeUnit(s string) (factor uint64, rest string, ok bool) {
	for _, unit := range timeUnits {
		if rest, ok := strings.CutPrefix(s, unit.name); ok {
			return uint64(unit.span), rest, true
		}
	}
	return 0, s, false
}

// cutSign splits a sign from the rest.
func cutSign(s string) (negative bool, rest string) {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return s[0] == '-', s[1:]
	}
	return false, s
}

// cutDecimal splits the digits that s begins with, and up to nine decimals,
// from the rest.
func cutDecimal(s string) (whole uint64, nanos uint32, rest string, ok bool) {
	whole, n, ok := cutDigits(s, math.MaxInt)
	if !ok {
		return 0, 0, s, false
	}
	rest = s[n:]
	if rest == "" || rest[0] != '.' {
		return whole, 0, rest, true
	}
	decimals, n, ok := cutDigits(rest[1:], 9)
	if !ok {
		return 0, 0, s, false
	}
	for range 9 - n {
		decimals *= 10
	}
	return whole, uint32(decimals), rest[1+n:], true
}

// cutDigits reads the digits that s begins with and counts them. It fails for
// none, for more than most, and for a number over that of int64.
func cutDigits(s string, most int) (value uint64, n int, ok bool) {
	for n < len(s) && digit(s[n]) {
		if n == most || value > math.MaxInt64/10 {
			return 0, n, false
		}
		value = value*10 + uint64(s[n]-'0')
		n++
		if value > math.MaxInt64 {
			return 0, n, false
		}
	}
	return value, n, n > 0
}

// scale multiplies whole and nanos by factor. It fails where the result does
// not fit.
func scale(whole uint64, nanos uint32, factor uint64) (int64, int32, bool) {
	const billion = 1_000_000_000
	high, low := bits.Mul64(whole, factor)
	if high != 0 || low > math.MaxInt64 {
		return 0, 0, false
	}
	// The quotient is less than factor, so the division can't overflow.
	upper, lower := bits.Mul64(uint64(nanos), factor)
	carry, rest := bits.Div64(upper, lower, billion)
	if carry > math.MaxInt64-low {
		return 0, 0, false
	}
	return int64(low + carry), int32(rest), true
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
