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

// countHolders returns how many namespaces hold the digest of key.
func countHolders(tx *bolt.Tx, key []byte) (uint64, error) {
	value := tx.Bucket(bucketHolders).Get(key)
	if value == nil {
		return 0, nil
	}
	count, n := binary.Uvarint(value)
	if n != len(value) || count == 0 {
		return 0, fmt.Errorf("holders of %x are %x: %w", key, value, errdefs.ErrDataLoss)
	}
	return count, nil
}

func addHolder(tx *bolt.Tx, key []byte) error {
	count, err := countHolders(tx, key)
	if err != nil {
		return err
	}
	if count == 0 {
		if err := tx.Bucket(bucketUnheld).Delete(key); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketHolders).Put(key, binary.AppendUvarint(nil, count+1))
}

func dropHolder(tx *bolt.Tx, key []byte) error {
	count, err := countHolders(tx, key)
	if err != nil {
		return err
	}
	if count > 1 {
		return tx.Bucket(bucketHolders).Put(key, binary.AppendUvarint(nil, count-1))
	}
	if err := tx.Bucket(bucketHolders).Delete(key); err != nil {
		return err
	}
	return tx.Bucket(bucketUnheld).Put(key, nil)
}
