package cellar

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Writer receives the bytes of one ingestion.
//
// A writer is open until Commit, Close, or an Abort of its ref:
//
//	        Write, Truncate(0)
//	           ┌──┐
//	Writer() ─▶ open ──Commit──▶ committed (or, on error, left)
//	             ├─────Close───▶ left: the next Writer() of the ref continues
//	             └─────Abort───▶ gone: the next Writer() of the ref starts anew
//
// Methods may be called concurrently; they run one after the other.
type Writer interface {
	// Write appends p to the ingestion. Like [io.Writer] it returns an error
	// whenever fewer than len(p) bytes were taken. On a writer that is closed
	// it is FailedPrecondition, on one that was aborted Aborted, and after a
	// failed flush of its data DataLoss: those bytes can't be relied on, and
	// the ref starts again from zero.
	//
	// Bytes become durable with Commit, Close or Sync, not before. Close
	// releases the writer and its ref and leaves the ingestion to be
	// resumed or aborted; what was written is flushed first. Closing twice, or
	// after Commit, is no error.
	io.WriteCloser

	// Digest is the digest of the bytes so far, and after Commit that of the
	// content. It is computed with the algorithm of the descriptor's digest if
	// the writer was opened with one, otherwise with sha256.
	Digest() digest.Digest

	// Commit makes the ingestion content. size and expected are compared with
	// what was written unless they are zero; a difference is
	// FailedPrecondition. A negative size or a malformed expected digest is
	// InvalidArgument. If expected names another algorithm than Digest uses,
	// the bytes are hashed again and the content is stored under expected.
	//
	// Commit closes the writer and frees the ref whatever it returns. On error
	// the ingestion is left to be resumed, data and all, except for
	// AlreadyExists: then the content was there, the ingestion is gone, and
	// the options had no effect. Commit on a writer that is closed is
	// FailedPrecondition, on one that was aborted Aborted.
	//
	// When Commit returns nil, bytes, record and labels are durable. If ctx
	// ends while Commit waits for its turn, it returns ctx's error and the
	// content is not committed; once its turn has come ctx has no effect.
	Commit(ctx context.Context, size int64, expected digest.Digest, opts ...Opt) error

	// Status describes the ingestion. It answers after Close and Commit too.
	Status() (Status, error)

	// Truncate drops all data and the digest's state while the writer keeps
	// the ref. Only a size of 0 is possible; any other is InvalidArgument and
	// changes nothing.
	Truncate(size int64) error
}

// Syncer is implemented by writers that can make the bytes written so far
// durable before Commit.
type Syncer interface {
	// Sync flushes what was written. It changes nothing that other methods
	// show. If it fails the ingestion's data is lost, as Writer.Write says.
	Sync() error
}

// WriterOpts is what a writer is opened with.
type WriterOpts struct {
	// Ref names the ingestion; at most [MaxRefLength] bytes.
	Ref string

	// Desc is what is known of the content beforehand. A size of zero or less
	// means unknown, and so does an empty digest.
	Desc ocispec.Descriptor
}

// WriterOpt sets something in WriterOpts.
type WriterOpt func(*WriterOpts) error

// WithDescriptor tells what is known of the content: Digest and Size, nothing
// of which is required.
func WithDescriptor(desc ocispec.Descriptor) WriterOpt {
	return func(opts *WriterOpts) error {
		opts.Desc = desc
		return nil
	}
}

// WithRef names the ingestion. Refs are arbitrary strings of 1 to
// [MaxRefLength] bytes; stores never use them as paths.
func WithRef(ref string) WriterOpt {
	return func(opts *WriterOpts) error {
		opts.Ref = ref
		return nil
	}
}

// MaxRefLength is the length in bytes of the longest ref.
const MaxRefLength = 4096
