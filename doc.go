// Package cellar is the contract of a content store for many tenants: what
// content, ingestions and their writers are, what a store promises, and helpers
// that work with every store. Content is immutable and named by its digest.
//
// The stores are in packages of their own: local keeps bare bytes on a file
// system, metadata puts namespaces, labels and leases above them.
package cellar
