package metadata

import (
	"context"
	"errors"
	"fmt"
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
	edged []uint64
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

// roots is what is found in a first pass over the records, when their indexes
// are not known to the marks yet.
type roots struct {
	at   []int
	back []backEdge
}

type backEdge struct {
	child  int
	parent digestKey
}

// markNamespace finds what is reachable in one namespace of the snapshot tx.
func (c *collection) markNamespace(ctx context.Context, tx *bolt.Tx, ns string) (*nodeGraph, error) {
	g := &nodeGraph{ns: ns}
	var found roots
	if b := contentBucket(tx, ns); b != nil {
		if err := c.scan(ctx, g, &found, b); err != nil {
			return nil, err
		}
	}
	g.marks = gc.NewMarks(&g.keys)
	for _, e := range found.back {
		g.marks.Back(e.parent.bytes(), e.child)
	}
	for _, i := range found.at {
		g.marks.RootAt(i)
	}
	if err := c.outerRoots(tx, g); err != nil {
		return nil, err
	}
	if err := g.marks.Run(ctx, g.refsIn(tx)); err != nil {
		return nil, err
	}
	return g, nil
}

// scan reads all records of a namespace once.
func (c *collection) scan(ctx context.Context, g *nodeGraph, found *roots, b *bolt.Bucket) error {
	cursor := b.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		i := g.keys.Len()
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		g.keys.Append(key)
		if i%64 == 0 {
			g.edged = append(g.edged, 0)
		}
		if err := c.look(g, found, i, value); err != nil && g.damaged == nil {
			dgst, _ := parseDigestKey(key)
			g.damaged = fmt.Errorf("record of %s in %q: %w", dgst, g.ns, err)
		}
	}
	return nil
}

// look finds out what one record is to the collector.
func (c *collection) look(g *nodeGraph, found *roots, i int, value []byte) error {
	d, err := unseal(value)
	if err != nil {
		return err
	}
	d.size()
	created := d.time()
	d.varint()
	root := c.inGrace(g, created)
	err = eachEdge(&d, func(kind labels.Kind, target []byte) {
		switch kind {
		case labels.Root:
			root = true
		case labels.Forward:
			g.edged[i/64] |= 1 << (i % 64)
		case labels.Back:
			e := backEdge{child: i}
			e.parent.set(target)
			found.back = append(found.back, e)
		}
	})
	if root {
		found.at = append(found.at, i)
	}
	return err
}

// inGrace reports whether a record written at t is kept because it is new, and
// notes when the first such record no longer is.
func (c *collection) inGrace(g *nodeGraph, t time.Time) bool {
	if c.grace <= 0 {
		return false
	}
	end := t.Add(c.grace)
	if !c.now.Before(end) {
		return false
	}
	g.nextExpiry = earliest(g.nextExpiry, end)
	return true
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
	g.nextExpiry = earliest(g.nextExpiry, next)
	return nil
}

// refsIn returns the function that gives the references of a node as tx has
// them.
func (g *nodeGraph) refsIn(tx *bolt.Tx) func(i int, yield func(key []byte)) error {
	b := contentBucket(tx, g.ns)
	return func(i int, yield func(key []byte)) error {
		if g.edged[i/64]&(1<<(i%64)) == 0 {
			return nil
		}
		err := references(b, g.keys.At(i), yield)
		if g.damaged != nil {
			return nil //nolint:nilerr // nothing of this namespace is unlinked anyway
		}
		return err
	}
}

// references gives the keys that the record of key refers to, none if there is
// no such record.
func references(b *bolt.Bucket, key []byte, yield func(key []byte)) error {
	value := b.Get(key)
	if value == nil {
		return nil
	}
	d, err := unseal(value)
	if err != nil {
		return err
	}
	d.size()
	d.time()
	d.varint()
	return eachEdge(&d, func(kind labels.Kind, target []byte) {
		if kind == labels.Forward {
			yield(target)
		}
	})
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
