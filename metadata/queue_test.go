package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

var bucketMeta = []byte("meta")

// putMeta returns a mutation that writes key into the database.
func putMeta(key string) metadata.Mutation {
	return metadata.Mutation{Apply: func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte(key), []byte{1})
	}}
}

// gather queues mutations while no transaction can begin, each when the one
// before it is in the queue, and returns their errors when all are done.
func (w *world) gather(ms ...metadata.Mutation) []error {
	w.Helper()
	return w.gatherWith(func() {}, ms...)
}

func (w *world) gatherWith(between func(), ms ...metadata.Mutation) []error {
	w.Helper()
	release := w.db.HoldWriter()
	// The committer takes what is there and then waits for the writer: this one.
	w.db.MutateLater(metadata.Mutation{})
	errs := make([]error, len(ms)+1)
	var wg sync.WaitGroup
	wg.Go(func() { errs[len(ms)] = w.db.Mutate(context.Background(), metadata.Mutation{}) })
	eventually(w, 10*time.Second, "the committer takes the first batch", func() bool { return w.db.Gathered() == 0 })
	for i, m := range ms {
		wg.Go(func() { errs[i] = w.db.Mutate(context.Background(), m) })
		eventually(w, 10*time.Second, "the mutation is queued", func() bool { return w.db.Gathered() == i+1 })
	}
	between()
	release()
	wg.Wait()
	require.NoError(w, errs[len(ms)])
	return errs[:len(ms)]
}

// A mutation whose check fails gets its error; the others of its batch are
// committed, in one transaction.
func TestQueueCheckFailsAlone(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("refused")
	before := w.txs.Load()
	errs := w.gather(
		putMeta("a"),
		metadata.Mutation{
			Check: func(*bolt.Tx) error { return refused },
			Apply: func(*bolt.Tx) error { panic("applied although its check failed") },
		},
		putMeta("b"),
	)
	require.Equal(t, []error{nil, refused, nil}, errs)
	require.EqualValues(t, 1, w.txs.Load()-before)
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("a")))
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("b")))
}

// A mutation that breaks in the middle leaves nothing; the others of its batch
// run again without it and are committed, each once.
func TestQueueApplyFailsAlone(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("broken")
	committed := map[string]int{}
	counting := func(key string) metadata.Mutation {
		m := putMeta(key)
		m.Committed = func() { committed[key]++ }
		return m
	}
	errs := w.gather(
		counting("a"),
		metadata.Mutation{
			Apply: func(tx *bolt.Tx) error {
				return errors.Join(tx.Bucket(bucketMeta).Put([]byte("half"), []byte{1}), broken)
			},
			Committed: func() { committed["half"]++ },
		},
		counting("b"),
	)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], broken)
	requireClass(t, errs[1], errInternal)
	require.NoError(t, errs[2])
	require.Empty(t, w.db.GetRaw("meta", []byte("half")))
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("a")))
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("b")))
	require.Equal(t, map[string]int{"a": 1, "b": 1}, committed)
}

// A mutation that panics, as bolt does on a damaged page, gets DataLoss; the
// others of its batch are committed and the database goes on.
func TestQueuePanicFailsAlone(t *testing.T) {
	w := newWorld(t)
	broken := metadata.Mutation{Apply: func(*bolt.Tx) error { panic("page 7 is no page") }}
	unreadable := metadata.Mutation{Check: func(*bolt.Tx) error { panic("page 8 is no page") }}
	errs := w.gather(putMeta("a"), broken, unreadable, putMeta("b"))
	require.NoError(t, errs[0])
	requireClass(t, errs[1], errDataLoss)
	require.ErrorContains(t, errs[1], "page 7 is no page")
	requireClass(t, errs[2], errDataLoss)
	require.NoError(t, errs[3])
	w.put("a", []byte("goes on"))
}

// Mutations are applied in the order in which they came, across batches.
func TestQueueKeepsOrder(t *testing.T) {
	w := newWorld(t)
	var order []int
	var ms []metadata.Mutation
	for i := range 20 {
		ms = append(ms, metadata.Mutation{Apply: func(*bolt.Tx) error { order = append(order, i); return nil }})
	}
	for _, err := range w.gather(ms...) {
		require.NoError(t, err)
	}
	want := make([]int, 20)
	for i := range want {
		want[i] = i
	}
	require.Equal(t, want, order)
}

// A commit whose context ends while it waits for its turn is not made, and its
// ingestion is left whole; one that has its turn is made.
func TestQueueWithdraw(t *testing.T) {
	for name, p := range map[string][]byte{"small": blob("withdrawn", small), "large": blob("withdrawn", large)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cw := w.begin("a", "r", p)
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			w.gatherWith(func() {
				waiting := w.db.Gathered()
				go func() { result <- cw.Commit(ctx, 0, "") }()
				eventually(t, 10*time.Second, "the commit is queued", func() bool { return w.db.Gathered() > waiting })
				cancel()
				requireClass(t, <-result, context.Canceled)
			}, putMeta("a"))

			w.requireAbsent("a", digest.FromBytes(p))
			again := w.open("a", "r")
			require.EqualValues(t, len(p), w.status(again).Offset, "the bytes are still there")
			require.NoError(t, again.Commit(t.Context(), int64(len(p)), digest.FromBytes(p)))
			w.requireContent("a", p)
		})
	}
}

// A context that ends when the transaction has begun has no effect.
func TestQueueTooLateToWithdraw(t *testing.T) {
	w := newWorld(t)
	p := blob("late", small)
	cw := w.begin("a", "r", p)
	ctx, cancel := context.WithCancel(t.Context())
	w.at(func(point string) error {
		if point == "before commit" {
			cancel()
		}
		return nil
	})
	require.NoError(t, cw.Commit(ctx, 0, ""))
	w.requireContent("a", p)
}

// P3: a commit alone takes one transaction, and Writer none.
func TestP3_OneTransactionAlone(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{0, small, metadata.SmallBlob, large, 1 << 20} {
		p := blob("alone", n)
		before := w.txs.Load()
		cw := w.open("a", "r", cellar.WithDescriptor(describe(digest.FromBytes(p), int64(n))))
		w.write(cw, p)
		require.EqualValues(t, 0, w.txs.Load()-before, "transactions of Writer and Write of %d bytes", n)
		require.NoError(t, cw.Commit(t.Context(), int64(n), digest.FromBytes(p)))
		require.EqualValues(t, 1, w.txs.Load()-before, "transactions of a blob of %d bytes", n)
	}
}

// P3, W-C1: the raw store flushes nothing for a small blob and twice for a
// large one (its data, its directory); opening a writer, which waits for no
// flush, and finding that content is there flush nothing.
func TestP3_W_C1_RawFlushes(t *testing.T) {
	for _, c := range []struct {
		size, want int
	}{{0, 0}, {small, 0}, {metadata.SmallBlob, 0}, {large, 2}, {1 << 20, 2}} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			w := newWorld(t)
			w.put("a", blob("makes the directory", c.size))
			require.NoError(t, w.db.Settle(t.Context()))
			p := blob("counted", c.size)
			dgst := digest.FromBytes(p)

			before := w.fault.Syncs()
			cw := w.open("b", "r", cellar.WithDescriptor(describe(dgst, int64(c.size))))
			require.Zero(t, w.fault.Syncs()-before, "flushes of Writer")
			w.write(cw, p)
			require.NoError(t, cw.Commit(t.Context(), int64(c.size), dgst))
			require.Equal(t, c.want, w.fault.Syncs()-before, "flushes from Writer to Commit")

			txs := w.txs.Load()
			_, err := w.ns("b").Writer(t.Context(), cellar.WithRef("again"), withDigest(dgst))
			requireClass(t, err, errExists)
			require.Equal(t, c.want, w.fault.Syncs()-before)
			require.Equal(t, txs, w.txs.Load(), "transactions of a Writer that finds the content there")
		})
	}
}

// P3: 16 writers at once share transactions, so that there are fewer flushes
// the more there are to share them.
func TestP3_WritersShareTransactions(t *testing.T) {
	w := newWorld(t)
	const writers, each = 16, 12
	before := w.txs.Load()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				p := blob(fmt.Sprintf("%d of %d", j, i), small)
				cw, err := w.ns(fmt.Sprintf("n%d", i%3)).Writer(t.Context(), cellar.WithRef(fmt.Sprint(i)))
				if err == nil {
					_, _ = cw.Write(p)
					err = cw.Commit(t.Context(), int64(len(p)), digest.FromBytes(p))
				}
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	txs := w.txs.Load() - before
	t.Logf("%d blobs of %d writers took %d transactions", writers*each, writers, txs)
	require.Less(t, txs*2, int64(writers*each), "less than half a transaction each")
}

// A background mutation goes with the next transaction that somebody waits for.
func TestBackgroundGoesWithTheNext(t *testing.T) {
	w := newWorld(t)
	before := w.txs.Load()
	w.db.MutateLater(putMeta("later"))
	require.EqualValues(t, 0, w.txs.Load()-before)
	require.NoError(t, w.db.Mutate(t.Context(), putMeta("now")))
	require.EqualValues(t, 1, w.txs.Load()-before)
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("later")))
}

// A background mutation that finds no company is made after the delay, and not
// before.
func TestBackgroundGoesAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	started := time.Now()
	w.db.MutateLater(putMeta("later"))
	eventually(t, 30*time.Second, "it is written", func() bool { return w.db.GetRaw("meta", []byte("later")) != nil })
	require.GreaterOrEqual(t, time.Since(started), metadata.BackgroundDelay)
}

// Close makes what was left to the background durable.
func TestBackgroundEndsWithClose(t *testing.T) {
	w := newWorld(t)
	w.db.MutateLater(putMeta("later"))
	w.reopen()
	require.NotEmpty(t, w.db.GetRaw("meta", []byte("later")))
}

// After Close every operation is FailedPrecondition and nothing hangs.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	dgst := w.put("a", []byte("content"))
	cw := w.begin("a", "left", blob("left", large))
	db, store := w.db, w.ns("a")
	w.close()
	for name, call := range writeMethods(db, store, dgst) {
		within(t, 10*time.Second, func() { requireClass(t, call(t.Context()), errPrecondition) })
		t.Log(name)
	}
	for name, call := range readMethods(db, store, dgst) {
		within(t, 10*time.Second, func() { requireClass(t, call(t.Context()), errPrecondition) })
		t.Log(name)
	}
	requireClass(t, cw.Commit(t.Context(), 0, ""), errPrecondition)
	require.NoError(t, db.Close(), "closing twice is no error")
	w.start()
	require.EqualValues(t, large, w.status(w.open("a", "left")).Offset, "open ingestions are left")
}

// writeMethods are all calls that write, each on something of its own.
func writeMethods(db *metadata.DB, store cellar.Store, dgst digest.Digest) map[string]func(context.Context) error {
	names := db.Namespaces()
	return map[string]func(context.Context) error{
		"Writer": func(ctx context.Context) error {
			_, err := store.Writer(ctx, cellar.WithRef("new"))
			return err
		},
		"OpenWriter": func(ctx context.Context) error {
			_, err := cellar.OpenWriter(ctx, store, cellar.WithRef("new"))
			return err
		},
		"Update": func(ctx context.Context) error {
			_, err := store.Update(ctx, cellar.Info{Digest: dgst, Labels: map[string]string{"k": "v"}})
			return err
		},
		"Delete":         func(ctx context.Context) error { return store.Delete(ctx, dgst) },
		"DB.Update":      func(ctx context.Context) error { return db.Update(ctx, func(context.Context) error { return nil }) },
		"Create":         func(ctx context.Context) error { return names.Create(ctx, "new", nil) },
		"SetLabel":       func(ctx context.Context) error { return names.SetLabel(ctx, "a", "k", "v") },
		"Delete of ns":   func(ctx context.Context) error { return names.Delete(ctx, "a") },
		"GarbageCollect": func(ctx context.Context) error { _, err := db.GarbageCollect(ctx); return err },
	}
}

// readMethods are all calls that only read.
func readMethods(db *metadata.DB, store cellar.Store, dgst digest.Digest) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Info": func(ctx context.Context) error { _, err := store.Info(ctx, dgst); return err },
		"Walk": func(ctx context.Context) error { return store.Walk(ctx, func(cellar.Info) error { return nil }) },
		"ReaderAt": func(ctx context.Context) error {
			ra, err := store.ReaderAt(ctx, describe(dgst, 0))
			if err != nil {
				return err
			}
			return ra.Close()
		},
		"ListStatuses": func(ctx context.Context) error { _, err := store.ListStatuses(ctx); return err },
		"Labels":       func(ctx context.Context) error { _, err := db.Namespaces().Labels(ctx, "a"); return err },
		"List":         func(ctx context.Context) error { _, err := db.Namespaces().List(ctx); return err },
		"Check":        func(ctx context.Context) error { _, err := db.Check(ctx); return err },
	}
}
