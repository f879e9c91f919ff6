package metadata

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
)

// Cause says why a record is kept.
type Cause string

// The causes.
const (
	// CauseRoot is a label that makes the record a root; Name is its key.
	CauseRoot Cause = "root"
	// CauseLease is a lease; Name is its id.
	CauseLease Cause = "lease"
	// CauseFlatLease is a lease that keeps the record and not what that refers
	// to; Name is its id.
	CauseFlatLease Cause = "flat lease"
	// CauseGrace is that the record is new; Until is when it no longer is.
	CauseGrace Cause = "grace"
	// CauseUse is that somebody was told lately that the content exists; Until
	// is for how long that keeps it.
	CauseUse Cause = "use"
	// CauseIngest is an ingestion that took the content over; Name is its ref.
	CauseIngest Cause = "ingestion"
	// CauseNothing is that nothing keeps it: the next collection unlinks it.
	CauseNothing Cause = "nothing"
)

// Explanation says why one namespace keeps content, or that it will not.
type Explanation struct {
	Namespace string
	Digest    digest.Digest
	// Cause is what keeps the first of Path. Name and Until say more about it.
	Cause Cause
	Name  string
	Until time.Time
	// Path leads from what Cause keeps to the content that was asked for, by
	// the fewest references; it is the content alone if Cause keeps it itself.
	// It is empty if nothing does.
	Path []Step
}

// Step is one record on the way to the content.
type Step struct {
	Digest digest.Digest
	// Label is the key of the label that leads to the next step, empty at the
	// last, and where the way leads through content that is not there: this
	// record refers to it, and the next one names it in a back reference. Back is whether that is a label of the next record, which names
	// this one, rather than one of this record.
	Label string
	Back  bool
}

// Kept reports whether anything keeps the content.
func (e Explanation) Kept() bool { return e.Cause != CauseNothing }

// Explain tells why content is kept in a namespace, by the shortest way from
// what keeps it, or that the next collection with the same options would unlink
// it. Content that the namespace does not have is NotFound. It reads all
// records of the namespace.
func (db *DB) Explain(ctx context.Context, ns string, dgst digest.Digest, opts ...gc.Option) (Explanation, error) {
	store, err := db.Namespace(ns)
	if err != nil {
		return Explanation{}, err
	}
	v := store.(*view)
	if _, err := v.lookup(ctx, dgst); err != nil {
		return Explanation{}, err
	}
	if err := db.flush(ctx); err != nil {
		return Explanation{}, err
	}
	key, err := keyOf(dgst)
	if err != nil {
		return Explanation{}, err
	}
	e := &explainer{c: db.newCollection(gc.NewOptions(opts...)), ns: ns, want: key}
	err = db.read(ctx, func(tx *bolt.Tx) error { return e.explain(ctx, tx) })
	if err != nil {
		return Explanation{}, err
	}
	e.result.Namespace, e.result.Digest = ns, dgst
	return e.result, nil
}

// explainer searches breadth first from everything that keeps a record, so that
// the first way found is a shortest one.
type explainer struct {
	c    *collection
	ns   string
	want digestKey

	g      nodeGraph
	wanted int
	// came has for each record the one that it was reached from, -1 for those
	// that are kept by themselves and -2 for those not reached.
	came   []int32
	queue  []int32
	causes map[int32]Explanation
	back   map[string][]int // by the key of the parent, which need not be there

	result Explanation
}

const notReached = -2

func (e *explainer) explain(ctx context.Context, tx *bolt.Tx) error {
	e.g.ns = e.ns
	b := contentBucket(tx, e.ns)
	if b == nil {
		return errNoNamespace(e.ns)
	}
	var found traits
	if err := e.c.scan(ctx, &e.g, &found, b); err != nil {
		return err
	}
	wanted, there := e.g.keys.Find(e.want.bytes())
	if !there {
		e.result.Cause = CauseNothing
		return nil
	}
	e.wanted = wanted
	if err := e.prepare(b, found.backed); err != nil {
		return err
	}
	if err := e.start(tx, b, &found); err != nil {
		return err
	}
	return e.search(ctx, b)
}

func (e *explainer) prepare(b *bolt.Bucket, backed bitset) error {
	e.came = make([]int32, e.g.keys.Len())
	for i := range e.came {
		e.came[i] = notReached
	}
	e.causes, e.back = map[int32]Explanation{}, map[string][]int{}
	e.result.Cause = CauseNothing
	reader := readEdges(b)
	return backed.each(func(i int) error {
		return reader.edges(e.g.keys.At(i), func(kind labels.Kind, target []byte) {
			if kind == labels.Back {
				e.back[string(target)] = append(e.back[string(target)], i)
			}
		})
	})
}

// keep notes that something keeps the record of key by itself. Flat things are
// not searched from.
func (e *explainer) keep(key []byte, why Explanation) {
	i, ok := e.g.keys.Find(key)
	if !ok {
		for _, child := range e.back[string(key)] { // kept with what is not there
			e.keep(e.g.keys.At(child), why)
		}
		return
	}
	if why.Cause == CauseFlatLease {
		if i == e.wanted && e.result.Cause == CauseNothing {
			e.result = why
			e.result.Path = []Step{{Digest: e.digest(i)}}
		}
		return
	}
	if e.came[i] == notReached {
		e.came[i] = -1
		e.causes[int32(i)] = why
		e.queue = append(e.queue, int32(i))
	}
}

// start finds everything that keeps a record by itself.
func (e *explainer) start(tx *bolt.Tx, b *bolt.Bucket, found *traits) error {
	own := func(i int) error {
		record, err := decodeContent(b.Get(e.g.keys.At(i)))
		e.keep(e.g.keys.At(i), e.ownCause(record))
		return err
	}
	if err := errors.Join(found.rooted.each(own), found.fresh.each(own)); err != nil {
		return err
	}
	err := liveLeases(tx, e.ns, e.c.now, func(id string, flat bool) error {
		why := Explanation{Cause: CauseLease, Name: id}
		if flat {
			why.Cause = CauseFlatLease
		}
		leasedKeys(tx, e.ns, id, resourceContent, func(key []byte) { e.keep(key, why) })
		return nil
	})
	if err != nil {
		return err
	}
	for _, entry := range e.c.db.ingests.list(func(i *ingest) bool { return i.key.ns == e.ns }) {
		record, _ := e.c.db.ingests.state(entry)
		if key, err := newDigestKey(record.borrowed); err == nil {
			e.keep(key.bytes(), Explanation{Cause: CauseIngest, Name: entry.key.ref})
		}
	}
	used, _ := e.c.db.used.in(e.ns, e.c.now, e.c.grace)
	for _, key := range used {
		e.keep(key.bytes(), Explanation{Cause: CauseUse, Until: e.c.now.Add(e.c.grace)})
	}
	return nil
}

// ownCause says what about the record itself keeps it.
func (e *explainer) ownCause(record contentRecord) Explanation {
	for name := range record.labels {
		if labels.KindOf(name) == labels.Root {
			return Explanation{Cause: CauseRoot, Name: name}
		}
	}
	return Explanation{Cause: CauseGrace, Until: record.created.Add(e.c.grace)}
}

func (e *explainer) search(ctx context.Context, b *bolt.Bucket) error {
	reader := readEdges(b)
	for n := 0; n < len(e.queue) && e.came[e.wanted] == notReached; n++ {
		if n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		from := e.queue[n]
		err := reader.references(e.g.keys.At(int(from)), func(key []byte) {
			if to, ok := e.g.keys.Find(key); ok {
				e.reach(from, to)
				return
			}
			for _, child := range e.back[string(key)] {
				e.reach(from, child)
			}
		})
		if err != nil {
			return err
		}
		for _, child := range e.back[string(e.g.keys.At(int(from)))] {
			e.reach(from, child)
		}
	}
	if e.came[e.wanted] == notReached {
		return nil
	}
	return e.trace(b)
}

func (e *explainer) reach(from int32, to int) {
	if e.came[to] == notReached {
		e.came[to] = from
		e.queue = append(e.queue, int32(to))
	}
}

// trace follows the way back from the content that was asked for.
func (e *explainer) trace(b *bolt.Bucket) error {
	at := int32(e.wanted)
	path := []Step{{Digest: e.digest(int(at))}}
	for e.came[at] >= 0 {
		from := e.came[at]
		step, err := e.step(b, int(from), int(at))
		if err != nil {
			return err
		}
		path = append([]Step{step}, path...)
		at = from
	}
	e.result = e.causes[at]
	e.result.Path = path
	return nil
}

// step finds the label that leads from one record to the next.
func (e *explainer) step(b *bolt.Bucket, from, to int) (Step, error) {
	step := Step{Digest: e.digest(from)}
	record, err := decodeContent(b.Get(e.g.keys.At(from)))
	if err != nil {
		return step, err
	}
	if step.Label = naming(record.labels, labels.Forward, e.digest(to)); step.Label != "" {
		return step, nil
	}
	child, err := decodeContent(b.Get(e.g.keys.At(to)))
	step.Label = naming(child.labels, labels.Back, e.digest(from))
	step.Back = step.Label != ""
	return step, err
}

// naming returns the first key, in order, of a label of that kind whose value is
// dgst.
func naming(set map[string]string, kind labels.Kind, dgst digest.Digest) string {
	first := ""
	for name, value := range set {
		if value == string(dgst) && labels.KindOf(name) == kind && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

func (e *explainer) digest(i int) digest.Digest {
	dgst, _ := parseDigestKey(e.g.keys.At(i))
	return dgst
}
