package gc

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Keys is a set of byte strings in ascending order, each with an index. It
// takes little more memory than the bytes of the keys. Keys of one length
// should follow one another; each change of the length costs some memory.
//
// The zero value is an empty set. It must not be changed while it is read.
type Keys struct {
	runs []run
	n    int
}

// run is a sequence of keys of the same length.
type run struct {
	data   []byte
	stride int
	first  int // index of the first key
}

// Append adds a key, which must be greater than all that are there.
func (k *Keys) Append(key []byte) {
	if len(k.runs) == 0 || k.runs[len(k.runs)-1].stride != len(key) {
		k.runs = append(k.runs, run{stride: len(key), first: k.n})
	}
	last := &k.runs[len(k.runs)-1]
	last.data = append(last.data, key...)
	k.n++
}

// Len returns the number of keys.
func (k *Keys) Len() int { return k.n }

// At returns the key with index i. It must not be changed.
func (k *Keys) At(i int) []byte {
	for j := len(k.runs) - 1; j >= 0; j-- {
		if r := &k.runs[j]; i >= r.first {
			return r.at(i - r.first)
		}
	}
	panic("gc: index out of range")
}

// Find returns the index of key, and whether it is there.
func (k *Keys) Find(key []byte) (int, bool) {
	for j := range k.runs {
		r := &k.runs[j]
		if r.stride != len(key) {
			continue
		}
		if i, ok := r.find(key); ok {
			return r.first + i, true
		}
	}
	return 0, false
}

func (r *run) len() int { return len(r.data) / r.stride }

func (r *run) at(i int) []byte { return r.data[i*r.stride : (i+1)*r.stride : (i+1)*r.stride] }

// find searches by interpolation: keys end in hashes, so that where a key must
// be follows from its first bytes to within a few places. Should they not be
// spread evenly, halving the range now and then bounds the search.
func (r *run) find(key []byte) (int, bool) {
	lo, hi := 0, r.len() // key is in [lo, hi) if it is there
	for step := 0; lo < hi; step++ {
		mid := lo + (hi-lo)/2
		if step%3 != 2 {
			mid = r.guess(key, lo, hi)
		}
		switch c := bytes.Compare(r.at(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

// guess returns where in [lo, hi) key is if the keys there are spread evenly.
func (r *run) guess(key []byte, lo, hi int) int {
	low, high, want := leading(r.at(lo)), leading(r.at(hi-1)), leading(key)
	if want <= low {
		return lo
	}
	if want >= high {
		return hi - 1
	}
	// (want-low)/(high-low) of the way, in 128 bits.
	top, bottom := bits.Mul64(want-low, uint64(hi-1-lo))
	way, _ := bits.Div64(top, bottom, high-low)
	return lo + int(way)
}

// leading returns the eight bytes of a key after its first, as a number.
func leading(key []byte) uint64 {
	var b [8]byte
	if len(key) > 1 {
		copy(b[:], key[1:])
	}
	return binary.BigEndian.Uint64(b[:])
}
