package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
)

// nodeGraph is the content of one namespace as the collector sees it: a node for
// each record of the snapshot, and which of them are reached.
type nodeGraph struct {
	ns    string
	keys  gc.Keys
	marks *gc.Marks
	// edged has a bit for each record that refers to others, so that only
	// those are read again to be followed.
	edged bitset
	// followed is how many notes of the barrier have been followed.
	followed int
	// damaged is set if a record could not be read: what it refers to is
	// unknown, so that nothing can be called unreachable.
	damaged error
	// leasesOver is whether there are leases that have expired.
	leasesOver bool
	// nextExpiry is when the first grace period of this namespace ends.
	nextExpiry time.Time
}

// bitset has a bit for each record of a namespace.
type bitset []uint64

// set sets bit i, which may lie behind the end.
func (s *bitset) set(i int) {
	for len(*s) <= i/64 {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

func (s bitset) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

// each calls fn for every bit that is set, in order.
func (s bitset) each(fn func(i int) error) error {
	for word, set := range s {
		for ; set != 0; set &= set - 1 {
			if err := fn(word*64 + bits.TrailingZeros64(set)); err != nil {
				return err
			}
		}
	}
	return nil
}

// traits is what a first pass over the records finds, when their indexes are
// not known to the marks yet: which are roots, which are new, and which have
// back references.
type traits struct {
	rooted, fresh, backed bitset
}

// markNamespace finds what is reachable in one namespace of the snapshot tx.
func (c *collection) markNamespace(ctx context.Context, tx *bolt.Tx, ns string) (*nodeGraph, error) {
	g := &nodeGraph{ns: ns}
	var found traits
	b := contentBucket(tx, ns)
	if b != nil {
		if err := c.scan(ctx, g, &found, b); err != nil {
			return nil, err
		}
	}
	g.marks = gc.NewMarks(&g.keys)
	reader := readEdges(b)
	if err := found.backed.each(func(i int) error { return g.addBack(reader, i) }); err != nil {
		return nil, err
	}
	_ = found.rooted.each(func(i int) error { g.marks.RootAt(i); return nil })
	if err := c.outerRoots(tx, g); err != nil {
		return nil, err
	}
	if err := g.marks.Run(ctx, g.refsIn(tx)); err != nil {
		return nil, err
	}
	return g, c.keepFresh(ctx, tx, g, found.fresh)
}

// addBack tells the marks the back references of a record.
func (g *nodeGraph) addBack(reader edgeReader, i int) error {
	err := reader.edges(g.keys.At(i), func(kind labels.Kind, target []byte) {
		if kind == labels.Back {
			g.marks.Back(target, i)
		}
	})
	return g.unlessDamaged(err)
}

// keepFresh marks what grace alone keeps, and notes when the first of that no
// longer is. What is reached anyway needs no grace, so that its end is no
// reason to collect again.
func (c *collection) keepFresh(ctx context.Context, tx *bolt.Tx, g *nodeGraph, fresh bitset) error {
	b := contentBucket(tx, g.ns)
	err := fresh.each(func(i int) error {
		if g.marks.Reached(i) {
			return nil
		}
		record, err := decodeContent(b.Get(g.keys.At(i)))
		g.nextExpiry = earliest(g.nextExpiry, lastOf(record.created.Add(c.grace)))
		g.marks.RootAt(i)
		return g.unlessDamaged(err)
	})
	if err != nil {
		return err
	}
	return g.marks.Run(ctx, g.refsIn(tx))
}

// scan reads all records of a namespace once.
func (c *collection) scan(ctx context.Context, g *nodeGraph, found *traits, b *bolt.Bucket) error {
	cursor := b.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		i := g.keys.Len()
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		g.keys.Append(key)
		if err := c.look(g, found, i, value); err != nil && g.damaged == nil {
			dgst, _ := parseDigestKey(key)
			g.damaged = fmt.Errorf("record of %s in %q: %w", dgst, g.ns, err)
		}
	}
	return nil
}

// look finds out what one record is to the collector.
func (c *collection) look(g *nodeGraph, found *traits, i int, value []byte) error {
	d, err := unseal(value)
	if err != nil {
		return err
	}
	d.size()
	created := d.time()
	d.varint()
	if c.inGrace(created) {
		found.fresh.set(i)
	}
	return eachEdge(&d, func(kind labels.Kind, _ []byte) {
		switch kind {
		case labels.Root:
			found.rooted.set(i)
		case labels.Forward:
			g.edged.set(i)
		case labels.Back:
			found.backed.set(i)
		}
	})
}

// inGrace reports whether a record written at t is kept because it is new.
func (c *collection) inGrace(t time.Time) bool {
	return c.grace > 0 && c.now.Before(t.Add(c.grace))
}

// earliest returns the earlier of two times, of which a zero one is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// outerRoots marks what is kept from outside the records: by leases, by
// ingestions that took content over, and by answers that were given.
func (c *collection) outerRoots(tx *bolt.Tx, g *nodeGraph) error {
	err := leasedContent(tx, g.ns, c.now, func(key []byte, flat bool) {
		if flat {
			g.marks.Flat(key)
		} else {
			g.marks.Root(key)
		}
	})
	if err != nil {
		return err
	}
	for _, key := range c.borrowed[g.ns] {
		g.marks.Root(key.bytes())
	}
	used, next := c.db.used.in(g.ns, c.now, c.grace)
	for _, key := range used {
		g.marks.Root(key.bytes())
	}
	g.nextExpiry = earliest(g.nextExpiry, lastOf(next))
	return nil
}

// lastOf returns the last moment of a grace period that is over at end. Leases
// and ingestions are kept at the very moment of their expiry, what is new is
// not.
func lastOf(end time.Time) time.Time {
	if end.IsZero() {
		return end
	}
	return end.Add(-1)
}

// refsIn returns the function that gives the references of a node as tx has
// them.
func (g *nodeGraph) refsIn(tx *bolt.Tx) func(i int, yield func(key []byte)) error {
	reader := readEdges(contentBucket(tx, g.ns))
	return func(i int, yield func(key []byte)) error {
		if !g.edged.has(i) {
			return nil
		}
		return g.unlessDamaged(reader.references(g.keys.At(i), yield))
	}
}

// unlessDamaged returns err, unless the namespace is known to have damaged
// records: then nothing of it is unlinked anyway.
func (g *nodeGraph) unlessDamaged(err error) error {
	if g.damaged != nil {
		return nil
	}
	return err
}

// edgeReader reads what records refer to, all through one cursor: a lookup with
// a cursor of its own would leave garbage for each record.
type edgeReader struct{ cursor *bolt.Cursor }

// readEdges reads from the records of b, which may be nil.
func readEdges(b *bolt.Bucket) edgeReader {
	if b == nil {
		return edgeReader{}
	}
	return edgeReader{b.Cursor()}
}

// references gives the keys that the record of key refers to, none if there is
// no such record.
func (r edgeReader) references(key []byte, yield func(key []byte)) error {
	return r.edges(key, func(kind labels.Kind, target []byte) {
		if kind == labels.Forward {
			yield(target)
		}
	})
}

// edges calls yield for the labels of the record of key that mean something to
// the collector, as eachEdge does.
func (r edgeReader) edges(key []byte, yield func(kind labels.Kind, target []byte)) error {
	if r.cursor == nil {
		return nil
	}
	found, value := r.cursor.Seek(key)
	if !bytes.Equal(found, key) {
		return nil
	}
	d, err := unseal(value)
	if err != nil {
		return err
	}
	d.size()
	d.time()
	d.varint()
	return eachEdge(&d, yield)
}

// eachEdge calls yield for each label that means something to the collector.
// target is the digest key that a reference names; a reference to what is no
// digest refers to nothing and is left out. d stands before the labels. Nothing
// is allocated, and target is valid during the call only.
func eachEdge(d *decoder, yield func(kind labels.Kind, target []byte)) error {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		key, packedKey := d.packed()
		value, packedValue := d.packed()
		if !packedKey || d.bad {
			continue // every key that means something begins with a packed prefix
		}
		kind := kindOfPacked(key)
		switch {
		case kind == labels.Root:
			yield(kind, nil)
		case packedValue && (kind == labels.Forward || kind == labels.Back):
			yield(kind, value)
		}
	}
	return d.finish()
}

// kindOfPacked is labels.KindOf for a packed key.
func kindOfPacked(key []byte) labels.Kind {
	if len(key) == 0 || int(key[0]) >= len(keyPrefixes) {
		return labels.Plain
	}
	prefix := keyPrefixes[key[0]]
	if kind := labels.KindOf(prefix); kind != labels.Plain {
		return kind // the prefix decides, whatever follows
	}
	var buf [64]byte
	full := append(buf[:0], prefix...)
	full = append(full, key[1:min(len(key), 1+len(buf)-len(prefix))]...)
	return labels.KindOf(full)
}

// damages joins what is wrong with the namespaces of a collection.
func damages(graphs []*nodeGraph) error {
	var errs []error
	for _, g := range graphs {
		if g.damaged != nil {
			errs = append(errs, fmt.Errorf("nothing is collected in %q: %w", g.ns, g.damaged))
		}
	}
	return errors.Join(errs...)
}
