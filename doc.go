// Package cellar is the contract of a content store for many tenants: what a
// store promises, as interfaces, and helpers that work with every store. It
// holds no store. Package local keeps bare bytes on a file system; package
// metadata puts namespaces, records, labels and leases above a raw store; and
// package storetest tries every promise made here.
//
// # Vocabulary
//
// Content, also called a blob, is a sequence of bytes that never changes,
// named by its digest (sha256, sha384 or sha512). An ingestion is content that
// is still being written, named by a ref that its client chooses; a [Writer]
// receives its bytes. A namespace is one tenant's view: its own records of
// content, with size, times and labels ([Info]), and its own ingestions
// ([Status]). The bytes of all namespaces lie in one pool, each content once.
// What package local offers, a pool without namespaces, is a raw store.
//
// # The life of a blob
//
// It begins with [Ingester.Writer], or with [OpenWriter], which waits while
// another writer has the ref. The writer can be closed at any time and opened
// again later, in another process too: it continues where it stopped. Until
// [Writer.Commit] only the [IngestManager] knows of the bytes. With Commit they
// are verified and become content, in one step: from then on [Manager] and
// [Provider] know it, and the ingestion is gone. [WriteBlob] and [Copy] do all
// of that, and continue from readers that can go to an offset.
//
// Content is described, relabelled, listed and read. [Manager.Delete] ends it
// in its namespace. The bytes stay as long as another namespace, an open
// reader or a writer needs them, and go with a later collection. A raw store
// has nothing to wait for and removes them at once.
//
// # What is durable when
//
// A call that changes something has made the change durable when it returns
// nil: after a loss of power the content of a Commit is there with all bytes
// and labels, an Update holds, what Delete removed stays away, and a crash at
// any other moment leaves the one state or the other. The exceptions:
//
//   - Opening a writer waits for no disk. An ingestion that was opened just
//     before a crash may not be there afterwards.
//   - What was written is durable with [Writer].Commit and Close, and with Sync
//     where the writer is a [Syncer]. After a crash an ingestion continues at
//     the last point of which it is certain.
//   - A writer whose bytes could not be flushed gives them up: the ingestion
//     starts again from zero, rather than go on with bytes that may be wrong.
//   - A [RawStore] has calls that leave durability to the layer above it.
//
// Errors have a class of package errdefs; the list is in errors.go.
package cellar
