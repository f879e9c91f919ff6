package metadata

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// sweepBatch is how many digests are swept between two transactions.
const sweepBatch = 256

// sweepState is what one collection leaves for the next.
type sweepState struct {
	// turn has room for the collection that runs; what is below belongs to it.
	turn turn
	// listed is whether the raw store was searched for bytes without a record
	// since the database was opened. Before that, a crash of any process may
	// have left some; afterwards this process knows of its own.
	listed bool
	rest   rest

	mu       sync.Mutex
	suspects map[digest.Digest]struct{}
}

// suspect notes bytes that may have no record.
func (s *sweepState) suspect(dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspects == nil {
		s.suspects = map[digest.Digest]struct{}{}
	}
	s.suspects[dgst] = struct{}{}
}

func (s *sweepState) forget(dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.suspects, dgst)
}

func (s *sweepState) allSuspects() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]digest.Digest, 0, len(s.suspects))
	for dgst := range s.suspects {
		all = append(all, dgst)
	}
	return all
}

func (s *sweepState) hasSuspects() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.suspects) > 0
}

// sweepAll removes bytes that no record names, and ingestions of the raw store
// that nobody knows.
func (c *collection) sweepAll(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		c.removeStrayIngests, c.findOrphans, c.sweepSuspects, c.sweepUnheld,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hearRawStore takes note of content that was committed in the raw store by
// others than this database.
func (c *collection) hearRawStore() {
	for _, dgst := range c.db.blobs.Committed() {
		c.db.sweep.suspect(dgst)
	}
}

// expire drops e unless somebody has opened it meanwhile.
func (db *DB) expire(ctx context.Context, e *ingest) (removed bool, err error) {
	holder := &writer{state: writerAborted}
	held, err := db.ingests.acquire(e.key, holder, db.now())
	if err != nil {
		return false, nil //nolint:nilerr // in use again
	}
	over := false
	if held == e {
		over, err = db.isOver(ctx, e, db.now())
	}
	if !over {
		db.ingests.release(held, holder, held == e)
		return false, err
	}
	err = db.discard(ctx, e, holder)
	return err == nil, err
}

// removeStrayIngests drops ingestions of the raw store that no entry of the
// table stands for, once they are old.
func (c *collection) removeStrayIngests(ctx context.Context) error {
	known := map[string]bool{}
	for _, e := range c.db.ingests.list(func(*ingest) bool { return true }) {
		known[e.key.rawRef()] = true
	}
	statuses, err := c.db.blobs.ListStatuses(ctx)
	if err != nil {
		c.note(err)
		return ctx.Err()
	}
	for _, status := range statuses {
		end := status.UpdatedAt.Add(c.db.opts.IngestExpiry)
		switch {
		case known[status.Ref]:
		case !c.now.After(end):
			c.next = earliest(c.next, end)
		default:
			removed, err := c.db.removeStray(ctx, status)
			if err != nil {
				c.note(fmt.Errorf("remove stray ingestion %s: %w", cellar.Shorten(status.Ref), err))
			}
			if removed {
				c.stats.Ingests++
			}
		}
	}
	return nil
}

// removeStray drops an ingestion of the raw store that had no entry in the
// table, unless it has been opened since: its ref is held while it is looked at
// again.
func (db *DB) removeStray(ctx context.Context, status cellar.Status) (removed bool, err error) {
	if key, ok := parseRawRef(status.Ref); ok {
		holder := &writer{state: writerAborted}
		e, err := db.ingests.acquire(key, holder, db.now())
		if err != nil {
			return false, nil //nolint:nilerr // in use
		}
		defer func() { db.ingests.release(e, holder, e.stored) }()
		if e.stored {
			return false, nil
		}
	}
	now, err := db.blobs.Status(ctx, status.Ref)
	if errdefs.IsNotFound(err) || err == nil && !now.UpdatedAt.Equal(status.UpdatedAt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = db.blobs.Abort(ctx, status.Ref)
	return err == nil, err
}

// findOrphans looks for bytes without a record that a crash may have left. It
// reads the names of all blobs, but once only after the database was opened,
// and no lock is held.
func (c *collection) findOrphans(ctx context.Context) error {
	if c.db.sweep.listed && stages(c.db.blobs) {
		return nil
	}
	var batch []digest.Digest
	err := c.db.blobs.Digests(ctx, func(dgst digest.Digest) error {
		if batch = append(batch, dgst); len(batch) < sweepBatch {
			return nil
		}
		err := c.db.suspectUnheld(ctx, batch)
		batch = batch[:0]
		return err
	})
	if err == nil {
		err = c.db.suspectUnheld(ctx, batch)
	}
	if c.db.sweep.listed = err == nil; !c.db.sweep.listed && ctx.Err() == nil {
		c.note(err) // what is known to be garbage can go all the same
		return nil
	}
	return err
}

// suspectUnheld notes those of dgsts that no namespace holds.
func (db *DB) suspectUnheld(ctx context.Context, dgsts []digest.Digest) error {
	return db.read(ctx, func(tx *bolt.Tx) error {
		holders, unheld := tx.Bucket(bucketHolders), tx.Bucket(bucketUnheld).Cursor()
		for _, dgst := range dgsts {
			key, err := keyOf(dgst)
			if err != nil || holders.Get(key.bytes()) != nil {
				continue
			}
			if queued, _ := unheld.Seek(key.bytes()); !bytes.Equal(queued, key.bytes()) {
				db.sweep.suspect(dgst)
			}
		}
		return nil
	})
}

// sweepSuspects removes bytes that turned out to have no record.
func (c *collection) sweepSuspects(ctx context.Context) error {
	for _, dgst := range c.db.sweep.allSuspects() {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.db.sweep.forget(dgst) // before the sweep: what is suspected after it counts
		before := c.stats.Blobs
		outcome, err := c.sweepDigest(ctx, dgst)
		if err != nil || outcome == busy {
			c.db.sweep.suspect(dgst)
			c.note(unlessOver(ctx, err))
		}
		if outcome == swept {
			c.db.digests.forgetSwept([]digest.Digest{dgst})
			c.stats.Orphans += c.stats.Blobs - before
		}
	}
	return nil
}

// sweepUnheld works off the bucket of digests that lost their last holder. A
// digest leaves it in a transaction after its bytes are gone; a crash between
// the two leaves an entry without bytes, which is harmless.
func (c *collection) sweepUnheld(ctx context.Context) error {
	var last []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := c.db.unheldAfter(ctx, last)
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1]
		var done []digest.Digest
		for _, key := range page {
			if ctx.Err() != nil {
				break
			}
			dgst, err := parseDigestKey(key)
			if err != nil {
				c.note(err)
				continue
			}
			switch outcome, err := c.sweepDigest(ctx, dgst); {
			case err != nil:
				c.note(unlessOver(ctx, err))
			case outcome == swept:
				done = append(done, dgst)
			default:
				c.unfinished = true // it stays in the queue
			}
		}
		if err := c.db.dequeue(ctx, done); err != nil {
			return err
		}
	}
}

// unlessOver returns err, unless it comes of ctx, whose end is reported once and
// not for each digest.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// unheldAfter returns the next keys of unheld digests.
func (db *DB) unheldAfter(ctx context.Context, last []byte) (page [][]byte, err error) {
	err = db.readDurable(ctx, func(tx *bolt.Tx) error {
		page = nil
		cursor := tx.Bucket(bucketUnheld).Cursor()
		for key, _ := seekAfter(cursor, last); key != nil && len(page) < sweepBatch; key, _ = cursor.Next() {
			page = append(page, append([]byte(nil), key...))
		}
		return nil
	})
	return page, err
}

// seekAfter moves the cursor to the first key after last, the first of all if
// last is nil.
func seekAfter(cursor *bolt.Cursor, last []byte) (key, value []byte) {
	if last == nil {
		return cursor.First()
	}
	key, value = cursor.Seek(last)
	if string(key) == string(last) && key != nil {
		return cursor.Next()
	}
	return key, value
}

// dequeue takes digests off the bucket of unheld ones, and what is staged of
// them. A digest that somebody has taken since it was swept stays: its bytes may
// be there again, unheld again, or about to be relied on together with what is
// staged of them.
func (db *DB) dequeue(ctx context.Context, dgsts []digest.Digest) error {
	if len(dgsts) == 0 {
		return nil
	}
	defer db.digests.forgetSwept(dgsts)
	gone := map[digest.Digest]stagedBlob{}
	return db.mutate(ctx, &mutation{
		collector: true,
		apply: func(tx *bolt.Tx) error {
			clear(gone)
			for _, dgst := range dgsts {
				if !db.digests.isSwept(dgst) {
					continue // the next collection looks at it again
				}
				key, err := keyOf(dgst)
				if err != nil {
					return err
				}
				if err := tx.Bucket(bucketUnheld).Delete(key.bytes()); err != nil {
					return err
				}
				if err := dropStaged(tx, key.bytes(), gone); err != nil {
					return err
				}
			}
			return nil
		},
		committed: func() { db.staging.remove(gone) },
	})
}

// dropStaged deletes what is staged of a digest and notes it in gone.
func dropStaged(tx *bolt.Tx, key []byte, gone map[digest.Digest]stagedBlob) error {
	b := tx.Bucket(bucketStaged)
	value := b.Get(key)
	if value == nil {
		return nil
	}
	seq, data, err := decodeStaged(value)
	if err != nil {
		return b.Delete(key)
	}
	dgst, err := parseDigestKey(key)
	if err != nil {
		return err
	}
	gone[dgst] = stagedBlob{seq: seq, size: len(data)}
	return b.Delete(key)
}

// sweepOutcome is what became of a digest in a sweep.
type sweepOutcome int

const (
	swept sweepOutcome = iota // its bytes are gone
	held                      // a namespace holds it
	busy                      // a writer uses it, or an ingestion took it over
)

// sweepDigest removes the bytes of dgst if nothing needs them. Nobody can begin
// to need them between the look and the removal: a commit would have to share
// the lock.
func (c *collection) sweepDigest(ctx context.Context, dgst digest.Digest) (sweepOutcome, error) {
	release, ok := c.db.digests.tryExclude(dgst)
	if !ok || c.db.ingests.isBorrowed(dgst) {
		if ok {
			release()
		}
		return busy, nil
	}
	defer release()
	isHeld, err := c.db.isHeld(ctx, dgst)
	if err != nil {
		return busy, err
	}
	if isHeld {
		return held, nil
	}
	size, err := c.db.blobs.Remove(ctx, dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return busy, fmt.Errorf("remove bytes of %s: %w", dgst, err)
	}
	c.db.digests.markSwept(dgst)
	if err == nil {
		c.stats.Blobs++
		c.stats.Bytes += size
		c.db.events.emit(c.db.event(BlobRemoved, "", dgst, size)...)
	}
	return swept, nil
}
