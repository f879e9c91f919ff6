package filters

import "time"

// precision says which times parseTime takes.
type precision uint8

const (
	// wholeOnly takes RFC 3339 and days.
	wholeOnly precision = iota
	// orBeginning takes months and years too, as their first moment.
	orBeginning
)

// parseTime reads a time in RFC 3339, or a part of one from the left. Unlike
// package time it does not allocate, whatever the text.
func parseTime(s string, p precision) (time.Time, bool) {
	c := clock{rest: s}
	year := c.number(4)
	month, day := 1, 1
	if p == wholeOnly || c.rest != "" {
		month = c.after('-', 1, 12)
	}
	if p == wholeOnly || c.rest != "" {
		day = c.after('-', 1, daysIn(year, month))
	}
	if c.failed || c.rest == "" {
		return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC), !c.failed
	}
	c.separator()
	hour := c.between(0, 23)
	minute := c.after(':', 0, 59)
	second := c.after(':', 0, 59)
	nanos := c.fraction()
	offset := c.zone()
	if c.failed || c.rest != "" {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return t.Add(-offset), true
}

// daysIn returns the number of days of a month.
func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// clock takes a time apart from the left. Once something is not as it should
// be, failed stays set.
type clock struct {
	rest   string
	failed bool
}

// number takes exactly width digits.
func (c *clock) number(width int) int {
	if len(c.rest) < width {
		c.failed = true
		return 0
	}
	value, n, ok := cutDigits(c.rest[:width], width)
	if !ok || n != width {
		c.failed = true
		return 0
	}
	c.rest = c.rest[width:]
	return int(value)
}

// between takes two digits that are in range.
func (c *clock) between(least, most int) int {
	value := c.number(2)
	if value < least || value > most {
		c.failed = true
		return least
	}
	return value
}

// after takes a mark and then two digits that are in range.
func (c *clock) after(mark byte, least, most int) int {
	if !c.take(mark) {
		c.failed = true
		return least
	}
	return c.between(least, most)
}

// take takes one character if it is next.
func (c *clock) take(mark byte) bool {
	if c.rest == "" || c.rest[0] != mark {
		return false
	}
	c.rest = c.rest[1:]
	return true
}

// separator takes what stands between day and hour.
func (c *clock) separator() {
	if !c.take('T') && !c.take('t') && !c.take(' ') {
		c.failed = true
	}
}

// fraction takes the decimals of a second, if there are any.
func (c *clock) fraction() int {
	if !c.take('.') {
		return 0
	}
	value, n, ok := cutDigits(c.rest, 9)
	if !ok {
		c.failed = true
		return 0
	}
	c.rest = c.rest[n:]
	for range 9 - n {
		value *= 10
	}
	return int(value)
}

// zone takes the distance from UTC.
func (c *clock) zone() time.Duration {
	if c.take('Z') || c.take('z') {
		return 0
	}
	west := c.take('-')
	if !west && !c.take('+') {
		c.failed = true
		return 0
	}
	offset := time.Duration(c.between(0, 23)) * time.Hour
	offset += time.Duration(c.after(':', 0, 59)) * time.Minute
	if west {
		return -offset
	}
	return offset
}
