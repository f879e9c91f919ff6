package cellar

import (
	"strconv"
	"time"
)

// Field returns the value of a field of i as text, for package filters, and
// whether it is there: digest, size, createdat and updatedat (RFC 3339), or
// "labels" followed by the key of a label, in one element.
func (i Info) Field(path []string) (string, bool) {
	switch fieldName(path) {
	case "digest":
		return i.Digest.String(), true
	case "labels":
		if len(path) != 2 {
			return "", false
		}
		value, ok := i.Labels[path[1]]
		return value, ok
	}
	return fieldText(i, path)
}

// FieldNumber returns the value of the field size.
func (i Info) FieldNumber(path []string) (int64, bool) {
	return i.Size, fieldName(path) == "size"
}

// FieldTime returns the value of the fields createdat and updatedat.
func (i Info) FieldTime(path []string) (time.Time, bool) {
	switch fieldName(path) {
	case "createdat":
		return i.CreatedAt, true
	case "updatedat":
		return i.UpdatedAt, true
	}
	return time.Time{}, false
}

// Field returns the value of a field of s as text, for package filters, and
// whether it is there: ref, offset, startedat and updatedat (RFC 3339), and
// where they are known total and expected.
func (s Status) Field(path []string) (string, bool) {
	switch fieldName(path) {
	case "ref":
		return s.Ref, true
	case "expected":
		return s.Expected.String(), s.Expected != ""
	}
	return fieldText(s, path)
}

// FieldNumber returns the value of the fields offset and total.
func (s Status) FieldNumber(path []string) (int64, bool) {
	switch fieldName(path) {
	case "offset":
		return s.Offset, true
	case "total":
		return s.Total, s.Total > 0
	}
	return 0, false
}

// FieldTime returns the value of the fields startedat and updatedat.
func (s Status) FieldTime(path []string) (time.Time, bool) {
	switch fieldName(path) {
	case "startedat":
		return s.StartedAt, true
	case "updatedat":
		return s.UpdatedAt, true
	}
	return time.Time{}, false
}

// fieldName is the first element of path; for all fields but the labels it
// must be the only one.
func fieldName(path []string) string {
	if len(path) == 1 || len(path) == 2 && path[0] == "labels" {
		return path[0]
	}
	return ""
}

// fieldText writes out a number or a time.
func fieldText(record interface {
	FieldNumber([]string) (int64, bool)
	FieldTime([]string) (time.Time, bool)
}, path []string) (string, bool) {
	if n, ok := record.FieldNumber(path); ok {
		return strconv.FormatInt(n, 10), true
	}
	if t, ok := record.FieldTime(path); ok {
		return t.UTC().Format(time.RFC3339Nano), true
	}
	return "", false
}
