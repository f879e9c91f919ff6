package metadata

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Limits that tests have to reach.
const (
	SmallBlob       = smallBlob
	BackgroundDelay = backgroundDelay
	SettleDelay     = settleDelay
	SchemaVersion   = schemaVersion
	StagingLimit    = stagingLimit
)

// Mutation is what a test puts into the write queue by hand.
type Mutation struct {
	Check, Apply func(tx *bolt.Tx) error
	Committed    func()
}

// Mutate queues m and waits for it.
func (db *DB) Mutate(ctx context.Context, m Mutation) error {
	return db.mutate(ctx, &mutation{check: m.Check, apply: m.Apply, committed: m.Committed})
}

// MutateLater queues m in the background.
func (db *DB) MutateLater(m Mutation) {
	db.mutateLater(&mutation{check: m.Check, apply: m.Apply, committed: m.Committed})
}

// SetCrashpoint sets the function that is asked at each point of the commit
// protocol. It must be called before there are writers.
func (db *DB) SetCrashpoint(fn func(point string) error) {
	db.writer.Lock()
	defer db.writer.Unlock()
	db.crashpoint = fn
}

// HoldWriter keeps every write transaction from beginning, so that mutations
// gather, until the result is called.
func (db *DB) HoldWriter() (release func()) {
	db.writer.Lock()
	return db.writer.Unlock
}

// Gathered returns how many mutations wait in the queue.
func (db *DB) Gathered() int {
	db.queue.mu.Lock()
	defer db.queue.mu.Unlock()
	return len(db.queue.items)
}

// Abandon copies the database to path as a killed process leaves it, and makes
// sure that this one does not go on.
func (db *DB) Abandon(path string) error {
	db.writer.Lock()
	defer db.writer.Unlock()
	_ = db.condemn(errors.New("the process was killed by a test"))
	from, err := os.Open(db.path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// Settle flushes what is staged now.
func (db *DB) Settle(ctx context.Context) error { return db.settle(ctx) }

// Staged returns the digests whose bytes are in the database, with their
// sequence numbers.
func (db *DB) Staged() map[digest.Digest]uint64 {
	staged := map[digest.Digest]uint64{}
	err := db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStaged).ForEach(func(key, value []byte) error {
			dgst, err := parseDigestKey(key)
			if err != nil {
				return err
			}
			seq, _, err := decodeStaged(value)
			staged[dgst] = seq
			return err
		})
	})
	if err != nil {
		panic(err)
	}
	return staged
}

// StagedBytes returns how much the database believes to be staged.
func (db *DB) StagedBytes() int {
	db.staging.mu.Lock()
	defer db.staging.mu.Unlock()
	return db.staging.bytes
}

// FillStaging makes the database believe that n bytes more are staged.
func (db *DB) FillStaging(n int) {
	db.staging.mu.Lock()
	defer db.staging.mu.Unlock()
	db.staging.bytes += n
}

// Unheld returns how many digests wait for a collection.
func (db *DB) Unheld() (n int) {
	_ = db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketUnheld).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	return n
}

// PutRaw writes a value into a bucket past all rules.
func (db *DB) PutRaw(bucket string, key, value []byte) error {
	return db.bolt.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put(key, value)
	})
}

// GetRaw reads a value past all rules.
func (db *DB) GetRaw(bucket string, key []byte) (value []byte) {
	_ = db.bolt.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte(bucket)); b != nil {
			value = append(value, b.Get(key)...)
		}
		return nil
	})
	return value
}

// KeyOf returns the key of a digest.
func KeyOf(dgst digest.Digest) []byte {
	key, err := newDigestKey(dgst)
	if err != nil {
		panic(err)
	}
	return key.bytes()
}

// CloseFile takes the database's file away from it.
func (db *DB) CloseFile() error { return db.file.Close() }

// PutIn writes a key into a bucket within a bucket past all rules.
func (db *DB) PutIn(bucket, within string, key []byte) error {
	return db.bolt.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).Bucket([]byte(within)).Put(key, nil)
	})
}

// IsOver reports whether a collection would remove an ingestion that nobody
// has open.
func (db *DB) IsOver(ctx context.Context, ns, ref string) (bool, error) {
	e, _ := db.ingests.lookup(ingestKey{ns, ref})
	return db.isOver(ctx, e, db.now())
}
