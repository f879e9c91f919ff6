package vfs

import (
	"math/rand/v2"
	"slices"
)

// Clone returns the file system as the death of the process leaves it: all that
// was written is there, no lock is held. The two share nothing.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &cloner{nodes: map[*node]*node{}, whole: true}
	return &Mem{root: c.node(m.root), last: m.last, boot: m.boot, locks: map[*node]bool{}, now: m.now}
}

// CrashClone returns the file system as a power loss may leave it: all that is
// durable, and of the rest each write and each directory entry with the
// probability keep, chosen by rng; of a write also a part. The two share
// nothing.
func (m *Mem) CrashClone(rng *rand.Rand, keep float64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &cloner{nodes: map[*node]*node{}, rng: rng, keep: keep}
	return &Mem{root: c.node(m.root), last: m.last, boot: m.boot + 1, locks: map[*node]bool{}, now: m.now}
}

type cloner struct {
	nodes map[*node]*node
	whole bool // keep everything, and what is not durable as it is
	rng   *rand.Rand
	keep  float64
}

func (c *cloner) node(n *node) *node {
	if n == nil {
		return nil
	}
	if done := c.nodes[n]; done != nil {
		return done
	}
	out := &node{inode: n.inode, mode: n.mode, mtime: n.mtime, ctime: n.ctime}
	c.nodes[n] = out
	switch {
	case n.mode.IsDir():
		c.dir(n, out)
	case c.whole:
		out.links = 0
		out.data, out.durable, out.writes = slices.Clone(n.data), slices.Clone(n.durable), slices.Clone(n.writes)
	default:
		out.durable = c.data(n)
		out.data = slices.Clone(out.durable)
	}
	return out
}

func (c *cloner) dir(n, out *node) {
	out.entries, out.synced, out.changed = map[string]*node{}, map[string]*node{}, map[string]struct{}{}
	if c.whole {
		for name, child := range n.synced {
			out.synced[name] = c.node(child)
		}
		for name := range n.changed {
			out.changed[name] = struct{}{}
		}
		for name, child := range n.entries {
			out.entries[name] = c.node(child)
			out.entries[name].links++
		}
		return
	}
	for _, name := range n.names() {
		child := n.synced[name]
		if _, changed := n.changed[name]; changed && c.chance() {
			child = n.entries[name]
		}
		if child != nil {
			out.entries[name] = c.node(child)
			out.entries[name].links++
			out.synced[name] = out.entries[name]
		}
	}
}

// names returns every name that is or was there, in order, so that the same
// seed makes the same choices.
func (n *node) names() []string {
	var names []string
	for name := range n.synced {
		names = append(names, name)
	}
	for name := range n.changed {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *cloner) data(n *node) []byte {
	data := slices.Clone(n.durable)
	for _, w := range n.writes {
		if !c.chance() {
			continue
		}
		if len(w.data) > 0 && c.keep < 1 && c.rng.IntN(4) == 0 {
			w.data = w.data[:c.rng.IntN(len(w.data))]
			if len(w.data) == 0 {
				continue
			}
		}
		data = w.apply(data)
	}
	return data
}

func (c *cloner) chance() bool {
	switch c.keep {
	case 0:
		return false
	case 1:
		return true
	}
	return c.rng.Float64() < c.keep
}
