package gc_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/gc"
)

const benchNodes = 1_000_000

func BenchmarkFind(b *testing.B) {
	// Finding one of a million digests, in no order.
	keys := digests(benchNodes)
	order := permutation(benchNodes)
	for i := 0; b.Loop(); i++ {
		if _, ok := keys.Find(keys.At(order[i%benchNodes])); !ok {
			b.Fatal("a key is not found")
		}
	}
}

func BenchmarkFindSkewed(b *testing.B) {
	// The same if the keys are spread as unevenly as eight bytes can be.
	keys := skewed(benchNodes)
	order := permutation(benchNodes)
	for i := 0; b.Loop(); i++ {
		if _, ok := keys.Find(keys.At(order[i%benchNodes])); !ok {
			b.Fatal("a key is not found")
		}
	}
}

func BenchmarkRun(b *testing.B) {
	// Marking a million nodes in graphs of one parent and ten children; a
	// tenth is garbage. ns/op divided by a million is the cost of a record.
	keys := digests(benchNodes)
	order := permutation(benchNodes)
	parent := make([]int32, benchNodes) // where in order its children begin, or 0
	for at := 0; at+11 <= benchNodes; at += 11 {
		parent[order[at]] = int32(at) + 1
	}
	refs := func(i int, yield func(key []byte)) error {
		if at := int(parent[i]); at > 0 {
			for _, child := range order[at : at+10] {
				yield(keys.At(child))
			}
		}
		return nil
	}
	b.ReportAllocs()
	for b.Loop() {
		marks := gc.NewMarks(keys)
		for at := 0; at+11 <= benchNodes/10*9; at += 11 {
			marks.RootAt(order[at])
		}
		require.NoError(b, marks.Run(context.Background(), refs))
		require.InDelta(b, benchNodes/10*9, marks.Live(), 20)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchNodes, "ns/node")
}
