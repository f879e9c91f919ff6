package cellar_test

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
)

var (
	_ filters.NumberFielder = cellar.Info{}
	_ filters.TimeFielder   = cellar.Info{}
	_ filters.NumberFielder = cellar.Status{}
	_ filters.TimeFielder   = cellar.Status{}
)

// Info and Status have exactly the fields that filters may name, and show the
// same value as text, number and time.
func TestFields(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	later := at.Add(time.Hour)
	info := cellar.Info{Digest: digest.FromString("x"), Size: 7, CreatedAt: at, UpdatedAt: later, Labels: map[string]string{"a.b": "v", "": "odd"}}
	status := cellar.Status{Ref: "r", Offset: 3, Total: 9, Expected: digest.FromString("y"), StartedAt: at, UpdatedAt: later}
	for _, tc := range []struct {
		record filters.Fielder
		path   []string
		want   string
		there  bool
	}{
		{info, []string{"digest"}, digest.FromString("x").String(), true},
		{info, []string{"size"}, "7", true},
		{info, []string{"createdat"}, "2026-01-02T03:04:05.000000006Z", true},
		{info, []string{"updatedat"}, "2026-01-02T04:04:05.000000006Z", true},
		{info, []string{"labels", "a.b"}, "v", true},
		{info, []string{"labels", "a"}, "", false},
		{info, []string{"labels"}, "", false},
		{info, []string{"size", "x"}, "", false},
		{info, []string{"ref"}, "", false},
		{info, nil, "", false},
		{status, []string{"ref"}, "r", true},
		{status, []string{"offset"}, "3", true},
		{status, []string{"total"}, "9", true},
		{status, []string{"expected"}, digest.FromString("y").String(), true},
		{status, []string{"startedat"}, "2026-01-02T03:04:05.000000006Z", true},
		{status, []string{"updatedat"}, "2026-01-02T04:04:05.000000006Z", true},
		{status, []string{"ref", "x"}, "", false},
		{status, []string{"labels", "a"}, "", false},
		{cellar.Status{}, []string{"total"}, "", false},
		{cellar.Status{}, []string{"expected"}, "", false},
	} {
		got, there := tc.record.Field(tc.path)
		require.Equal(t, tc.there, there, "%v", tc.path)
		if there {
			require.Equal(t, tc.want, got, "%v", tc.path)
		}
	}
}
