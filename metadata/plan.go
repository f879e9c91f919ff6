package metadata

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
)

// Plan says what a collection would do.
type Plan struct {
	// Namespaces has an entry for each namespace from which something would go.
	Namespaces map[string]NamespacePlan
	// Blobs and Bytes are what would be removed from the raw store because no
	// namespace holds it any more, now or then.
	Blobs int
	Bytes int64
	// Dangling are references to content that is not there, which keep nothing.
	// They are no error; some tools leave parts of an image out on purpose.
	Dangling []Dangling
}

// NamespacePlan is what would go from one namespace.
type NamespacePlan struct {
	// Records are those that nothing keeps, in the order of their digests, and
	// Bytes their size together.
	Records []PlannedRecord
	Bytes   int64
	// Leases and Ingests are ids and refs of what is over, in order.
	Leases  []string
	Ingests []string
}

// PlannedRecord is content that a collection would unlink.
type PlannedRecord struct {
	Digest digest.Digest
	Size   int64
}

// Dangling is a reference that leads nowhere.
type Dangling struct {
	Namespace string
	// From has the label Label, whose value names To.
	From  digest.Digest
	Label string
	To    digest.Digest
}

// Plan tells what GarbageCollect would do with the same options, and changes
// nothing. It is for eyes: a collection marks again, since meanwhile a lease may
// have come or a reference gone. Its memory grows with what it reports.
func (db *DB) Plan(ctx context.Context, opts ...gc.Option) (Plan, error) {
	if err := db.ready(ctx); err != nil {
		return Plan{}, err
	}
	if err := db.flush(ctx); err != nil {
		return Plan{}, err
	}
	c := db.newCollection(gc.NewOptions(opts...))
	p := &planner{c: c, plan: Plan{Namespaces: map[string]NamespacePlan{}}, unlinked: map[digestKey]uint64{}}
	if err := db.read(ctx, func(tx *bolt.Tx) error { return p.look(ctx, tx) }); err != nil {
		return Plan{}, err
	}
	return p.plan, nil
}

type planner struct {
	c    *collection
	plan Plan
	// unlinked counts the records of a digest that would go.
	unlinked map[digestKey]uint64
}

func (p *planner) look(ctx context.Context, tx *bolt.Tx) error {
	p.c.borrowed = p.c.db.ingests.borrowedKeys()
	names, err := namespaceNames(tx)
	if err != nil {
		return err
	}
	for _, ns := range names {
		g, err := p.c.markNamespace(ctx, tx, ns)
		if err != nil {
			return err
		}
		if g.damaged != nil {
			return g.damaged
		}
		if err := p.namespace(tx, g); err != nil {
			return err
		}
	}
	slices.SortFunc(p.plan.Dangling, func(a, b Dangling) int {
		return strings.Compare(a.Namespace+string(a.From)+a.Label, b.Namespace+string(b.From)+b.Label)
	})
	return p.blobs(ctx, tx)
}

func (p *planner) namespace(tx *bolt.Tx, g *nodeGraph) error {
	n := NamespacePlan{}
	g.marks.Unmarked(0, func(i int) bool {
		key := g.keys.At(i)
		dgst, _ := parseDigestKey(key)
		h, _ := holdersOf(tx, key)
		n.Records = append(n.Records, PlannedRecord{Digest: dgst, Size: h.size})
		n.Bytes += h.size
		var k digestKey
		k.set(key)
		p.unlinked[k]++
		return true
	})
	if err := p.ended(tx, g.ns, &n); err != nil {
		return err
	}
	if len(n.Records)+len(n.Leases)+len(n.Ingests) > 0 {
		p.plan.Namespaces[g.ns] = n
	}
	return p.dangling(tx, g)
}

// ended finds leases and ingestions whose time is over.
func (p *planner) ended(tx *bolt.Tx, ns string, n *NamespacePlan) error {
	if b := namedBucket(tx, leasesPrefix, ns); b != nil {
		err := b.ForEach(func(id, value []byte) error {
			if record, err := decodeLease(value); err == nil && record.expired(p.c.now) {
				n.Leases = append(n.Leases, string(id))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	leased, err := leasedIngests(tx, ns, p.c.now)
	if err != nil {
		return err
	}
	for _, e := range p.c.db.ingests.list(func(e *ingest) bool { return e.key.ns == ns && e.writer == nil }) {
		record, _ := p.c.db.ingests.state(e)
		if !leased[e.key.ref] && p.c.now.After(record.expires) {
			n.Ingests = append(n.Ingests, e.key.ref)
		}
	}
	return nil
}

// dangling finds the references of kept records that lead nowhere.
func (p *planner) dangling(tx *bolt.Tx, g *nodeGraph) error {
	b := contentBucket(tx, g.ns)
	for i := range g.keys.Len() {
		if !g.edged.has(i) || !g.marks.Marked(i) {
			continue
		}
		record, err := decodeContent(b.Get(g.keys.At(i)))
		if err != nil {
			return err
		}
		from, _ := parseDigestKey(g.keys.At(i))
		for name, value := range record.labels {
			if labels.KindOf(name) != labels.Forward {
				continue
			}
			to := digest.Digest(value)
			if key, err := newDigestKey(to); err == nil {
				if _, there := g.keys.Find(key.bytes()); there {
					continue
				}
			}
			p.plan.Dangling = append(p.plan.Dangling, Dangling{Namespace: g.ns, From: from, Label: name, To: to})
		}
	}
	return nil
}

// blobs counts what no namespace would hold any more.
func (p *planner) blobs(ctx context.Context, tx *bolt.Tx) error {
	for key, gone := range p.unlinked {
		if h, err := holdersOf(tx, key.bytes()); err != nil {
			return err
		} else if h.count <= gone {
			p.plan.Blobs++
			p.plan.Bytes += h.size
		}
	}
	cursor := tx.Bucket(bucketUnheld).Cursor()
	for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
		if err := p.unheld(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// unheld counts the bytes of a digest that nobody holds already.
func (p *planner) unheld(ctx context.Context, key []byte) error {
	dgst, err := parseDigestKey(key)
	if err != nil || p.c.db.ingests.isBorrowed(dgst) {
		return err
	}
	if blob, err := p.c.db.blobs.Info(ctx, dgst); err == nil {
		p.plan.Blobs++
		p.plan.Bytes += blob.Size
	}
	return nil
}
