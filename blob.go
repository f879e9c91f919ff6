package cellar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// NewReader returns a reader of the whole of ra, from its first byte. Readers
// of one ra have positions of their own; each may be used by one goroutine at
// a time. It is valid until ra is closed, and closing ra is left to the caller.
// The result is an [io.Seeker] and an [io.ReaderAt] as well.
func NewReader(ra ReaderAt) io.Reader {
	return io.NewSectionReader(ra, 0, ra.Size())
}

// ReadBlob returns the whole content of desc.Digest in memory, in a slice that
// is the caller's. It does not hash what the provider returns.
//
// Data that desc embeds is taken instead of the provider's if it has desc.Size
// bytes and the right digest; otherwise it is ignored. A malformed digest is
// InvalidArgument, and errors of [Provider.ReaderAt] are returned. A provider
// that gives fewer bytes than it announced is DataLoss and
// [io.ErrUnexpectedEOF]; memory grows with the bytes that came, not with the
// announcement.
func ReadBlob(ctx context.Context, p Provider, desc ocispec.Descriptor) ([]byte, error) {
	if err := ValidateDigest(desc.Digest); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if embeds(desc) {
		return bytes.Clone(desc.Data), nil
	}
	ra, err := p.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	content, err := readAll(ctx, ra)
	if err != nil {
		err = fmt.Errorf("content %s: %w", desc.Digest, err)
	}
	return content, errors.Join(err, ra.Close())
}

// embeds tells whether desc brings its content along.
func embeds(desc ocispec.Descriptor) bool {
	return desc.Data != nil && int64(len(desc.Data)) == desc.Size &&
		desc.Digest.Algorithm().FromBytes(desc.Data) == desc.Digest
}

// readAll returns what ra holds.
func readAll(ctx context.Context, ra ReaderAt) ([]byte, error) {
	size := ra.Size()
	if size < 0 || size > math.MaxInt {
		return nil, fmt.Errorf("size %d cannot be held in memory: %w", size, errdefs.ErrResourceExhausted)
	}
	buf := make([]byte, 0, min(size, chunkSize))
	for len(buf) < int(size) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		have := len(buf)
		next := min(int(size), max(2*have, cap(buf)))
		buf = slices.Grow(buf, next-have)[:next]
		n, err := ra.ReadAt(buf[have:], int64(have))
		switch {
		case n == next-have:
		case err == nil || errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%d of %d bytes: %w: %w", have+n, size, errdefs.ErrDataLoss, io.ErrUnexpectedEOF)
		default:
			return nil, err
		}
	}
	return buf, nil
}

// WriteBlob writes the content that src holds, unless it is there already, and
// commits it under desc's digest and size, as far as those are known. ref names
// the ingestion: a call that ends early leaves it, and the next one with the
// same ref continues it. A ref that is busy is waited for, as by [OpenWriter].
//
// Content that is there already is success; then src may not have been read,
// and opts, labels among them, have no effect. Otherwise src and errors are
// treated as by [Copy]. When WriteBlob returns nil, the content is durable.
func WriteBlob(ctx context.Context, in Ingester, ref string, src io.Reader, desc ocispec.Descriptor, opts ...Opt) error {
	w, err := OpenWriter(ctx, in, WithRef(ref), WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open writer: %w", err)
	}
	if err := Copy(ctx, w, src, max(desc.Size, 0), desc.Digest, opts...); err != nil {
		return errors.Join(fmt.Errorf("write blob as ref %s: %w", Shorten(ref), err), w.Close())
	}
	return w.Close()
}

// OpenWriter opens a writer like [Ingester.Writer], but waits while another
// writer holds the ref: until it is free where the ingester is a [RefWaiter],
// otherwise by trying again in growing random intervals of up to two seconds.
//
// If ctx ends first, its error is returned. Every other error is that of
// Ingester.Writer, Unavailable included where it does not mean a busy ref (a
// RefWaiter tells those apart by [LockedError]).
func OpenWriter(ctx context.Context, in Ingester, opts ...WriterOpt) (Writer, error) {
	var asked WriterOpts
	for _, opt := range opts {
		if err := opt(&asked); err != nil {
			return nil, err
		}
	}
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w, err := in.Writer(ctx, opts...)
		if !errdefs.IsUnavailable(err) {
			return w, err
		}
		if retry, err := awaitRef(ctx, in, asked.Ref, attempt, err); !retry {
			return nil, err
		}
	}
}

// freeRetries is how often a woken caller tries again at once. Who loses more
// races than that pauses, lest a RefWaiter that always says yes is asked in a
// busy loop.
const freeRetries = 8

// awaitRef waits after the given failure of a Writer call until another try
// makes sense; if none does, it returns false and the error to give up with.
func awaitRef(ctx context.Context, in Ingester, ref string, attempt int, failure error) (bool, error) {
	waiter, canWait := in.(RefWaiter)
	if !canWait {
		return giveUp(pause(ctx, attempt), failure)
	}
	if locked := (*LockedError)(nil); !errors.As(failure, &locked) {
		return false, failure
	}
	err := waiter.WaitRef(ctx, ref)
	if err == nil && attempt >= freeRetries {
		err = pause(ctx, attempt-freeRetries)
	}
	return giveUp(err, failure)
}

// giveUp turns the error of waiting into awaitRef's answer.
func giveUp(err, failure error) (bool, error) {
	if err == nil {
		return true, nil
	}
	return false, fmt.Errorf("waiting ended (%v): %w", failure, err)
}

// pause sleeps for a random time below a bound that doubles with each attempt.
func pause(ctx context.Context, attempt int) error {
	const first, last = 16 * time.Millisecond, 2 * time.Second
	bound := min(first<<min(attempt, 10), last)
	timer := time.NewTimer(rand.N(bound))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Exists tells whether the content of desc.Digest is there: NotFound is no
// error here, every other error of [InfoProvider.Info] is.
func Exists(ctx context.Context, p InfoProvider, desc ocispec.Descriptor) (bool, error) {
	_, err := p.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
