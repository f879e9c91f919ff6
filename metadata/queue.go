package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/internal/fserr"
)

// A mutation is one operation on the database. Mutations run one after
// the other; those that gather while a transaction is being flushed share the
// next one.
type mutation struct {
	// check decides whether the mutation can be done. It changes nothing; its
	// error is the mutation's, and no other mutation notices.
	check func(tx *bolt.Tx) error
	// apply makes the changes that check has allowed. It fails only if bolt
	// does; then the whole transaction is rolled back and the others run again
	// without this one. Both functions may therefore be called more than once.
	apply func(tx *bolt.Tx) error
	// committed, if set, is called after the transaction is durable and before
	// the next one begins.
	committed func()
	// after, if set, is called once the mutation is durable, in the goroutine
	// that asked for it and while no lock of the queue is held.
	after func()
	// failed, if set, is called once if the mutation does not come about.
	failed func()
	// abandoned, if set, is called each time that the mutation was applied in a
	// transaction which did not come about.
	abandoned func()

	// background mutations are waited for by nobody: they go with the next
	// transaction, or after backgroundDelay without one.
	background bool
	queued     time.Time

	// deletions and freed say what the mutation removed: how many things that
	// may leave garbage, and how many bytes of content. The collector's own
	// mutations count as none.
	deletions int
	freed     int64
	collector bool
	// events are told to the caller's function once the mutation is durable.
	events []Event
	// expires is when something ends that the mutation began, zero if nothing
	// does.
	expires time.Time

	err   error
	state mutationState
	done  chan struct{}
}

type mutationState int

const (
	waiting mutationState = iota
	taken                 // by the committer; can no longer be withdrawn
	withdrawn
)

const (
	// maxBatch bounds how many mutations share a transaction.
	maxBatch = 1024
	// backgroundDelay is how long a background mutation waits for company.
	backgroundDelay = time.Second
)

// writeQueue stands in front of bolt's single writer.
type writeQueue struct {
	mu     sync.Mutex
	wake   chan struct{}
	items  []*mutation
	urgent int  // mutations in items that somebody waits for
	busy   bool // a batch was taken and is not done
	closed bool
	ended  chan struct{}
}

// mutate runs m and returns when it is durable. Inside [DB.Update] it joins the
// caller's transaction and returns when it is applied.
func (db *DB) mutate(ctx context.Context, m *mutation) (err error) {
	defer func() {
		if err != nil && m.failed != nil {
			m.failed()
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	if t := transactionFrom(ctx, db); t != nil {
		return t.run(m)
	}
	m.done = make(chan struct{})
	if err := db.enqueue(m); err != nil {
		return err
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		if db.withdraw(m) {
			return ctx.Err()
		}
		<-m.done
	}
	if m.err == nil && m.after != nil {
		m.after()
	}
	return m.err
}

// mutateLater queues m without waiting. Its failure is reported to nobody, so
// it must be for something that the store can do without.
func (db *DB) mutateLater(m *mutation) {
	m.background = true
	m.done = make(chan struct{})
	if err := db.enqueue(m); err != nil {
		db.dropped(m, err)
	}
}

// dropped is called for a background mutation that did not come about.
func (db *DB) dropped(m *mutation, err error) {
	db.log.Debug("background change dropped", "error", err)
	if m.failed != nil {
		m.failed()
	}
}

// flush returns once every mutation that was queued before is done, so that a
// read sees what background mutations were to write. Inside [DB.Update] those
// have to wait for its end, and flush does nothing; nor does it in a handle
// that is shut, where they never come about.
func (db *DB) flush(ctx context.Context) error {
	db.queue.mu.Lock()
	idle := len(db.queue.items) == 0 && !db.queue.busy
	db.queue.mu.Unlock()
	if idle || db.shut() != nil {
		return ctx.Err()
	}
	return db.mutate(ctx, &mutation{})
}

func (db *DB) enqueue(m *mutation) error {
	if err := db.shut(); err != nil {
		return err
	}
	q := &db.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return db.errClosed()
	}
	m.queued = time.Now()
	q.items = append(q.items, m)
	if !m.background {
		q.urgent++
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// withdraw takes m out of the queue unless the committer has it already.
func (db *DB) withdraw(m *mutation) bool {
	q := &db.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.state != waiting {
		return false
	}
	m.state = withdrawn
	q.urgent--
	return true
}

// take returns the next batch, or how long to wait for one.
func (q *writeQueue) take() (batch []*mutation, wait time.Duration, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, time.Hour, q.closed
	}
	if q.urgent == 0 && !q.closed {
		if wait := backgroundDelay - time.Since(q.items[0].queued); wait > 0 {
			return nil, wait, false
		}
	}
	n := min(len(q.items), maxBatch)
	for _, m := range q.items[:n] {
		if m.state == withdrawn {
			continue
		}
		m.state = taken
		if !m.background {
			q.urgent--
		}
		batch = append(batch, m)
	}
	q.items = append([]*mutation(nil), q.items[n:]...)
	q.busy = len(batch) > 0
	return batch, 0, false
}

// done says that the batch that was taken is over.
func (q *writeQueue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
}

// commitLoop is the one goroutine that commits queued mutations.
func (db *DB) commitLoop() {
	defer close(db.queue.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, wait, closed := db.queue.take()
		if len(batch) > 0 {
			db.commitBatch(batch)
			continue
		}
		if closed {
			return
		}
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-db.queue.wake:
			case <-timer.C:
			}
		}
	}
}

// commitBatch runs the batch in one transaction, leaving out those that fail,
// and tells each how it ended.
func (db *DB) commitBatch(batch []*mutation) {
	db.writer.Lock()
	defer db.writer.Unlock()
	for len(batch) > 0 {
		done, culprit, err := db.tryBatch(batch)
		if culprit == nil {
			for _, m := range done {
				if err == nil && m.err == nil {
					db.finish(m)
				}
				if m.err == nil {
					m.err = err
				}
			}
			db.queue.done() // whoever is answered finds the queue at rest
			for _, m := range done {
				db.answer(m)
			}
			return
		}
		culprit.err = err
		db.answer(culprit)
		batch = without(batch, culprit)
	}
	db.queue.done()
}

// answer tells a mutation's caller, if it has one, how it ended.
func (db *DB) answer(m *mutation) {
	if m.background && m.err != nil {
		db.dropped(m, m.err)
	}
	close(m.done)
}

// tryBatch runs one transaction. If a mutation breaks it, that one is named
// and nothing has happened; otherwise err is the outcome of the commit, which
// counts for all that passed their check.
func (db *DB) tryBatch(batch []*mutation) (done []*mutation, culprit *mutation, err error) {
	if err := db.shut(); err != nil {
		return batch, nil, err
	}
	tx, err := db.begin()
	if err != nil {
		return batch, nil, err
	}
	defer db.rollback(tx)
	var applied []*mutation
	for _, m := range batch {
		if m.err = db.guard(func() error { return m.verify(tx) }); m.err != nil || m.apply == nil {
			continue
		}
		applied = append(applied, m)
		if err := db.guard(func() error { return m.apply(tx) }); err != nil {
			abandon(applied)
			return nil, m, db.translate(err)
		}
	}
	if len(applied) == 0 {
		return batch, nil, nil
	}
	if err = db.commit(tx); err != nil {
		abandon(applied)
	}
	return batch, nil, err
}

// abandon tells mutations that their transaction did not come about.
func abandon(applied []*mutation) {
	for _, m := range applied {
		if m.abandoned != nil {
			m.abandoned()
		}
	}
}

// finish does what is due once a mutation is durable.
func (db *DB) finish(m *mutation) {
	if m.committed != nil {
		m.committed()
	}
	db.events.emit(m.events...)
	if m.apply != nil && !m.collector {
		db.expiry.advance(m.expires)
		db.activity.add(m)
	}
}

func (m *mutation) verify(tx *bolt.Tx) error {
	if m.check == nil {
		return nil
	}
	return m.check(tx)
}

func without(batch []*mutation, m *mutation) []*mutation {
	rest := make([]*mutation, 0, len(batch)-1)
	for _, other := range batch {
		if other != m {
			rest = append(rest, other)
		}
	}
	return rest
}

// begin starts a write transaction. The caller holds db.writer.
func (db *DB) begin() (tx *bolt.Tx, err error) {
	err = db.guard(func() error {
		tx, err = db.bolt.Begin(true)
		return db.translate(err)
	})
	return tx, err
}

// rollback undoes a write transaction; after a commit it does nothing. If bolt
// can't do that, it keeps its locks, and the handle is shut.
func (db *DB) rollback(tx *bolt.Tx) {
	err := db.guard(tx.Rollback)
	if damage := (*damageError)(nil); errors.As(err, &damage) {
		db.panicked.Store(true)
		_ = db.condemn(err)
	}
}

// commit ends a write transaction. Once a flush has failed nobody knows what
// the disk has: bolt's memory map shows pages that the medium may lack, and
// the next transaction would build on them. So the handle takes no further
// writes until the database is opened anew (property T4).
func (db *DB) commit(tx *bolt.Tx) error {
	if err := db.crash("before commit"); err != nil {
		return db.condemn(err)
	}
	db.wrote = true
	id := uint64(tx.ID())
	if err := db.guard(tx.Commit); err != nil {
		if damage := (*damageError)(nil); errors.As(err, &damage) {
			db.panicked.Store(true)
		}
		if err = restoreCause(err); refusedSpace(err) {
			return fserr.Wrap(err, "write %s", db.path)
		}
		return db.condemn(err)
	}
	if err := db.crash("after commit"); err != nil {
		return db.condemn(err)
	}
	db.durable.Store(id)
	return nil
}

// refusedSpace reports whether a commit failed because there is no room for
// more pages. Nothing was flushed then and the old state stands, so that the
// store can go on as soon as there is room.
func refusedSpace(err error) bool {
	var refused *fs.PathError
	if !errors.As(err, &refused) || refused.Op != "write" && refused.Op != "truncate" {
		return false
	}
	return slices.ContainsFunc(noSpace, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

var noSpace = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}

// restoreCause gives the error of a file that could not be made longer its
// cause back: bolt passes on the text alone.
func restoreCause(err error) error {
	if !strings.HasPrefix(err.Error(), "file resize error: ") {
		return err
	}
	for _, errno := range noSpace {
		if strings.HasSuffix(err.Error(), errno.Error()) {
			return &fs.PathError{Op: "truncate", Path: "database", Err: errno}
		}
	}
	return err
}

// condemn shuts the handle and returns the error that says so.
func (db *DB) condemn(cause error) error {
	err := fmt.Errorf("metadata %s: a write failed, reopen the store: %w: %w", db.path, errdefs.ErrUnavailable, cause)
	db.condemned.CompareAndSwap(nil, &err)
	return *db.condemned.Load()
}

// shut returns why no writes are taken, nil if they are.
func (db *DB) shut() error {
	if err := db.condemned.Load(); err != nil {
		return *err
	}
	return nil
}
