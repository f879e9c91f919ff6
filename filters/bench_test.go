package filters_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/filters"
)

var benchmarks = []struct{ name, filter string }{
	{"equal", "labels.num==11"},
	{"present", "labels.nope"},
	{"regexp", "name~=^wex"},
	{"number", "size<10MiB"},
	{"time", "createdat<2020-01-01"},
	{"text_as_number", "labels.num>11"},
	{"three", "labels.num==10,size>=10MiB,name!=web"},
}

func BenchmarkParse(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := filters.Parse(bm.filter)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	r := newRecord()
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			f, err := filters.Parse(bm.filter)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				if f.Match(r) {
					b.Fatal("matches")
				}
			}
		})
	}
}
