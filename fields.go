package cellar

import (
	"strconv"
	"strings"
	"time"
)

// Field returns the value of a field for filters, and whether it is there:
// "digest", "size", "createdat", "updatedat", and "labels" followed by the key,
// whose parts are joined by dots. Sizes are decimal, times RFC 3339 in UTC; a
// time that is zero is not there.
func (info Info) Field(path []string) (string, bool) {
	if len(path) > 0 {
		switch path[0] {
		case "digest":
			return info.Digest.String(), true
		case "labels":
			value, ok := info.Labels[strings.Join(path[1:], ".")]
			return value, ok
		}
	}
	return typedField(info, path)
}

// FieldNumber returns the value of the field that is a number, "size", and
// whether path names it.
func (info Info) FieldNumber(path []string) (int64, bool) {
	if len(path) == 0 || path[0] != "size" {
		return 0, false
	}
	return info.Size, true
}

// FieldTime returns the value of the fields that are times, "createdat" and
// "updatedat", and whether path names one that is not zero.
func (info Info) FieldTime(path []string) (time.Time, bool) {
	if len(path) == 0 {
		return time.Time{}, false
	}
	var t time.Time
	switch path[0] {
	case "createdat":
		t = info.CreatedAt
	case "updatedat":
		t = info.UpdatedAt
	}
	return t, !t.IsZero()
}

// Field returns the value of a field for filters, and whether it is there:
// "ref", "offset", "total", "expected", "startedat" and "updatedat". What is
// not known is not there. Numbers are decimal, times RFC 3339 in UTC.
func (s Status) Field(path []string) (string, bool) {
	if len(path) > 0 {
		switch path[0] {
		case "ref":
			return s.Ref, true
		case "expected":
			return s.Expected.String(), s.Expected != ""
		}
	}
	return typedField(s, path)
}

// FieldNumber returns the value of the fields that are numbers, "offset" and
// "total", and whether path names one that is known.
func (s Status) FieldNumber(path []string) (int64, bool) {
	if len(path) == 0 {
		return 0, false
	}
	switch path[0] {
	case "offset":
		return s.Offset, true
	case "total":
		return s.Total, s.Total > 0
	}
	return 0, false
}

// FieldTime returns the value of the fields that are times, "startedat" and
// "updatedat", and whether path names one that is not zero.
func (s Status) FieldTime(path []string) (time.Time, bool) {
	if len(path) == 0 {
		return time.Time{}, false
	}
	var t time.Time
	switch path[0] {
	case "startedat":
		t = s.StartedAt
	case "updatedat":
		t = s.UpdatedAt
	}
	return t, !t.IsZero()
}

// typedField returns a number or time among the fields of a record as text.
func typedField[T interface {
	FieldNumber(path []string) (int64, bool)
	FieldTime(path []string) (time.Time, bool)
}](record T, path []string) (string, bool) {
	if n, ok := record.FieldNumber(path); ok {
		return strconv.FormatInt(n, 10), true
	}
	if t, ok := record.FieldTime(path); ok {
		return t.UTC().Format(time.RFC3339Nano), true
	}
	return "", false
}
