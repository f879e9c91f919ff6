package cellar

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store is a whole content store: committed content that is managed and read,
// and ingestions that become content when they are committed.
//
// A write starts with [Ingester.Writer]. Until [Writer.Commit] returns, its
// bytes are seen by the [IngestManager] alone; from then on by [Manager] and
// [Provider] alone.
//
// All methods may be called concurrently. Every method that takes a digest
// answers InvalidArgument for one that is malformed or of an algorithm other
// than sha256, sha384 and sha512. Every method that takes a context returns
// the context's error, and changes nothing, when the context is done before
// the work begins.
type Store interface {
	Manager
	Provider
	IngestManager
	Ingester
}

// ReaderAt reads one piece of committed content.
type ReaderAt interface {
	// ReadAt follows [io.ReaderAt]: it may be called concurrently. Content that
	// is deleted or collected while a reader is open stays readable through it.
	io.ReaderAt

	// Close releases the reader. Closing twice is no error.
	io.Closer

	// Size is the length of the content in bytes.
	Size() int64
}

// Provider opens committed content for reading.
type Provider interface {
	// ReaderAt opens the content of desc.Digest; nothing else in desc is
	// required or looked at.
	//
	// Content that is not there is NotFound. A record whose bytes are missing
	// or have another length is DataLoss. The caller closes the reader; ctx
	// governs opening alone, not the reads that follow.
	ReaderAt(ctx context.Context, desc ocispec.Descriptor) (ReaderAt, error)
}

// Ingester starts or resumes ingestions.
type Ingester interface {
	// Writer opens the ingestion named by [WithRef], which is required: an
	// empty or over-long ref is InvalidArgument. If an earlier writer left the
	// ref uncommitted, the new one continues where that one stopped, as
	// Writer.Status tells; if it was opened with another positive total size
	// ([WithDescriptor]), it starts afresh with no data.
	//
	// One writer holds a ref at a time. While another does, Writer returns at
	// once with Unavailable; [OpenWriter] waits instead. If the descriptor's
	// digest is there already, Writer returns AlreadyExists and opens nothing.
	//
	// Opening waits for no disk flush. The caller ends the writer with Commit
	// or Close; ctx governs opening alone.
	Writer(ctx context.Context, opts ...WriterOpt) (Writer, error)
}

// IngestManager looks after ingestions that are not committed.
type IngestManager interface {
	// Status describes the ingestion of ref, open or left. A ref without an
	// ingestion is NotFound.
	Status(ctx context.Context, ref string) (Status, error)

	// ListStatuses describes every ingestion that one of the filters matches,
	// ordered by ref; without filters, or with an empty one, every one. A
	// filter that does not parse is InvalidArgument. Ingestions that are
	// committed or aborted during the listing may or may not be in it; they
	// never fail it.
	ListStatuses(ctx context.Context, filters ...string) ([]Status, error)

	// Abort drops the ingestion of ref with its data and frees the ref. A ref
	// without an ingestion is NotFound. A writer that is still open on it
	// fails from then on with Aborted, and no longer holds the ref.
	Abort(ctx context.Context, ref string) error
}

// InfoProvider describes committed content.
type InfoProvider interface {
	// Info describes the content of dgst. Content that is not there is
	// NotFound. The result is the caller's, labels included.
	Info(ctx context.Context, dgst digest.Digest) (Info, error)
}

// InfoReaderProvider describes and opens committed content.
type InfoReaderProvider interface {
	InfoProvider
	Provider
}

// WalkFunc is called by [Manager.Walk] for one piece of content after
// another. An error from it ends the walk.
type WalkFunc func(Info) error

// Manager describes, relabels, lists and removes committed content.
type Manager interface {
	InfoProvider

	// Update changes the labels of info.Digest and returns the new
	// description. Only labels can change. Without field paths, or with
	// "labels", the labels become info.Labels; "labels.KEY" sets that one
	// from info.Labels, or removes it where info.Labels has it empty or not at
	// all. KEY is all that follows the first "labels.", dots included. A label
	// with an empty value is not kept. Any other path, and labels over the
	// limits of package labels, are InvalidArgument and change nothing.
	//
	// Content that is not there is NotFound; a store that keeps no labels
	// answers FailedPrecondition. UpdatedAt becomes the time of the call. The
	// argument's map is neither changed nor kept. When Update returns nil the
	// change is durable.
	Update(ctx context.Context, info Info, fieldpaths ...string) (Info, error)

	// Walk calls fn for all content that one of the filters matches, in the
	// order of the digests as strings; without filters, or with an empty one, for all. A
	// filter that does not parse is InvalidArgument and fn is not called.
	//
	// fn runs in the caller's goroutine while no lock and no transaction is
	// held, so it may call the store. An error from fn ends the walk and is
	// returned as it is. Content that is there during the whole walk is seen
	// exactly once; content that comes or goes meanwhile may be seen or not. A
	// context that ends during the walk ends it with the context's error.
	Walk(ctx context.Context, fn WalkFunc, filters ...string) error

	// Delete removes dgst from the store. Content that is not there is
	// NotFound. In a namespace this removes the record alone: the bytes go
	// with the next collection, once no namespace holds them. When Delete
	// returns nil the removal is durable.
	Delete(ctx context.Context, dgst digest.Digest) error
}

// ReferrersProvider lists what refers to a piece of content. Stores may
// implement it beside [Store].
type ReferrersProvider interface {
	// Referrers returns the descriptors of the manifests whose subject is
	// desc.Digest, none if there are none.
	Referrers(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error)
}
