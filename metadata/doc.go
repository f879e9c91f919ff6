// Package metadata keeps the records of a content store: for each namespace its
// content, labels and ingestions, in a bbolt database over a raw store of bytes.
//
// # The life of a commit
//
// A namespace is a value: [DB.Namespace] gives a [cellar.Store] that sees one
// namespace and nothing of another. A writer gathers its bytes in the raw
// store, or in memory while they are few. Its commit
//
//  1. holds the digest, so that no collection removes its bytes meanwhile;
//  2. puts the bytes in place under the digest, durably;
//  3. writes the record in a transaction of the database: the commit point;
//  4. lets go of the digest.
//
// Small blobs are put in place without a flush in step 2, and their bytes go
// into the transaction of step 3; the files are flushed later, many at a time.
// So a record never stands without its bytes, whatever crashes when, and a
// crash between 2 and 3 leaves bytes without a record, which is garbage that
// the next collection finds. docs/crash.md has the whole argument.
//
// # Who waits for whom
//
// Mutations wait in a queue. One goroutine takes all that have gathered, runs
// them in one transaction and flushes once for all of them. A mutation is
// checked before it changes anything, so that a failing one does not disturb
// the others. Writers opened, aborted or left are recorded in the background,
// with whatever transaction comes next.
//
// Readers wait for nobody. Locks are taken in this order, and none is held
// while a caller's function runs, save the writer lock by [DB.Update]:
//
//	a writer's own lock; a digest (shared by commits, tried by the sweep);
//	the writer lock around a transaction; the table of ingestions
//
// # Failure
//
// After a failed flush of the database nobody knows what the disk has. The
// handle then refuses every write with Unavailable, saying why, until the
// database is opened anew. A full disk is no such failure: what did not fit is
// refused with ResourceExhausted, and the store goes on.
//
// docs/format.md describes every bucket and record.
package metadata
