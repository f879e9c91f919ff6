// Package namespaces names the tenants of a store: how a namespace is written,
// how a context carries one, and what a store of namespaces promises.
//
// A namespace shares nothing with another that a caller could see: content,
// labels, ingestions and leases are its own. Bytes are shared below, where
// nobody notices.
package namespaces
