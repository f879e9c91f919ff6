package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
)

// borrow decides whether the ingestion takes over content that is there
// already, and notes it in the table if so. That note keeps the bytes from
// being collected; it is made before they are looked for. What the ingestion has
// received before stays beside it, until it is committed, or written to; and so
// does the content when what was received is gone on with.
func (w *writer) borrow(ctx context.Context, desc ocispec.Descriptor) (*loan, error) {
	e, before := w.e, w.e.record.borrowed
	wanted := desc.Digest
	mine := e.proven && (wanted == "" || wanted == before)
	if mine {
		wanted = before
	}
	lent, err := w.takeOver(ctx, wanted, desc.Size, mine)
	switch {
	case lent != nil:
		return lent, nil
	case !e.stored && before != "":
		w.v.db.ingests.borrow(e, "")
		w.anew()
	case e.record.borrowed != before:
		w.v.db.ingests.borrow(e, before) // it may be asked for again
	}
	return nil, err
}

// takeOver is borrow for the content wanted, nil if it can't be had. mine is
// whether the ingestion has taken it over already, and may have it back.
func (w *writer) takeOver(ctx context.Context, wanted digest.Digest, size int64, mine bool) (*loan, error) {
	if wanted == "" {
		return nil, nil
	}
	if !mine {
		if lent, err := w.v.mayTakeOver(ctx, wanted); err != nil || !lent {
			return nil, err
		}
		w.v.db.ingests.borrow(w.e, wanted)
	}
	found, err := w.v.db.blobSize(ctx, wanted)
	switch {
	case errdefs.IsNotFound(err), errdefs.IsDataLoss(err):
		return nil, nil //nolint:nilerr // not to be had
	case err != nil || size > 0 && size != found:
		return nil, err
	}
	return &loan{dgst: wanted, size: found}, nil
}

// blobSize returns the length of bytes while nobody is removing them. If it is
// not what those who hold the digest have on record, that is DataLoss.
func (db *DB) blobSize(ctx context.Context, dgst digest.Digest) (int64, error) {
	key, err := keyOf(dgst)
	if err != nil {
		return 0, err
	}
	release, err := db.holdDigest(ctx, dgst)
	if err != nil {
		return 0, err
	}
	defer release()
	blob, err := db.blobs.Info(ctx, dgst)
	if err != nil {
		return 0, err
	}
	return blob.Size, db.read(ctx, func(tx *bolt.Tx) error {
		h, err := holdersOf(tx, key.bytes())
		if err == nil && h.count > 0 && h.size != blob.Size {
			err = fmt.Errorf("content %s has %d bytes, its records say %d: %w", dgst, blob.Size, h.size, errdefs.ErrDataLoss)
		}
		return err
	})
}

// mayTakeOver reports whether the namespace may have dgst without sending it:
// the policy allows it, or a namespace that lends its content holds it.
func (v *view) mayTakeOver(ctx context.Context, dgst digest.Digest) (bool, error) {
	if v.db.opts.Policy == Shared {
		return true, nil
	}
	key, err := keyOf(dgst)
	if err != nil {
		return false, err
	}
	lent := false
	err = v.db.read(ctx, func(tx *bolt.Tx) error {
		lenders := tx.Bucket(bucketLenders).Cursor()
		for name, _ := lenders.First(); name != nil && !lent; name, _ = lenders.Next() {
			b := contentBucket(tx, string(name))
			lent = b != nil && b.Get(key.bytes()) != nil
		}
		return nil
	})
	return lent, err
}

// trustworthy makes sure that bytes which are in place, and which no record
// relies on yet, are right and durable. Where a namespace holds the digest
// they are: its commit saw to that.
func (db *DB) trustworthy(ctx context.Context, dgst digest.Digest) error {
	held, err := db.isHeld(ctx, dgst)
	if err != nil || held {
		return err
	}
	if err := db.verify(ctx, dgst); err != nil {
		return err
	}
	return db.blobs.Settle(ctx, []digest.Digest{dgst})
}

func (db *DB) isHeld(ctx context.Context, dgst digest.Digest) (held bool, err error) {
	key, err := keyOf(dgst)
	if err != nil {
		return false, err
	}
	err = db.readDurable(ctx, func(tx *bolt.Tx) error {
		h, err := holdersOf(tx, key.bytes())
		held = h.count > 0
		return err
	})
	return held, err
}

// verify hashes the bytes in place under dgst.
func (db *DB) verify(ctx context.Context, dgst digest.Digest) error {
	ra, err := db.blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return err
	}
	defer ra.Close()
	verifier := dgst.Verifier()
	if _, err := io.Copy(verifier, cellar.NewReader(ra)); err != nil {
		return fmt.Errorf("read content %s: %w", dgst, err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("content %s is damaged: %w", dgst, errdefs.ErrDataLoss)
	}
	return nil
}

// inPlace reports whether the bytes under dgst are those of data.
//
// Bytes that can't be read are an error unless that is damage: what is in place
// may be right, and must not be replaced by bytes that are not flushed.
func (db *DB) inPlace(ctx context.Context, dgst digest.Digest, data []byte) (bool, error) {
	ra, err := db.blobs.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if errdefs.IsNotFound(err) || errdefs.IsDataLoss(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer ra.Close()
	if ra.Size() != int64(len(data)) {
		return false, nil
	}
	got, err := io.ReadAll(cellar.NewReader(ra))
	if err != nil && !errors.Is(err, syscall.EIO) {
		return false, fserr.Wrap(err, "read content %s", dgst)
	}
	return bytes.Equal(got, data), nil
}
