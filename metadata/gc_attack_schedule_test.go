package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
	"github.com/cellarstore/cellar/namespaces"
)

// Whatever is done while a collection is at any of its phases: what can be
// reached stays from the moment on at which it can, with its bytes; what was
// reported to exist stays while that collection runs; what was taken over can be
// committed; and once all is quiet nothing else is left.
func TestCollectionSchedules(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newSchedule(t, seed).run()
		})
	}
}

// schedule is one history. Operations run one after the other; a collection
// runs at the same time. Each is told to the model, and what the model says is
// compared with the store after each.
type schedule struct {
	*siege
	*testing.T
	rng   *rand.Rand
	grace bool
	blobs [][]byte
	dgsts []digest.Digest
	alg   []digest.Algorithm

	records map[item]map[string]string // what was written and not deleted
	leases  map[string]*modelLease     // by namespace and id
	loans   map[string]loanOf          // open takeovers, by ref
	answers map[item]bool              // told to exist since the collection began
	fresh   map[item]bool              // in grace
	must    map[item]bool              // seen while it could be reached
	running bool                       // a collection is
	refs    int

	marking atomic.Bool // the snapshot is taken
	busy    atomic.Bool
	mutator sync.WaitGroup
}

type item struct {
	ns string
	i  int
}

type modelLease struct {
	ns, id string
	flat   bool
	holds  map[int]bool
}

type loanOf struct {
	item
	cw cellar.Writer
}

var scheduleSpaces = []string{"a", "b"}

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{T: t, rng: rand.New(rand.NewPCG(seed, 7)), grace: seed%3 == 0}
	grace := time.Duration(-1)
	if s.grace {
		grace = time.Hour
	}
	s.siege = newSiege(t, withGrace(grace), withPolicy(metadata.Shared))
	for i := range 10 {
		size := small
		if i%4 == 3 {
			size = large
		}
		p, alg := blob(fmt.Sprint("content ", i), size), digest.SHA256
		if i%5 == 4 {
			alg = digest.SHA512
		}
		s.blobs, s.alg, s.dgsts = append(s.blobs, p), append(s.alg, alg), append(s.dgsts, alg.FromBytes(p))
	}
	s.records, s.leases, s.loans = map[item]map[string]string{}, map[string]*modelLease{}, map[string]loanOf{}
	s.answers, s.fresh, s.must = map[item]bool{}, map[item]bool{}, map[item]bool{}
	return s
}

func (s *schedule) run() {
	for range 3 {
		s.act(8)
		s.siege.oldIngest()
		s.fresh, s.answers = map[item]bool{}, map[item]bool{} // the clock has gone on by a day
		s.look()
		s.collectAmidst()
		s.answers = map[item]bool{}
		s.look()
	}
	s.settleDown()
}

// collectAmidst runs a collection, and operations at its phases.
func (s *schedule) collectAmidst() {
	s.running = true
	for it := range s.records {
		if !s.has(it.ns, s.dgsts[it.i]) { // garbage of an earlier collection
			delete(s.records, it)
		}
	}
	s.marking.Store(false)
	s.raw.onBefore(func(call, _ string) {
		if call == "abort" {
			s.marking.Store(true) // what is done before is done before the snapshot
		}
		switch call {
		case "abort", "list", "walk": // no lock is held
			if s.busy.CompareAndSwap(false, true) {
				s.act(s.rng.IntN(4))
				s.busy.Store(false)
			}
		case "remove":
			s.actAside()
		}
	})
	s.at(func(point string) error {
		if point == "before commit" {
			s.actAside() // a batch has been applied
		}
		return nil
	})
	_, err := s.db.GarbageCollect(context.Background())
	s.raw.before.Store(nil)
	s.siege.crash.Store(nil)
	s.mutator.Wait()
	s.running = false
	require.NoError(s.T, err)
}

// actAside does operations in another goroutine, where the collection holds
// what they may have to wait for.
func (s *schedule) actAside() {
	if !s.marking.Load() || !s.busy.CompareAndSwap(false, true) {
		return
	}
	s.mutator.Go(func() {
		defer s.busy.Store(false)
		s.act(1 + s.rng.IntN(3))
	})
}

func (s *schedule) act(n int) {
	for range n {
		it := item{scheduleSpaces[s.rng.IntN(2)], s.rng.IntN(len(s.blobs))}
		ops := []func(item){
			s.commit, s.commit, s.commit, s.relabel, s.relabel, s.unlabel, s.remove, s.hold, s.hold, s.unhold,
			s.ask, s.ask, s.takeOver, s.takeOver, s.endLoan, s.endLoan, s.transact, s.undo, s.dropSpace,
		}
		ops[s.rng.IntN(len(ops))](it)
		s.look()
	}
}

// look compares what can be reached with what is there.
func (s *schedule) look() {
	for {
		reached, lost := s.reachable(), false
		for it := range s.must {
			if !reached[it] {
				delete(s.must, it)
			}
		}
		for it := range reached {
			present := s.has(it.ns, s.dgsts[it.i])
			if s.must[it] && !present {
				s.Errorf("%v was lost", it)
				s.FailNow()
			}
			if present {
				s.must[it] = true
			} else { // it was collected before it could be reached
				delete(s.records, it)
				lost = true
			}
		}
		if !lost {
			return
		}
	}
}

// reachable is the specification: what is kept by the state of the model.
func (s *schedule) reachable() map[item]bool {
	reached, flat := map[item]bool{}, map[item]bool{}
	var reach func(it item)
	reach = func(it item) {
		labels, there := s.records[it]
		if !there || reached[it] {
			return
		}
		reached[it] = true
		if target, ok := s.target(it, labels[refLabel]); ok {
			reach(target)
		}
		for child, labels := range s.records {
			if target, ok := s.target(child, labels[backLabel]); ok && target == it {
				reach(child)
			}
		}
	}
	for it, labels := range s.records {
		if _, root := labels[rootLabel]; root || s.grace && (s.fresh[it] || s.answers[it]) || s.running && s.answers[it] {
			reach(it)
		}
	}
	for _, l := range s.leases {
		for i := range l.holds {
			if it := (item{l.ns, i}); !l.flat {
				reach(it)
			} else if _, there := s.records[it]; there {
				flat[it] = true
			}
		}
	}
	for it := range flat {
		reached[it] = true
	}
	return reached
}

func (s *schedule) target(from item, value string) (item, bool) {
	for i, dgst := range s.dgsts {
		if value == dgst.String() {
			return item{from.ns, i}, true
		}
	}
	return item{}, false
}

// someLabels returns labels that a record may have. A back reference names a
// record that is there.
func (s *schedule) someLabels(ns string) map[string]string {
	set := map[string]string{}
	if s.rng.IntN(4) == 0 {
		set[rootLabel] = "x"
	}
	if s.rng.IntN(2) == 0 {
		set[refLabel] = s.dgsts[s.rng.IntN(len(s.dgsts))].String()
	}
	if parent := s.rng.IntN(len(s.dgsts)); s.rng.IntN(3) == 0 && s.records[item{ns, parent}] != nil {
		set[backLabel] = s.dgsts[parent].String()
	}
	return set
}

func (s *schedule) ref() string {
	s.refs++
	return fmt.Sprint("r", s.refs)
}

// wrote tells the model of a commit that has returned err.
func (s *schedule) wrote(it item, set map[string]string, err error) {
	if errors.Is(err, errExists) {
		s.answers[it] = true
		require.NotNil(s.T, s.records[it], "%v: exists", it)
		return
	}
	require.NoError(s.T, err)
	s.records[it], s.fresh[it] = set, true
}

func (s *schedule) write(ctx context.Context, it item, set map[string]string) error {
	cw := s.openIn(ctx, it.ns, s.ref())
	s.world.write(cw, s.blobs[it.i])
	return cw.Commit(ctx, 0, s.dgsts[it.i], cellar.WithLabels(set))
}

func (s *schedule) commit(it item) {
	set := s.someLabels(it.ns)
	s.wrote(it, set, s.write(context.Background(), it, set))
}

func (s *schedule) relabel(it item) {
	s.updateLabels(it, s.someLabels(it.ns))
}

func (s *schedule) unlabel(it item) { s.updateLabels(it, map[string]string{}) }

func (s *schedule) updateLabels(it item, set map[string]string) {
	_, err := s.ns(it.ns).Update(context.Background(), cellar.Info{Digest: s.dgsts[it.i], Labels: set})
	if errors.Is(err, errNotFound) {
		require.False(s.T, s.must[it], "%v was lost", it)
		delete(s.records, it)
		return
	}
	require.NoError(s.T, err)
	s.records[it] = set
}

func (s *schedule) remove(it item) {
	err := s.ns(it.ns).Delete(context.Background(), s.dgsts[it.i])
	if errors.Is(err, errNotFound) {
		require.False(s.T, s.must[it], "%v was lost", it)
	} else {
		require.NoError(s.T, err)
	}
	s.forget(it)
}

func (s *schedule) forget(it item) {
	delete(s.records, it)
	delete(s.must, it)
	delete(s.answers, it)
	delete(s.fresh, it)
}

func (s *schedule) hold(it item) {
	id := fmt.Sprint("lease ", s.rng.IntN(3))
	m, err := s.db.NamespaceLeases(it.ns)
	require.NoError(s.T, err)
	l := s.leases[it.ns+id]
	if l == nil {
		l = &modelLease{ns: it.ns, id: id, flat: s.rng.IntN(3) == 0, holds: map[int]bool{}}
		set := map[string]string{}
		if l.flat {
			set["containerd.io/gc.flat"] = "x"
		}
		_, err := m.Create(context.Background(), leases.WithID(id), leases.WithLabels(set))
		require.NoError(s.T, err)
		s.leases[it.ns+id] = l
	}
	require.NoError(s.T, m.AddResource(context.Background(), id, leases.Resource{Type: leases.Content, ID: s.dgsts[it.i].String()}))
	l.holds[it.i] = true
}

func (s *schedule) unhold(it item) {
	for key, l := range s.leases {
		if l.ns != it.ns {
			continue
		}
		m, err := s.db.NamespaceLeases(l.ns)
		require.NoError(s.T, err)
		_, err = m.Delete(context.Background(), l.id)
		require.NoError(s.T, err)
		delete(s.leases, key)
		return
	}
}

// ask opens a writer that names its digest, and writes if it has to.
func (s *schedule) ask(it item) {
	ctx := context.Background()
	cw, err := s.ns(it.ns).Writer(ctx, cellar.WithRef(s.ref()), withDigest(s.dgsts[it.i]))
	if errors.Is(err, errExists) {
		require.NotNil(s.T, s.records[it], "%v: exists", it)
		s.answers[it] = true
		return
	}
	require.NoError(s.T, err)
	require.False(s.T, s.must[it], "%v was lost", it)
	if s.status(cw).Offset == 0 {
		s.world.write(cw, s.blobs[it.i])
	}
	set := s.someLabels(it.ns)
	s.wrote(it, set, cw.Commit(ctx, 0, s.dgsts[it.i], cellar.WithLabels(set)))
}

// takeOver opens a writer that has all bytes from the pool, if they are there.
func (s *schedule) takeOver(it item) {
	cw, err := s.ns(it.ns).Writer(context.Background(), cellar.WithRef(s.ref()), withDigest(s.dgsts[it.i]))
	if errors.Is(err, errExists) {
		s.answers[it] = true
		return
	}
	require.NoError(s.T, err)
	if s.status(cw).Offset == 0 {
		require.NoError(s.T, s.ns(it.ns).Abort(context.Background(), s.status(cw).Ref))
		return
	}
	s.loans[s.status(cw).Ref] = loanOf{it, cw}
}

// endLoan commits a takeover, which must find its bytes, or ends it.
func (s *schedule) endLoan(item) {
	for ref, l := range s.loans {
		delete(s.loans, ref)
		if s.rng.IntN(3) == 0 {
			require.NoError(s.T, s.ns(l.ns).Abort(context.Background(), ref))
			return
		}
		set := s.someLabels(l.ns)
		s.wrote(l.item, set, l.cw.Commit(context.Background(), 0, s.dgsts[l.i], cellar.WithLabels(set)))
		return
	}
}

// transact replaces a record and sets a reference in one Update.
func (s *schedule) transact(it item) {
	set := s.someLabels(it.ns)
	err := s.db.Update(context.Background(), func(ctx context.Context) error {
		if err := s.ns(it.ns).Delete(ctx, s.dgsts[it.i]); err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		return s.write(ctx, it, set)
	})
	s.wrote(it, set, err)
}

// undo does something in an Update that fails.
func (s *schedule) undo(it item) {
	failed := errors.New("undone")
	err := s.db.Update(context.Background(), func(ctx context.Context) error {
		err := s.ns(it.ns).Delete(ctx, s.dgsts[it.i])
		if err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		if err := s.write(ctx, it, map[string]string{rootLabel: "x"}); err != nil {
			return err
		}
		return failed
	})
	require.ErrorIs(s.T, err, failed)
}

// dropSpace deletes a namespace with all that is in it, seldom.
func (s *schedule) dropSpace(it item) {
	if s.rng.IntN(3) > 0 {
		return
	}
	err := s.db.Namespaces().Delete(context.Background(), it.ns, namespaces.WithContent())
	if err != nil {
		requireClass(s.T, err, errNotFound)
	}
	for i := range s.blobs {
		s.forget(item{it.ns, i})
	}
	for key, l := range s.leases {
		if l.ns == it.ns {
			delete(s.leases, key)
		}
	}
	for ref, l := range s.loans {
		if l.ns == it.ns {
			delete(s.loans, ref)
		}
	}
}

// settleDown ends what is open and checks that exactly what can be reached is
// left, with its bytes.
func (s *schedule) settleDown() {
	for ref, l := range s.loans {
		require.NoError(s.T, s.ns(l.ns).Abort(context.Background(), ref))
	}
	s.c.step(48 * time.Hour)
	s.fresh, s.answers = map[item]bool{}, map[item]bool{}
	require.NoError(s.T, s.db.Mutate(context.Background(), putMeta("quiet")))
	s.collect()
	s.look()
	var want []digest.Digest
	seen := map[int]bool{}
	for _, ns := range scheduleSpaces {
		for i, dgst := range s.dgsts {
			require.Equal(s.T, s.must[item{ns, i}], s.has(ns, dgst), "%s/%d", ns, i)
			if !s.must[item{ns, i}] {
				continue
			}
			s.requireContentUnder(ns, dgst, s.blobs[i])
			if !seen[i] {
				want = append(want, dgst)
			}
			seen[i] = true
		}
	}
	require.ElementsMatch(s.T, want, s.stored())
	require.Zero(s.T, s.db.Unheld())
}
