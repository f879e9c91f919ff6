package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// transaction is a write transaction that a caller of [DB.Update] holds open.
type transaction struct {
	mu        sync.Mutex
	db        *DB
	tx        *bolt.Tx // nil once it is over
	broken    error
	mutations []*mutation
	after     []func()
	abandoned []func()
	released  []func()
	locks     map[digest.Digest]bool
}

type transactionKey struct{}

// transactionFrom returns the transaction that ctx carries for db, nil if none.
func transactionFrom(ctx context.Context, db *DB) *transaction {
	t, _ := ctx.Value(transactionKey{}).(*transaction)
	if t == nil || t.db != db {
		return nil
	}
	return t
}

// Update runs fn so that all that it does to the store through the context it
// is given becomes one commit: everything, durable when Update returns nil, or
// nothing of it if fn or the commit returns an error. Reads through that
// context see the changes so far.
//
// Other writers wait until fn returns, so it should be short. It must not use
// another context than its own for operations that write: those would wait for
// Update to end. A call inside fn joins the same commit. Writers opened inside
// can be committed inside; their bytes are placed before the commit and are
// garbage if it does not come about. A panic of fn undoes its changes and
// goes on.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if transactionFrom(ctx, db) != nil {
		return fn(ctx)
	}
	t := &transaction{db: db, locks: map[digest.Digest]bool{}}
	if err := t.perform(ctx, fn); err != nil {
		return err
	}
	for _, fn := range t.after {
		fn()
	}
	return nil
}

// perform calls fn inside the transaction and commits it.
func (t *transaction) perform(ctx context.Context, fn func(ctx context.Context) error) error {
	db := t.db
	if err := db.writer.take(ctx); err != nil {
		return err
	}
	defer db.writer.Unlock()
	if err := errors.Join(db.shut(), db.alive()); err != nil {
		return err
	}
	tx, err := db.begin()
	if err != nil {
		return err
	}
	t.tx = tx
	defer t.end()
	if err := fn(context.WithValue(ctx, transactionKey{}, t)); err != nil {
		return err
	}
	return t.commit()
}

func (t *transaction) commit() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	if err := t.db.commit(t.tx); err != nil {
		return err
	}
	for _, m := range t.mutations {
		t.db.finish(m)
	}
	t.abandoned = nil
	return nil
}

// end undoes what was not committed and lets go of the digests.
func (t *transaction) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.db.rollback(t.tx)
	t.tx = nil
	for _, fn := range t.abandoned {
		fn()
	}
	for _, release := range t.released {
		release()
	}
}

// run does a mutation inside the transaction.
func (t *transaction) run(m *mutation) error {
	return t.use(func(tx *bolt.Tx) error {
		if err := m.verify(tx); err != nil {
			return err
		}
		if m.abandoned != nil {
			t.abandoned = append(t.abandoned, m.abandoned)
		}
		if m.apply != nil {
			if err := m.apply(tx); err != nil {
				t.broken = t.db.translate(err)
				return t.broken
			}
		}
		t.mutations = append(t.mutations, m)
		if m.after != nil {
			t.after = append(t.after, m.after)
		}
		return nil
	})
}

// use calls fn with the bolt transaction, one caller at a time.
func (t *transaction) use(fn func(tx *bolt.Tx) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tx == nil {
		return fmt.Errorf("context of a transaction that is over: %w", errdefs.ErrFailedPrecondition)
	}
	if t.broken != nil {
		return t.broken
	}
	err := t.db.guard(func() error { return fn(t.tx) })
	if damage := (*damageError)(nil); errors.As(err, &damage) {
		t.broken = err // it may have changed something before it met the page
	}
	return err
}

// hold keeps dgst's lock shared until the transaction is over.
func (t *transaction) hold(ctx context.Context, dgst digest.Digest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.locks[dgst] {
		return nil
	}
	release, err := t.db.digests.share(ctx, dgst)
	if err != nil {
		return err
	}
	t.locks[dgst] = true
	t.released = append(t.released, release)
	return nil
}

// holdDigest keeps bytes under dgst from being removed until the returned
// function is called, or until the transaction in ctx is over.
func (db *DB) holdDigest(ctx context.Context, dgst digest.Digest) (release func(), err error) {
	if t := transactionFrom(ctx, db); t != nil {
		return func() {}, t.hold(ctx, dgst)
	}
	return db.digests.share(ctx, dgst)
}

// readDurable is read for decisions that must not rest on a transaction which
// may yet be lost: bolt shows one as soon as it is written, before it is
// flushed.
func (db *DB) readDurable(ctx context.Context, fn func(tx *bolt.Tx) error) error {
	if transactionFrom(ctx, db) != nil {
		return db.read(ctx, fn)
	}
	early := false
	err := db.read(ctx, func(tx *bolt.Tx) error {
		if early = uint64(tx.ID()) > db.durable.Load(); early {
			return nil
		}
		return fn(tx)
	})
	if err != nil || !early {
		return err
	}
	// Between two transactions, what there is to see has been flushed.
	if err := db.writer.take(ctx); err != nil {
		return err
	}
	defer db.writer.Unlock()
	if err := db.shut(); err != nil {
		return err
	}
	return db.read(ctx, fn)
}

// awaitTransaction returns when the write transaction that is under way, if
// there is one, is over, and durable.
func (db *DB) awaitTransaction(ctx context.Context) error {
	if err := db.writer.take(ctx); err != nil {
		return err
	}
	defer db.writer.Unlock()
	return db.shut()
}

// read runs fn in a read transaction, or in the caller's own transaction where
// ctx carries one.
func (db *DB) read(ctx context.Context, fn func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t := transactionFrom(ctx, db); t != nil {
		return t.use(fn)
	}
	return db.guard(func() error {
		tx, err := db.bolt.Begin(false)
		if err != nil {
			return db.translate(err)
		}
		defer tx.Rollback()
		return fn(tx)
	})
}
