package labels

import (
	"strings"
	"time"
)

// The labels that steer collection. The keys and their meaning are
// containerd's.
const (
	// GCRoot as the beginning of a key makes content a root: it is kept, with
	// all that it refers to. The value says nothing.
	GCRoot = "containerd.io/gc.root"

	// GCRefContent names in its value the digest of content that the labelled
	// thing needs: who keeps the one keeps the other. The key may go on with
	// "." or "/" and anything, so that a record can have several.
	GCRefContent = "containerd.io/gc.ref.content"

	// GCBackRefContent names in its value the digest of content that the
	// labelled one belongs to: while that is kept, so is this. The key may go
	// on as that of GCRefContent.
	GCBackRefContent = "containerd.io/gc.bref.content"

	// GCExpire on a lease is the time, in RFC 3339, at which it ends. On
	// content it has no effect.
	GCExpire = "containerd.io/gc.expire"

	// GCFlat on a lease, with any value, makes its content resources kept by
	// themselves, without what they refer to.
	GCFlat = "containerd.io/gc.flat"
)

// reserved are the prefixes of the keys whose meaning is given by others.
var reserved = [...]string{"containerd.io/", "io.cri-containerd"}

// Reserved reports whether keys like this one are kept for containerd and the
// tools around it. Nothing stops a caller from setting them.
func Reserved(key string) bool {
	for _, prefix := range reserved {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// Kind is what a label means to the collector.
type Kind uint8

// The kinds of labels.
const (
	// Plain labels mean nothing to the collector.
	Plain Kind = iota
	// Root is the kind of [GCRoot].
	Root
	// Forward is the kind of [GCRefContent].
	Forward
	// Back is the kind of [GCBackRefContent].
	Back
	// Expire is the kind of [GCExpire].
	Expire
	// Flat is the kind of [GCFlat].
	Flat
)

// String returns the name of the kind.
func (k Kind) String() string {
	names := [...]string{"plain", "root", "forward", "back", "expire", "flat"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Text is a key or value, as a string or as the bytes of a stored record.
type Text interface{ ~string | ~[]byte }

// gcPrefix begins the keys of all kinds but Plain.
const gcPrefix = "containerd.io/gc."

// KindOf tells what a label with this key means to the collector. It does not
// allocate.
func KindOf[T Text](key T) Kind {
	if !hasPrefix(key, gcPrefix) {
		return Plain
	}
	switch {
	case hasPrefix(key, GCRoot):
		return Root
	case names(key, GCRefContent):
		return Forward
	case names(key, GCBackRefContent):
		return Back
	case len(key) == len(GCExpire) && hasPrefix(key, GCExpire):
		return Expire
	case len(key) == len(GCFlat) && hasPrefix(key, GCFlat):
		return Flat
	}
	return Plain
}

// Reference is an edge that a label makes between its record and other content.
type Reference[T Text] struct {
	// Back is whether the target keeps the record, instead of the reverse.
	Back bool
	// Target is the label's value, which should be a digest. It is not
	// checked: one that is no digest refers to nothing, which is no error.
	// Bytes are those of the argument, not a copy.
	Target T
}

// ParseReference reads a label as a reference to content, and reports whether
// it is one. It does not allocate.
func ParseReference[T Text](key, value T) (Reference[T], bool) {
	kind := KindOf(key)
	if kind != Forward && kind != Back || len(value) == 0 {
		return Reference[T]{}, false
	}
	return Reference[T]{Back: kind == Back, Target: value}, true
}

// ParseExpiry reads the value of a [GCExpire] label, and reports whether it is
// a time; one that is none never comes. The result is UTC.
func ParseExpiry(value string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, value)
	return t.UTC(), err == nil
}

// FormatExpiry returns t as the value of a [GCExpire] label, to the nanosecond.
func FormatExpiry(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// hasPrefix is strings.HasPrefix for both kinds of Text.
func hasPrefix[T Text](s T, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if s[i] != prefix[i] {
			return false
		}
	}
	return true
}

// names reports whether key is name, or name with an addition of its own after
// a dot or slash.
func names[T Text](key T, name string) bool {
	if !hasPrefix(key, name) {
		return false
	}
	return len(key) == len(name) || key[len(name)] == '.' || key[len(name)] == '/'
}
