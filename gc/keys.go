package gc

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Keys is a set of byte strings in ascending order, each with an index. It
// takes little more memory than the bytes of the keys, also while it grows.
// Keys of one length should follow one another; each change of the length costs
// about a hundred bytes.
//
// The zero value is an empty set. It must not be changed while it is read;
// many may read it at once.
type Keys struct {
	runs []run
	n    int
}

// run is a sequence of keys of the same length.
type run struct {
	// chunks hold the keys one after the other, chunkKeys in each but the last.
	// A full chunk is not copied again.
	chunks [][]byte
	stride int
	first  int // index of the first key
	n      int
}

const chunkKeys = 1 << 12

// Append adds a copy of key, which must be greater than all that are there.
func (k *Keys) Append(key []byte) {
	if len(k.runs) == 0 || k.runs[len(k.runs)-1].stride != len(key) {
		k.runs = append(k.runs, run{stride: len(key), first: k.n})
	}
	k.runs[len(k.runs)-1].append(key)
	k.n++
}

func (r *run) append(key []byte) {
	switch {
	case r.n == 0:
		r.chunks = append(r.chunks, nil) // grows as it must: many sets are small
	case r.n%chunkKeys == 0:
		r.chunks = append(r.chunks, make([]byte, 0, chunkKeys*r.stride))
	}
	last := &r.chunks[len(r.chunks)-1]
	*last = append(*last, key...)
	r.n++
}

// Len returns the number of keys.
func (k *Keys) Len() int { return k.n }

// At returns the key with index i, which must be one of the set. The key must
// not be changed.
func (k *Keys) At(i int) []byte {
	r := &k.runs[0]
	if len(k.runs) > 1 {
		j, found := slices.BinarySearchFunc(k.runs, i, func(r run, i int) int { return r.first - i })
		if !found {
			j--
		}
		r = &k.runs[j]
	}
	return r.at(i - r.first)
}

// Find returns the index of key, and whether it is there.
func (k *Keys) Find(key []byte) (int, bool) {
	// If it is there, it is in the last run that begins with it or before it.
	j, found := slices.BinarySearchFunc(k.runs, key, func(r run, key []byte) int { return bytes.Compare(r.at(0), key) })
	if found {
		return k.runs[j].first, true
	}
	if j == 0 || k.runs[j-1].stride != len(key) {
		return 0, false
	}
	r := &k.runs[j-1]
	i, found := r.find(key)
	return r.first + i, found
}

func (r *run) at(i int) []byte {
	from := i % chunkKeys * r.stride
	return r.chunks[i/chunkKeys][from : from+r.stride : from+r.stride]
}

// find searches by interpolation: keys end in hashes, so that where a key must
// be follows from its first bytes to within a few places. Should they not be
// spread evenly, halving the range now and then bounds the search. All keys of
// the run are as long as key.
func (r *run) find(key []byte) (int, bool) {
	lo, hi := 0, r.n // key is in [lo, hi) if it is there
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
