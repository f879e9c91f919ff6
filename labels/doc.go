// Package labels holds what is common to the labels of content, leases and
// namespaces: their limits, how an update by field paths changes them, and
// what the keys that steer collection mean.
//
// A label is a key and a value. Keys are not empty; a label with an empty
// value is the same as no label, and is never kept. Both are arbitrary bytes.
package labels
