package metadata

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// How many namespaces hold a digest is counted in the same transaction that
// writes or deletes a record. A digest that loses its last holder is put into
// the bucket of unheld ones, so that a collection finds garbage without
// looking at what is not.

// holders is what is known of a digest across namespaces: how many have a
// record of it, and its size, which is the same in all. It is stored as two
// uvarints. The zero value stands for a digest that nobody holds.
type holders struct {
	count uint64
	size  int64
}

func (h holders) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, h.count), uint64(h.size))
}

// holdersOf reads the holders of the digest of key.
func holdersOf(tx *bolt.Tx, key []byte) (holders, error) {
	value := tx.Bucket(bucketHolders).Get(key)
	if value == nil {
		return holders{}, nil
	}
	d := decoder{b: value}
	h := holders{count: d.uvarint(), size: d.size()}
	if err := d.finish(); err != nil || h.count == 0 {
		return holders{}, fmt.Errorf("holders of %x are %x: %w", key, value, errdefs.ErrDataLoss)
	}
	return h, nil
}

func addHolder(tx *bolt.Tx, key []byte, size int64) error {
	h, err := holdersOf(tx, key)
	if err != nil {
		return err
	}
	if h.count == 0 {
		if err := tx.Bucket(bucketUnheld).Delete(key); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketHolders).Put(key, holders{h.count + 1, size}.encode())
}

func dropHolder(tx *bolt.Tx, key []byte) error {
	h, err := holdersOf(tx, key)
	if err != nil {
		return err
	}
	if h.count > 1 {
		return tx.Bucket(bucketHolders).Put(key, holders{h.count - 1, h.size}.encode())
	}
	if err := tx.Bucket(bucketHolders).Delete(key); err != nil {
		return err
	}
	return tx.Bucket(bucketUnheld).Put(key, nil)
}
