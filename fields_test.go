package cellar_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
)

// typed is all that a record can offer to filters.
type typed interface {
	filters.Fielder
	filters.NumberFielder
	filters.TimeFielder
}

var (
	_ typed = (*cellar.Info)(nil)
	_ typed = (*cellar.Status)(nil)
)

func TestFields(t *testing.T) {
	// Each field of a record is text, and a number or time where it is one;
	// what is not known is not there.
	at := time.Date(2026, 5, 1, 10, 0, 0, 5, time.FixedZone("", 7200))
	info := &cellar.Info{Digest: "sha256:x", Size: 3, CreatedAt: at, Labels: map[string]string{"a": "1", "b.c": "2"}}
	status := &cellar.Status{Ref: "r", Offset: 7, Total: 9, Expected: "sha256:y", StartedAt: at, UpdatedAt: at}
	const text = "2026-05-01T08:00:00.000000005Z"
	for _, tc := range []struct {
		record       typed
		path         []string
		want         string
		number, time bool
	}{
		{info, []string{"digest"}, "sha256:x", false, false},
		{info, []string{"digest", "more"}, "sha256:x", false, false},
		{info, []string{"size"}, "3", true, false},
		{&cellar.Info{}, []string{"size"}, "0", true, false},
		{info, []string{"createdat"}, text, false, true},
		{info, []string{"labels", "a"}, "1", false, false},
		{info, []string{"labels", "b.c"}, "2", false, false},
		{info, []string{"labels", "b", "c"}, "2", false, false},
		{status, []string{"ref"}, "r", false, false},
		{status, []string{"offset"}, "7", true, false},
		{&cellar.Status{}, []string{"offset"}, "0", true, false},
		{status, []string{"total"}, "9", true, false},
		{status, []string{"expected"}, "sha256:y", false, false},
		{status, []string{"startedat"}, text, false, true},
		{status, []string{"updatedat"}, text, false, true},
	} {
		value, ok := tc.record.Field(tc.path)
		require.True(t, ok, "%T %q", tc.record, tc.path)
		require.Equal(t, tc.want, value, "%T %q", tc.record, tc.path)
		_, ok = tc.record.FieldNumber(tc.path)
		require.Equal(t, tc.number, ok, "%T %q", tc.record, tc.path)
		got, ok := tc.record.FieldTime(tc.path)
		require.Equal(t, tc.time, ok, "%T %q", tc.record, tc.path)
		require.True(t, !ok || got.Equal(at))
	}
	for _, tc := range []struct {
		record typed
		path   []string
	}{
		{info, nil}, {info, []string{"updatedat"}}, {info, []string{"labels"}}, {info, []string{"labels", "z"}}, {info, []string{"Size"}}, {info, []string{"ref"}},
		{status, nil}, {status, []string{"digest"}}, {status, []string{"labels", "a"}},
		{&cellar.Status{}, []string{"total"}}, {&cellar.Status{}, []string{"expected"}}, {&cellar.Status{}, []string{"startedat"}},
	} {
		_, ok := tc.record.Field(tc.path)
		require.False(t, ok, "%T %q", tc.record, tc.path)
		_, ok = tc.record.FieldNumber(tc.path)
		require.False(t, ok, "%T %q", tc.record, tc.path)
		_, ok = tc.record.FieldTime(tc.path)
		require.False(t, ok, "%T %q", tc.record, tc.path)
	}
}

// raceDetector is whether the tests run under it.
var raceDetector bool

func TestFiltersMatchContent(t *testing.T) {
	// Sizes and times of content can be asked for, without allocating.
	info := &cellar.Info{
		Digest: "sha256:x", Size: 10 << 20, CreatedAt: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC),
		Labels: map[string]string{"containerd.io/gc.root": "1"},
	}
	for _, list := range [][]string{
		{"size>=10MiB"}, {"size==10MiB,createdat>2026-04,createdat<2026-05-02"}, {"labels.containerd.io/gc.root"},
		{"nope", "digest==sha256:x"}, {"size!=5"}, {"createdat~=^2026-05-01T10:00:00Z$"}, {"updatedat~=^$"},
	} {
		f, err := filters.ParseAll(list...)
		require.NoError(t, err)
		require.True(t, f.Match(info), "%q", list)
	}
	f, err := filters.ParseAll("size<3", "createdat<2020", "updatedat", "labels.app==web", "digest~=y", "size==3", "createdat==2026-01-01")
	require.NoError(t, err)
	require.False(t, f.Match(info))
	if !raceDetector {
		require.Zero(t, testing.AllocsPerRun(100, func() { f.Match(info) }))
	}
}
