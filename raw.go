package cellar

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"
)

// RawStore is what a store of bare bytes can offer to a layer of records above
// it, beside [Store]. A layer that finds it on its raw store uses it; one that
// does not works with Store alone, only slower.
//
// The layer above decides who sees what, and which bytes are garbage. The raw
// store has one flat pool and trusts the layer's answer.
type RawStore interface {
	Store

	// Ingest opens a writer for ref like Writer, with two differences: it
	// does not look whether the content is there already, and it hashes with
	// alg (sha256 if empty) whatever is known of the digest. total is the
	// expected size in bytes, zero or less if unknown.
	//
	// The writer's Commit returns nil where the content was there: the bytes
	// that are in place afterwards are right and durable.
	Ingest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (Writer, error)

	// Place puts p in place as the content of dgst, replacing what may be
	// there. The caller vouches that p has that digest, and answers for its
	// durability until Settle: when Place returns nil the content can be read,
	// and a crash of the machine may leave anything or nothing under dgst.
	Place(ctx context.Context, dgst digest.Digest, p []byte) error

	// Settle makes the content of each digest durable: bytes and directory
	// entry. The error joins what failed, each as a *SettleError; the others
	// are settled. A failed one must be placed again.
	Settle(ctx context.Context, dgsts []digest.Digest) error

	// Digests calls fn with every digest under which something lies, in no
	// particular order. It does not look at what lies there, and so is much
	// cheaper than Walk. An error from fn ends it and is returned as it is.
	Digests(ctx context.Context, fn func(dgst digest.Digest) error) error

	// Remove unlinks the content of dgst and returns its length. Content that
	// is not there is NotFound. Unlike Delete it does not wait until the
	// removal is durable: after a crash the content may be there again.
	Remove(ctx context.Context, dgst digest.Digest) (int64, error)

	// Committed returns the digests that were committed through Writer, and
	// not through Ingest or Place, since the last call, at most once each: the
	// layer above knows nothing of them. Content that is there when the store
	// is opened is not reported; Walk finds it.
	Committed() []digest.Digest
}

// SettleError says that one content could not be made durable.
type SettleError struct {
	Digest digest.Digest
	Err    error
}

func (e *SettleError) Error() string { return "settle " + e.Digest.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SettleError) Unwrap() error { return e.Err }

// RefWaiter is implemented by stores that can tell when a ref becomes free.
type RefWaiter interface {
	// WaitRef returns nil once no writer holds ref, at once if none does. The
	// ref may be taken again by the time the caller tries. If ctx ends first,
	// its error is returned.
	WaitRef(ctx context.Context, ref string) error
}

// FileReader is implemented by readers whose content is a file of its own.
type FileReader interface {
	// File returns the open file, to be handed to calls that want one
	// (sendfile, copy_file_range). It belongs to the reader: it is valid until
	// Close, and the caller neither closes it nor moves its position.
	File() *os.File
}
