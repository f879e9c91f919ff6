package metadata

import (
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// PutChain writes records each of which refers to the next.
func (db *DB) PutChain(ns string, ids []digest.Digest) error {
	return db.bolt.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(contentPrefix + ns))
		if err != nil {
			return err
		}
		for i, id := range ids {
			r := contentRecord{size: 1}
			if i+1 < len(ids) {
				r.labels = map[string]string{"containerd.io/gc.ref.content": ids[i+1].String()}
			}
			key, _ := newDigestKey(id)
			if err := b.Put(key.bytes(), r.encode()); err != nil {
				return err
			}
			if err := addHolder(tx, key.bytes(), 1); err != nil {
				return err
			}
		}
		return nil
	})
}
