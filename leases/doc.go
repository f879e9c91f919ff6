// Package leases is the vocabulary of leases: what one is, what it can hold,
// how a context carries one, and what a manager of leases promises.
//
// A lease keeps its resources, and what they refer to, from being collected
// until it is deleted or its time has come. Work that makes content in several
// steps takes a lease first, does its writes with the lease in their context,
// and lets go of it once its results are referred to.
package leases
