// Package local keeps content as files: one pool, a file for each blob.
//
//	root/                     locked (flock) by the process that has it open
//	  blobs/<algorithm>/<hex> content; mode 0400; a valid blobs/ of an OCI layout
//	  ingest/<sha256 of ref>/ an ingestion
//	    data                  the bytes so far
//	    state                 what it is, and how far its hash has come
//	  ingest/.place-<n>       a blob on its way into place
//
// docs/format.md has the bytes of the state file.
//
// # What is durable when
//
// Commit syncs the data, moves the file into place, and syncs the directory,
// which concurrent commits share. A file that lies under a digest already is
// trusted only if this process put it there and it is unchanged; otherwise it
// is replaced, so that what a crash or an accident left heals. Opening a
// writer waits for no sync.
//
// Beside the writing, every 16 MiB, the data is synced and the state of the
// hash saved: a checkpoint. An ingestion is resumed from the newest checkpoint
// that can be proved to belong to its data; what follows it is hashed again,
// or, where the machine has been restarted since, dropped, for it was never
// durable. After a clean Close nothing is read.
//
// Data whose sync failed is never used: the kernel may show bytes that the
// disk does not have. Its ingestion is removed and starts again from zero.
package local
