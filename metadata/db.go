package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/fserr"
)

// Policy says when a namespace may take over content that another one holds
// without sending its bytes.
type Policy int

const (
	// Isolated is the default: a namespace gets content only by sending all
	// its bytes, which proves that it has them, or from a namespace whose label
	// containerd.io/namespace.shareable is "true" and that holds the content.
	// The bytes are stored once all the same.
	Isolated Policy = iota
	// Shared lets every namespace take over whatever the raw store has, by
	// naming its digest. Knowing a digest is then as good as having the bytes.
	Shared
)

// Options configures a database. The zero value is a good choice.
type Options struct {
	// Policy is Isolated by default.
	Policy Policy
	// Now tells the time, by default time.Now.
	Now func() time.Time
	// IngestExpiry is how long an ingestion that nobody has open is kept
	// before a collection removes it, by default 24 hours.
	IngestExpiry time.Duration
	// Grace is how long content is kept without anything that refers to it,
	// counted from when it was written, or found to be there by a Writer; by
	// default 10 minutes. A negative one keeps none: then only a
	// lease protects new content, as in containerd.
	Grace time.Duration
	// LockTimeout is how long Open waits for another process to let go of the
	// database, by default one second.
	LockTimeout time.Duration
	// OnEvent, if set, is called for each event, one at a time and in the order
	// in which they came about. It runs in a goroutine of its own, outside any
	// transaction and lock, so it may call the store; while it is slow, events
	// queue up in memory. Close returns after the last one.
	OnEvent func(Event)
	// Logger is told of what can't be returned to a caller: failures in the
	// background, damage that was survived. By default nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Policy != Isolated && o.Policy != Shared:
		return o, fmt.Errorf("policy %d: %w", o.Policy, errdefs.ErrInvalidArgument)
	case o.IngestExpiry < 0 || o.LockTimeout < 0:
		return o, fmt.Errorf("negative duration in metadata.Options: %w", errdefs.ErrInvalidArgument)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IngestExpiry == 0 {
		o.IngestExpiry = 24 * time.Hour
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Minute
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// DB is an open database over a raw store. All its methods may be called
// concurrently.
type DB struct {
	path  string
	opts  Options
	log   *slog.Logger
	blobs cellar.RawStore

	bolt *bolt.DB
	file *os.File // the one that bolt has open

	// writer is held around every write transaction: by the commit loop, and
	// by Update while its function runs.
	writer    turn
	wrote     bool // whether there was a transaction, guarded by writer
	queue     writeQueue
	condemned atomic.Pointer[error]
	closed    atomic.Bool
	// closing ends when Close is called, and with it what it does not wait for.
	closing  context.Context
	stopWork context.CancelFunc
	// durable is the id of the last transaction that is known to be on disk.
	durable  atomic.Uint64
	panicked atomic.Bool // bolt may hold its locks for ever

	digests digestLocks
	ingests ingestTable
	staging staging
	sweep   sweepState
	barrier barrier
	used    usedContent

	activity activity
	events   events
	expiry   expiry

	deletions deletions

	// crashpoint, if a test sets it, may stop the commit protocol at a named
	// place as a crash would.
	crashpoint func(point string) error
}

// Open opens the database at path over the raw store blobs, and creates it
// where there is none, durably and under its name only when it is whole. What
// a crash left half-done is put right before Open returns.
//
// One DB at a time can have a database, in this process or another: a second
// one gets Unavailable, naming the holder, after Options.LockTimeout. A
// database of a newer version, or of another program, is FailedPrecondition; a
// damaged one DataLoss, and it is not changed. The caller closes the DB, and
// then the raw store.
func Open(path string, blobs cellar.Store, opts Options) (*DB, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	db := &DB{path: path, opts: opts, log: opts.Logger, blobs: rawStore(blobs), writer: newTurn()}
	db.closing, db.stopWork = context.WithCancel(context.Background())
	if err := db.openBolt(); err != nil {
		return nil, err
	}
	db.sweep.turn = newTurn()
	db.queue.wake = make(chan struct{}, 1)
	db.queue.ended = make(chan struct{})
	if err := db.recover(context.Background()); err != nil {
		_ = db.closeBolt()
		return nil, fmt.Errorf("recover metadata %s: %w", path, err)
	}
	db.events.start(opts.OnEvent)
	go db.commitLoop()
	db.staging.start(db)
	return db, nil
}

// recover makes the in-memory state from the database and the raw store.
func (db *DB) recover(ctx context.Context) error {
	if err := db.replayStaged(ctx); err != nil {
		return err
	}
	return db.loadIngests(ctx)
}

// Close leaves open ingestions to be resumed, makes everything durable that
// was not waited for, and releases the database. Writers and readers obtained
// from it must not be used afterwards; every operation fails with
// FailedPrecondition. Closing twice is no error. The raw store stays open.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	db.stopWork()
	db.activity.wake()
	db.sweep.turn.Lock() // a collection ends before the database does
	errs := []error{db.closeWriters()}
	errs = append(errs, db.staging.stop(db))
	db.queue.mu.Lock()
	db.queue.closed = true
	db.queue.mu.Unlock()
	select {
	case db.queue.wake <- struct{}{}:
	default:
	}
	<-db.queue.ended
	db.events.stop()
	return errors.Join(append(errs, db.closeBolt())...)
}

func (db *DB) closeBolt() error {
	if db.panicked.Load() {
		return db.file.Close()
	}
	db.writer.Lock()
	defer db.writer.Unlock()
	return errors.Join(db.storeFreelist(), db.translate(db.bolt.Close()))
}

// storeFreelist writes bolt's list of free pages, so that the next Open need
// not read the whole database to find them. Transactions leave it out, since
// each would write all of it.
func (db *DB) storeFreelist() error {
	if !db.wrote || db.shut() != nil {
		return nil
	}
	db.bolt.NoFreelistSync = false
	tx, err := db.begin()
	if err != nil {
		return err
	}
	return db.commit(tx)
}

// alive returns FailedPrecondition once the database is closed.
func (db *DB) alive() error {
	if db.closed.Load() {
		return db.errClosed()
	}
	return nil
}

func (db *DB) errClosed() error {
	return fmt.Errorf("metadata %s is closed: %w: %w", db.path, errdefs.ErrFailedPrecondition, os.ErrClosed)
}

func (db *DB) now() time.Time { return db.opts.Now().UTC() }

// translate gives errors of bolt and of the system their class. It is the one
// place where bolt's errors are known.
func (db *DB) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return db.errClosed()
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrInvalidMapping):
		return fmt.Errorf("metadata %s is damaged: %w: %w", db.path, errdefs.ErrDataLoss, err)
	}
	return fserr.Wrap(err, "metadata %s", db.path)
}

// guard runs fn, which reads or writes pages of the database, and turns a
// panic or memory fault on a damaged page into DataLoss. No caller's function
// runs inside.
func (db *DB) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db.log.Error("damaged page", "database", db.path, "panic", p, "stack", string(debug.Stack()))
			err = &damageError{path: db.path, what: p}
		}
	}()
	return fn()
}

// damageError is a panic of bolt's on a page that makes no sense.
type damageError struct {
	path string
	what any
}

func (e *damageError) Error() string {
	return fmt.Sprintf("metadata %s is damaged: %v: %v", e.path, e.what, errdefs.ErrDataLoss)
}

func (e *damageError) Unwrap() error { return errdefs.ErrDataLoss }

// crash is where a test can stop the commit protocol.
func (db *DB) crash(point string) error {
	if db.crashpoint == nil {
		return nil
	}
	return db.crashpoint(point)
}
