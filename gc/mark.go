package gc

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
)

// Marks finds which of a set of nodes can be reached. A node is known by its
// key, and in here by the index of that key.
//
// Beside the keys it takes one or two bits for each node, four bytes for each
// node that waits to be followed, and eight bytes for each back reference.
// There may be 2^32 nodes. Marks is not for concurrent use.
type Marks struct {
	keys   *Keys
	marked []uint64 // reached, and followed or on the stack
	flat   []uint64 // kept by itself; allocated when the first is
	live   int
	gray   []uint32
	back   []backReference
	sorted bool
	// absent has the children of parents that are no nodes.
	absent map[string][]uint32
}

// backReference keeps child while parent is reached.
type backReference struct{ parent, child uint32 }

// NewMarks returns marks for the nodes of keys, none of which is marked.
func NewMarks(keys *Keys) *Marks {
	return &Marks{keys: keys, marked: make([]uint64, (keys.Len()+63)/64)}
}

// Live returns how many nodes are marked.
func (m *Marks) Live() int { return m.live }

// Marked reports whether node i is marked.
func (m *Marks) Marked(i int) bool { return has(m.marked, i) || has(m.flat, i) }

// Reached reports whether node i is marked, and not by Flat alone: what it
// refers to is marked as well once Run is through.
func (m *Marks) Reached(i int) bool { return has(m.marked, i) }

func has(set []uint64, i int) bool { return len(set) > 0 && set[i/64]&(1<<(i%64)) != 0 }

// Root marks the node of key; Run follows its references. A key that is no
// node is no error: it counts as reached, and keeps what has a back reference
// to it.
func (m *Marks) Root(key []byte) {
	if i, ok := m.keys.Find(key); ok {
		m.RootAt(i)
		return
	}
	if children := m.absent[string(key)]; children != nil {
		delete(m.absent, string(key))
		for _, i := range children {
			m.RootAt(int(i))
		}
	}
}

// RootAt is Root for the node with index i.
func (m *Marks) RootAt(i int) {
	if has(m.marked, i) {
		return
	}
	if !has(m.flat, i) {
		m.live++
	}
	m.marked[i/64] |= 1 << (i % 64)
	m.gray = append(m.gray, uint32(i))
}

// Flat marks the node of key by itself: neither its references nor back
// references to it are followed, unless it is reached in another way too.
func (m *Marks) Flat(key []byte) {
	i, ok := m.keys.Find(key)
	if !ok || m.Marked(i) {
		return
	}
	if m.flat == nil {
		m.flat = make([]uint64, len(m.marked))
	}
	m.flat[i/64] |= 1 << (i % 64)
	m.live++
}

// Back says that the node with index child is kept while that of parent is
// reached; parent need not be a node. It has to be said before Root or a Run
// reaches parent.
func (m *Marks) Back(parent []byte, child int) {
	if i, ok := m.keys.Find(parent); ok {
		m.back = append(m.back, backReference{uint32(i), uint32(child)})
		m.sorted = false
		return
	}
	if m.absent == nil {
		m.absent = map[string][]uint32{}
	}
	m.absent[string(parent)] = append(m.absent[string(parent)], uint32(child))
}

// checkEvery is after how many nodes Run looks whether its context is done.
const checkEvery = 1024

// Run marks everything that can be reached from what was marked as a root. refs
// is called once for each node that is reached, in no particular order, and
// gives the keys that the node refers to; keys that are no nodes are as in Root.
// If ctx ends, or refs returns an error, Run returns that error; calling it
// again goes on, with the node for which refs failed.
func (m *Marks) Run(ctx context.Context, refs func(i int, yield func(key []byte)) error) error {
	if !m.sorted {
		slices.SortFunc(m.back, func(a, b backReference) int { return cmp.Compare(a.parent, b.parent) })
		m.sorted = true
	}
	root := m.Root // made once: it escapes
	for step := 0; len(m.gray) > 0; step++ {
		if step%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		i := m.gray[len(m.gray)-1]
		m.gray = m.gray[:len(m.gray)-1]
		if err := refs(int(i), root); err != nil {
			m.gray = append(m.gray, i)
			return err
		}
		m.followBack(i)
	}
	return nil
}

func (m *Marks) followBack(parent uint32) {
	at, _ := slices.BinarySearchFunc(m.back, parent, func(b backReference, p uint32) int { return cmp.Compare(b.parent, p) })
	for ; at < len(m.back) && m.back[at].parent == parent; at++ {
		m.RootAt(int(m.back[at].child))
	}
}

// Unmarked calls yield for the index of each node that is not marked, in
// order, until it returns false.
func (m *Marks) Unmarked(from int, yield func(i int) bool) {
	for word := from / 64; word < len(m.marked); word++ {
		free := ^m.marked[word]
		if m.flat != nil {
			free &^= m.flat[word]
		}
		if word == from/64 {
			free &= ^uint64(0) << (from % 64)
		}
		for ; free != 0; free &= free - 1 {
			i := word*64 + bits.TrailingZeros64(free)
			if i >= m.keys.Len() || !yield(i) {
				return
			}
		}
	}
}
