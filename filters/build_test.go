package filters_test

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cellarstore/cellar/filters"
)

func TestBuild(t *testing.T) {
	// A built filter is printed as an expression that reads as the same.
	at := time.Date(2026, 5, 1, 10, 0, 0, 5, time.FixedZone("", 7200))
	re, err := filters.Match("labels.v", `^v[12],\d`)
	require.NoError(t, err)
	for _, tc := range []struct {
		filter filters.Filter
		want   []string
	}{
		{filters.Has("digest"), []string{"digest"}},
		{filters.Eq("labels.app", "web"), []string{"labels.app==web"}},
		{filters.Eq("labels.a b.c", `x",y==z`), []string{`labels."a b.c"=="x\",y==z"`}},
		{filters.Ne("labels.containerd.io/gc.root", ""), []string{`labels.containerd.io/gc.root!=""`}},
		{filters.Lacks("labels.a"), []string{"labels.a~=^$"}},
		{re, []string{`labels.v~="^v[12],\\d"`}},
		{filters.Lt("size", 10), []string{"size<10"}},
		{filters.Le("size", int64(1)<<40), []string{"size<=1099511627776"}},
		{filters.Gt("createdat", at), []string{"createdat>2026-05-01T08:00:00.000000005Z"}},
		{filters.Ge("createdat", 36*time.Hour), []string{"createdat>=36h0m0s"}},
		{filters.Lt("expiresat", -time.Minute), []string{"expiresat<+1m0s"}},
		{filters.Lt("size", -3), []string{"size<-3"}},
		{filters.Lt("createdat", time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)), []string{"createdat<9999-12-31T23:59:59.999999999Z"}},
		{filters.Gt("createdat", time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)), []string{"createdat>0000-01-01T00:00:00Z"}},
		{filters.Gt("createdat", time.Time{}), []string{"createdat>0001-01-01T00:00:00Z"}},
		{filters.And(filters.Has("a"), filters.Ne("a", "x")), []string{"a,a!=x"}},
		{filters.Or(filters.Has("a"), filters.Has("b")), []string{"a", "b"}},
		{
			filters.And(filters.Or(filters.Has("a"), filters.Has("b")), filters.Has("c"), filters.Or(filters.Has("d"), filters.Has("e"))),
			[]string{"a,c,d", "a,c,e", "b,c,d", "b,c,e"},
		},
		{filters.And(), []string{}},
		{filters.Or(), []string{}},
		{filters.Or(filters.Has("a"), filters.Always), []string{}},
		{filters.And(filters.Has("a"), filters.Always), []string{"a"}},
	} {
		require.Equal(t, tc.want, tc.filter.Strings())
		again, err := filters.ParseAll(tc.want...)
		require.NoError(t, err, "%q", tc.want)
		require.Equal(t, tc.want, again.Strings())
		require.Equal(t, shape(tc.filter), shape(again))
	}
}

func TestBuiltFiltersMatch(t *testing.T) {
	// A built filter matches without being printed and parsed.
	r := newRecord()
	r.times["createdat"] = time.Now().Add(-25 * time.Hour)
	for _, f := range []filters.Filter{
		filters.Eq("labels.num", "10"), filters.Ge("size", 10<<20), filters.Lt("createdat", 24*time.Hour),
		filters.Lacks("labels.nope"), filters.Or(filters.Has("nope"), filters.Has("name")), filters.Eq("size", "10MiB"),
	} {
		require.True(t, f.Match(r), "%s", f)
	}
	for _, f := range []filters.Filter{
		filters.Eq("labels.num", "11"), filters.Lt("size", 10<<20), filters.Gt("createdat", 24*time.Hour),
		filters.Lacks("labels.num"), filters.And(filters.Has("nope"), filters.Has("name")),
	} {
		require.False(t, f.Match(r), "%s", f)
	}
}

func TestBuildIsNotChangedLater(t *testing.T) {
	// Filters that share parts do not write over one another.
	base := filters.Or(filters.Has("a"), filters.Has("b"), filters.Has("c"))
	first := filters.Or(base, filters.Has("d"))
	second := filters.Or(base, filters.Has("e"))
	both := filters.And(filters.Eq("x", "1"), filters.Eq("y", "2"))
	third := filters.And(both, filters.Has("f"))
	fourth := filters.And(both, filters.Has("g"))
	require.Equal(t, "a or b or c or d", first.String())
	require.Equal(t, "a or b or c or e", second.String())
	require.Equal(t, "x==1,y==2,f", third.String())
	require.Equal(t, "x==1,y==2,g", fourth.String())
}

func TestMatchRefuses(t *testing.T) {
	// A pattern that does not compile, or is too much, is InvalidArgument.
	for _, pattern := range []string{"(", `(\pL{10}){100}`, strings.Repeat("x", filters.MaxPattern+1)} {
		_, err := filters.Match("a", pattern)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
		require.Less(t, len(err.Error()), 300)
	}
}

func TestAnyValueCanBeQuoted(t *testing.T) {
	// Whatever bytes a field and a value have, what is printed finds them again.
	rapid.Check(t, func(t *rapid.T) {
		key := string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "key"))
		value := string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "value"))
		f, err := filters.Parse(filters.Eq("labels."+key, value).String())
		require.NoError(t, err)
		require.True(t, f.Match(&record{text: map[string]string{"labels." + key: value}}))
		require.False(t, f.Match(&record{text: map[string]string{"labels." + key: value + "x"}}))
	})
}
