package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// Small blobs are durable before their files are: their bytes are in the
// transaction that writes the record, and stay in the database until the file
// is known to be on disk. docs/crash.md has the argument.

const (
	// settleBytes and settleCount say how much may gather before files are
	// flushed, settleDelay how long.
	settleBytes = 4 << 20
	settleCount = 1024
	settleDelay = 3 * time.Second
	// stagingLimit is when small blobs take the way of large ones, because
	// flushing does not keep up.
	stagingLimit = 4 * settleBytes
)

// staging knows which blobs the database still answers for.
type staging struct {
	mu    sync.Mutex
	blobs map[digest.Digest]stagedBlob
	bytes int

	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}
}

// stagedBlob is one entry of the bucket of staged blobs. A blob that is staged
// again gets a higher sequence, so that flushing the file that was there before
// does not count for the one that is there now.
type stagedBlob struct {
	seq  uint64
	size int
}

// stage puts the bytes of a blob into the transaction.
func stage(tx *bolt.Tx, key, data []byte) (seq uint64, err error) {
	b := tx.Bucket(bucketStaged)
	if seq, err = b.NextSequence(); err != nil {
		return 0, err
	}
	value := make([]byte, 0, binary.MaxVarintLen64+len(data))
	return seq, b.Put(key, append(binary.AppendUvarint(value, seq), data...))
}

// unstage takes the blob of key out of the transaction if its sequence is
// still seq.
func unstage(tx *bolt.Tx, key []byte, seq uint64) error {
	b := tx.Bucket(bucketStaged)
	if got, _, err := decodeStaged(b.Get(key)); err != nil || got != seq {
		return nil //nolint:nilerr // a damaged entry is left for Check
	}
	return b.Delete(key)
}

func decodeStaged(value []byte) (seq uint64, data []byte, err error) {
	seq, n := binary.Uvarint(value)
	if n <= 0 {
		return 0, nil, fmt.Errorf("staged blob of %d bytes: %w", len(value), errdefs.ErrDataLoss)
	}
	return seq, value[n:], nil
}

// add notes a blob whose bytes are durable in the database.
func (s *staging) add(dgst digest.Digest, seq uint64, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[digest.Digest]stagedBlob{}
	}
	s.bytes += size - s.blobs[dgst].size
	s.blobs[dgst] = stagedBlob{seq: seq, size: size}
	if s.bytes >= settleBytes || len(s.blobs) >= settleCount || len(s.blobs) == 1 {
		s.signal()
	}
}

func (s *staging) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// remove forgets blobs that are no longer staged with that sequence.
func (s *staging) remove(gone map[digest.Digest]stagedBlob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for dgst, b := range gone {
		if s.blobs[dgst].seq == b.seq {
			s.bytes -= b.size
			delete(s.blobs, dgst)
		}
	}
}

func (s *staging) snapshot() map[digest.Digest]stagedBlob {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[digest.Digest]stagedBlob, len(s.blobs))
	for dgst, b := range s.blobs {
		all[dgst] = b
	}
	return all
}

// full reports whether no more blobs should be staged.
func (s *staging) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes >= stagingLimit
}

// due says whether it is time to settle.
func (s *staging) due() (now, later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes >= settleBytes || len(s.blobs) >= settleCount, len(s.blobs) > 0
}

// start begins to settle blobs in the background.
func (s *staging) start(db *DB) {
	s.wake, s.quit, s.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	if _, later := s.due(); later {
		s.signal()
	}
	go s.loop(db)
}

// stop ends the background work and settles what is left.
func (s *staging) stop(db *DB) error {
	close(s.quit)
	<-s.ended
	if db.shut() != nil {
		return nil // the next Open goes on from what is durable
	}
	return db.settle(context.Background())
}

func (s *staging) loop(db *DB) {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.wake:
			if now, later := s.due(); !now {
				if later {
					timer.Reset(settleDelay)
				}
				continue
			}
		case <-timer.C:
		}
		if err := db.settle(context.Background()); err != nil {
			db.log.Warn("settle staged blobs", "error", err)
		}
		if _, later := s.due(); later { // what failed, and what came meanwhile
			timer.Reset(settleDelay)
		}
	}
}

// settle flushes the files of staged blobs and takes those out of the database
// that are on disk now. A file that could not be flushed is written anew from
// the database and stays staged.
//
// A digest that a commit is using waits for the next time: the commit may have
// looked before the blob was held, and then puts a file in its place that is not
// flushed, and that only its own transaction would vouch for.
func (db *DB) settle(ctx context.Context) error {
	settled := db.staging.snapshot()
	dgsts := make([]digest.Digest, 0, len(settled))
	for dgst := range settled {
		if db.digests.inUse(dgst) {
			delete(settled, dgst)
			continue
		}
		dgsts = append(dgsts, dgst)
	}
	if len(dgsts) == 0 {
		return nil
	}
	err := db.blobs.Settle(ctx, dgsts)
	failed := settleErrors(err)
	if err != nil && len(failed) == 0 {
		return err
	}
	var errs []error
	for _, f := range failed {
		delete(settled, f.Digest)
		held, err := db.placeAgain(ctx, f.Digest)
		if held || err != nil {
			errs = append(errs, f, err)
		}
	}
	return errors.Join(append(errs, db.unstageAll(ctx, settled))...)
}

// settleErrors finds the SettleErrors in a tree of errors.
func settleErrors(err error) []*cellar.SettleError {
	switch e := err.(type) {
	case nil:
		return nil
	case *cellar.SettleError:
		return []*cellar.SettleError{e}
	case interface{ Unwrap() []error }:
		var all []*cellar.SettleError
		for _, part := range e.Unwrap() {
			all = append(all, settleErrors(part)...)
		}
		return all
	case interface{ Unwrap() error }:
		return settleErrors(e.Unwrap())
	}
	return nil
}

// placeAgain writes the file of a staged blob anew, unless nobody holds it any
// more: then the file may have been collected, and its entry goes with the next
// collection. It reports whether somebody does.
func (db *DB) placeAgain(ctx context.Context, dgst digest.Digest) (held bool, err error) {
	key, err := keyOf(dgst)
	if err != nil {
		return false, err
	}
	release, err := db.holdDigest(ctx, dgst)
	if err != nil {
		return false, err
	}
	defer release()
	var data []byte
	err = db.read(ctx, func(tx *bolt.Tx) error {
		h, err := holdersOf(tx, key.bytes())
		if err != nil || h.count == 0 {
			return err
		}
		held = true
		if value := tx.Bucket(bucketStaged).Get(key.bytes()); value != nil {
			_, _, data, err = checkStaged(key.bytes(), value)
			data = append([]byte{}, data...)
		}
		return err
	})
	if err != nil || data == nil {
		return held, err
	}
	return held, db.blobs.Place(ctx, dgst, data)
}

func (db *DB) unstageAll(ctx context.Context, settled map[digest.Digest]stagedBlob) error {
	if len(settled) == 0 {
		return nil
	}
	return db.mutate(ctx, &mutation{
		collector: true,
		apply: func(tx *bolt.Tx) error {
			for dgst, b := range settled {
				key, err := keyOf(dgst)
				if err != nil {
					return err
				}
				if err := unstage(tx, key.bytes(), b.seq); err != nil {
					return err
				}
			}
			return nil
		},
		committed: func() { db.staging.remove(settled) },
	})
}

// replayStaged puts the files of staged blobs right after a crash, which may
// have left anything under their digests. They stay staged until they are
// flushed. A damaged entry is left for Check: the file may be right.
func (db *DB) replayStaged(ctx context.Context) error {
	held := map[digest.Digest][]byte{}
	err := db.read(ctx, func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStaged).ForEach(func(key, value []byte) error {
			dgst, seq, data, err := checkStaged(key, value)
			if err != nil {
				db.log.Warn("staged blob", "digest", dgst, "error", err)
				return nil
			}
			db.staging.restore(dgst, seq, len(data))
			if h, err := holdersOf(tx, key); err != nil || h.count > 0 {
				held[dgst] = append([]byte{}, data...)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for dgst, data := range held {
		same, err := db.inPlace(ctx, dgst, data)
		if err == nil && !same {
			err = db.blobs.Place(ctx, dgst, data)
		}
		if err != nil {
			return fmt.Errorf("put small content in place: %w", err)
		}
	}
	return nil
}

// checkStaged decodes a staged blob and compares it with its digest: what is
// wrong in the database must not replace what may be right in the file.
func checkStaged(key, value []byte) (dgst digest.Digest, seq uint64, data []byte, err error) {
	if dgst, err = parseDigestKey(key); err != nil {
		return "", 0, nil, err
	}
	if seq, data, err = decodeStaged(value); err != nil {
		return dgst, 0, nil, err
	}
	if dgst.Algorithm().FromBytes(data) != dgst {
		return dgst, seq, nil, fmt.Errorf("staged bytes of %s are damaged: %w", dgst, errdefs.ErrDataLoss)
	}
	return dgst, seq, data, nil
}

// restore is add for what is found when the database is opened.
func (s *staging) restore(dgst digest.Digest, seq uint64, size int) {
	if s.blobs == nil {
		s.blobs = map[digest.Digest]stagedBlob{}
	}
	s.blobs[dgst] = stagedBlob{seq: seq, size: size}
	s.bytes += size
}
