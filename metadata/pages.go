package metadata

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// bolt looks at all its pages when it opens a database without a list of free
// pages, and in its Check, but in goroutines of its own: a page that makes no
// sense there ends the process. Its Check also reads what writers are changing.
// So the pages are checked here, by reading the file.
//
// A page has a header of 16 bytes: its number (8), flags and count of elements
// (2 each), number of pages that follow it and belong to it (4). Elements have
// 16 bytes each. Of a branch: position of the key, counted from the element,
// its length (4 each), child page (8). Of a leaf: flags, position of the key,
// lengths of key and value (4 each). The value of a bucket begins with its root
// page and its sequence (8 each); if the root page is 0 a leaf page follows.
const (
	pageHeader  = 16
	pageElement = 16
	bucketHead  = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf's element

	noFreelist = ^uint64(0)
)

var order = binary.NativeEndian

// pageChecker walks the pages below a root.
type pageChecker struct {
	ctx      context.Context
	file     io.ReaderAt
	pageSize int64
	pages    uint64   // how many there are, the meta pages included
	seen     []uint64 // a bit for each page
	problems []string
}

// maxProblems is how many are told; where there is one there are many.
const maxProblems = 100

// checkPages returns what is wrong with the tree of pages below root.
func checkPages(ctx context.Context, file io.ReaderAt, m boltMeta) ([]string, error) {
	c := newPageChecker(ctx, file, m)
	c.tree(m.root, nil, nil)
	return c.problems, ctx.Err()
}

func newPageChecker(ctx context.Context, file io.ReaderAt, m boltMeta) *pageChecker {
	return &pageChecker{ctx: ctx, file: file, pageSize: m.pageSize, pages: m.pages, seen: make([]uint64, m.pages/64+1)}
}

func (c *pageChecker) fail(id uint64, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, fmt.Sprintf("page %d: ", id)+fmt.Sprintf(format, args...))
	}
}

// take marks a page and those that belong to it, and reports whether they are
// there and nobody else's.
func (c *pageChecker) take(id, n uint64) bool {
	if id < 2 || n > c.pages || id > c.pages-n {
		c.fail(id, "%d pages are not within the %d that there are", n, c.pages)
		return false
	}
	for i := id; i < id+n; i++ {
		if c.seen[i/64]&(1<<(i%64)) != 0 {
			c.fail(i, "is referred to twice")
			return false
		}
		c.seen[i/64] |= 1 << (i % 64)
	}
	return true
}

// load reads a page with those that belong to it.
func (c *pageChecker) load(id uint64) []byte {
	var head [pageHeader]byte
	if id >= c.pages {
		c.fail(id, "is beyond the last page, %d", c.pages-1)
		return nil
	}
	if _, err := c.file.ReadAt(head[:], int64(id)*c.pageSize); err != nil {
		c.fail(id, "%v", err)
		return nil
	}
	if got := order.Uint64(head[:]); got != id {
		c.fail(id, "says that it is page %d", got)
		return nil
	}
	n := uint64(order.Uint32(head[12:])) + 1
	if !c.take(id, n) {
		return nil
	}
	page := make([]byte, int64(n)*c.pageSize)
	if _, err := c.file.ReadAt(page, int64(id)*c.pageSize); err != nil {
		c.fail(id, "%v", err)
		return nil
	}
	return page
}

// tree checks a page and what lies below it. Its keys are not less than low
// and less than high, where those are not nil.
func (c *pageChecker) tree(id uint64, low, high []byte) {
	if c.ctx.Err() != nil {
		return
	}
	page := c.load(id)
	if page == nil {
		return
	}
	switch flags := order.Uint16(page[8:]); flags {
	case flagBranch:
		c.branch(id, page, low, high)
	case flagLeaf:
		c.leaf(id, page, low, high)
	default:
		c.fail(id, "has the flags %#x", flags)
	}
}

func (c *pageChecker) branch(id uint64, page, low, high []byte) {
	count := int(order.Uint16(page[10:]))
	if count == 0 {
		c.fail(id, "is a branch without children")
		return
	}
	keys, children := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at, ok := element(page, i)
		if !ok {
			c.fail(id, "has no room for %d elements", count)
			return
		}
		e := page[at:]
		keys[i], children[i] = cut(page, at, order.Uint32(e), order.Uint32(e[4:])), order.Uint64(e[8:])
		if keys[i] == nil {
			c.fail(id, "key %d lies outside", i)
			return
		}
	}
	if !c.ordered(id, keys, low, high) {
		return
	}
	for i, child := range children {
		next := high
		if i+1 < count {
			next = keys[i+1]
		}
		c.tree(child, keys[i], next)
	}
}

func (c *pageChecker) leaf(id uint64, page, low, high []byte) {
	count := int(order.Uint16(page[10:]))
	keys := make([][]byte, 0, count)
	for i := range count {
		at, ok := element(page, i)
		if !ok {
			c.fail(id, "has no room for %d elements", count)
			return
		}
		e := page[at:]
		flags, pos, ksize, vsize := order.Uint32(e), order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		both := cut(page, at, pos, uint64(ksize)+uint64(vsize))
		if both == nil || flags > flagBucket {
			c.fail(id, "element %d lies outside or has the flags %#x", i, flags)
			return
		}
		keys = append(keys, both[:ksize])
		if flags == flagBucket {
			c.bucket(id, both[ksize:])
		}
	}
	c.ordered(id, keys, low, high)
}

// bucket checks the bucket that is described by the value of an element.
func (c *pageChecker) bucket(id uint64, value []byte) {
	if len(value) < bucketHead {
		c.fail(id, "a bucket has %d bytes", len(value))
		return
	}
	if root := order.Uint64(value); root != 0 {
		c.tree(root, nil, nil)
		return
	}
	inline := value[bucketHead:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf {
		c.fail(id, "a bucket within the page is no leaf")
		return
	}
	c.leaf(id, inline, nil, nil)
}

// ordered reports whether the keys of a page rise, and lie where they should.
func (c *pageChecker) ordered(id uint64, keys [][]byte, low, high []byte) bool {
	for i, key := range keys {
		if i > 0 && bytes.Compare(keys[i-1], key) >= 0 || low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			c.fail(id, "key %d is out of order", i)
			return false
		}
	}
	return true
}

// element returns where element i of a page begins.
func element(page []byte, i int) (at int, ok bool) {
	at = pageHeader + i*pageElement
	return at, at+pageElement <= len(page)
}

// cut returns the n bytes at pos, counted from at, nil if they lie outside.
func cut[N uint32 | uint64](page []byte, at int, pos uint32, n N) []byte {
	from := uint64(at) + uint64(pos)
	if from > uint64(len(page)) || uint64(n) > uint64(len(page))-from {
		return nil
	}
	return page[from : from+uint64(n) : from+uint64(n)]
}

// checkFreelist returns what is wrong with the list of free pages by itself:
// its type, and pages that can't be.
func checkFreelist(file io.ReaderAt, m boltMeta) []string {
	c := newPageChecker(context.Background(), file, m)
	page := c.load(m.freelist)
	if page == nil {
		return c.problems
	}
	if flags := order.Uint16(page[8:]); flags != flagFreelist {
		c.fail(m.freelist, "should list free pages and has the flags %#x", flags)
		return c.problems
	}
	count, ids := uint64(order.Uint16(page[10:])), page[pageHeader:]
	if count == 0xFFFF && len(ids) >= 8 {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		c.fail(m.freelist, "has no room for %d free pages", count)
		return c.problems
	}
	for id := range slices.Chunk(ids[:count*8], 8) {
		if !c.take(order.Uint64(id), 1) {
			break
		}
	}
	return c.problems
}

// metaOf returns what a transaction knows of its pages.
func (db *DB) metaOf(tx *bolt.Tx) boltMeta {
	pageSize := int64(db.bolt.Info().PageSize)
	return boltMeta{pageSize: pageSize, pages: uint64(tx.Size() / pageSize), root: uint64(tx.Cursor().Bucket().Root())}
}
