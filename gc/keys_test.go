package gc_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cellarstore/cellar/gc"
)

// setOf returns the set of keys, which may be in any order and repeat.
func setOf(keys ...[]byte) (*gc.Keys, [][]byte) {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, bytes.Compare)
	keys = slices.CompactFunc(keys, bytes.Equal)
	set := &gc.Keys{}
	for _, key := range keys {
		set.Append(key)
	}
	return set, keys
}

// digests returns n keys as those of content are: a byte for the algorithm, then
// a hash.
func digests(n int) *gc.Keys {
	all := make([][33]byte, n)
	for i := range all {
		all[i][0] = 1
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		copy(all[i][1:], sum[:])
	}
	slices.SortFunc(all, func(a, b [33]byte) int { return bytes.Compare(a[:], b[:]) })
	keys := &gc.Keys{}
	for i := range all {
		keys.Append(all[i][:])
	}
	return keys
}

// skewed returns n keys of which most lie close together, again and again on
// every scale, so that guessing where one is does as badly as it can.
func skewed(n int) *gc.Keys {
	numbers := map[uint64]bool{}
	for i := 0; len(numbers) < n; i++ {
		numbers[uint64(1)<<(i%63)+uint64(i/63)] = true
	}
	all := make([][]byte, 0, n)
	for number := range numbers {
		key := binary.BigEndian.AppendUint64([]byte{1}, number)
		all = append(all, append(key, make([]byte, 24)...))
	}
	keys, _ := setOf(all...)
	return keys
}

// permutation returns the numbers below n in an order that is always the same.
func permutation(n int) []int { return rand.New(rand.NewPCG(1, 2)).Perm(n) }

func TestFind(t *testing.T) {
	// Every key is found at its place and nothing else is found, however the
	// keys are spread and whatever their lengths.
	for name, key := range map[string]*rapid.Generator[[]byte]{
		"random, one length": rapid.SliceOfN(rapid.Byte(), 8, 8),
		"of few values":      rapid.SliceOfN(rapid.ByteRange(0, 2), 5, 5),
		"mixed lengths":      rapid.SliceOfN(rapid.ByteRange(0, 3), 0, 6),
		"of digests":         digestKeys(),
		"skewed":             skewedKeys(),
	} {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			set, want := setOf(rapid.SliceOf(key).Draw(t, "keys")...)
			require.Equal(t, len(want), set.Len())
			for i, key := range want {
				require.Equal(t, key, append([]byte{}, set.At(i)...))
				at, ok := set.Find(key)
				require.True(t, ok, "%x", key)
				require.Equal(t, i, at, "%x", key)
			}
			for _, other := range rapid.SliceOf(key).Draw(t, "others") {
				at, ok := set.Find(other)
				place, there := slices.BinarySearchFunc(want, other, bytes.Compare)
				require.Equal(t, there, ok, "%x", other)
				if there {
					require.Equal(t, place, at, "%x", other)
				}
			}
		}))
	}
}

// digestKeys generates keys of two algorithms, with hashes of different length.
func digestKeys() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		sum := sha256.Sum256([]byte{rapid.Byte().Draw(t, "content")})
		if rapid.Bool().Draw(t, "long") {
			return slices.Concat([]byte{3}, sum[:], sum[:])
		}
		return slices.Concat([]byte{1}, sum[:])
	})
}

// skewedKeys generates numbers of all magnitudes.
func skewedKeys() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		n := uint64(1)<<rapid.IntRange(0, 63).Draw(t, "magnitude") + rapid.Uint64Range(0, 3).Draw(t, "more")
		return binary.BigEndian.AppendUint64([]byte{rapid.ByteRange(1, 2).Draw(t, "first")}, n)
	})
}

func TestFindAmongMany(t *testing.T) {
	// The same holds for sets of more keys than are kept in one piece: what is
	// there is found, what is one bit off is not.
	for name, keys := range map[string]*gc.Keys{"digests": digests(20_000), "skewed": skewed(20_000)} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, 20_000, keys.Len())
			for i := range keys.Len() {
				key := keys.At(i)
				at, ok := keys.Find(key)
				require.True(t, ok && at == i, "%x", key)
				other := bytes.Clone(key)
				other[len(other)-1] ^= 1
				_, ok = keys.Find(other)
				require.False(t, ok, "%x", other)
			}
		})
	}
}

func TestFindIsBounded(t *testing.T) {
	// Finding one of 100,000 keys is not slow where they lie as close together
	// as they can beside one that is far away, so that each guess is the first.
	const n = 100_000
	clustered := &gc.Keys{}
	for i := range n {
		clustered.Append(binary.BigEndian.AppendUint64([]byte{1}, uint64(i)))
	}
	clustered.Append(bytes.Repeat([]byte{0xff}, 9))
	even := digests(n)
	took := func(keys *gc.Keys) time.Duration {
		start := time.Now()
		for i := 0; i < n; i += n / 1000 {
			at, ok := keys.Find(keys.At(i))
			require.True(t, ok && at == i)
		}
		return time.Since(start)
	}
	took(even)
	require.Less(t, took(clustered), 100*took(even))
}

func TestFindInManyRuns(t *testing.T) {
	// Finding stays quick if each key has another length than the one before,
	// and so does At.
	set := &gc.Keys{}
	var want [][]byte
	for i := range 50_000 {
		key := binary.BigEndian.AppendUint32(nil, uint32(i))
		key = append(key, make([]byte, i%2)...)
		set.Append(key)
		want = append(want, key)
	}
	for i, key := range want {
		at, ok := set.Find(key)
		require.True(t, ok && at == i && bytes.Equal(key, set.At(i)), "%x", key)
	}
}

func TestEmptyKeys(t *testing.T) {
	// Nothing is found in an empty set, and the empty key is a key like others.
	var none gc.Keys
	_, ok := none.Find(nil)
	require.False(t, ok)
	require.Zero(t, none.Len())

	set, _ := setOf([]byte{}, []byte{0}, []byte{0, 0})
	for i, key := range [][]byte{{}, {0}, {0, 0}} {
		at, ok := set.Find(key)
		require.True(t, ok && at == i, "%x", key)
	}
}

func TestAtIsTheCallersOwnSlice(t *testing.T) {
	// Appending to what At returned does not change the keys behind it.
	set, want := setOf([]byte("a"), []byte("b"), []byte("c"))
	_ = append(set.At(0), 'x')
	for i := range want {
		require.Equal(t, want[i], set.At(i))
	}
}

func TestMemoryPerKey(t *testing.T) {
	// 100,000 digests, with what marking them needs, take less than 40 bytes
	// each, and while the set grows no more than that is allocated in all
	// beyond a fixed amount.
	const n, most, fixed = 100_000, 40, 512 << 10
	source := digests(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	keys := &gc.Keys{}
	for i := range n {
		keys.Append(source.At(i))
	}
	marks := gc.NewMarks(keys)
	marks.Flat(keys.At(0))
	runtime.ReadMemStats(&after)
	require.Less(t, (after.TotalAlloc-before.TotalAlloc-fixed)/n, uint64(most), "bytes allocated for each key")
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc-before.HeapAlloc)/n, int64(most), "bytes kept for each key")
	runtime.KeepAlive(source)
	runtime.KeepAlive(keys)
	runtime.KeepAlive(marks)
}

func TestKeysAreCopied(t *testing.T) {
	// The caller may use the bytes of a key again once it is appended.
	buf := []byte("key 0")
	set := &gc.Keys{}
	for i := range 10 {
		buf[4] = byte('0' + i)
		set.Append(buf)
	}
	for i := range 10 {
		require.Equal(t, fmt.Sprintf("key %d", i), string(set.At(i)))
	}
}
