package filters_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/filters"
)

// record is a record with fields of every type.
type record struct {
	text    map[string]string
	numbers map[string]int64
	times   map[string]time.Time
}

func (r *record) Field(path []string) (string, bool) {
	if len(path) == 1 {
		value, ok := r.text[path[0]]
		return value, ok
	}
	value, ok := r.text[path[0]+"."+path[1]]
	return value, ok
}

func (r *record) FieldNumber(path []string) (int64, bool) {
	n, ok := r.numbers[path[0]]
	return n, ok
}

func (r *record) FieldTime(path []string) (time.Time, bool) {
	t, ok := r.times[path[0]]
	return t, ok
}

// now is the time that ages in these tests count from.
var now = time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)

// parse parses a list whose ages count from now.
func parse(t *testing.T, list ...string) filters.Filter {
	t.Helper()
	f, err := filters.Parser{Now: func() time.Time { return now }}.ParseAll(list...)
	require.NoError(t, err)
	return f
}

func newRecord() *record {
	return &record{
		text: map[string]string{
			"labels.num": "10", "labels.neg": "-1.5", "labels.size": "2KiB", "labels.big": "99999999999999999999",
			"labels.day": "2026-05-01", "labels.at": "2026-05-01T10:00:00+02:00", "labels.bad": "2026-13-01T00:00:00Z",
			"labels.word": "ten", "labels.five": "5m", "labels.year": "2026", "labels.empty": "", "name": "web",
		},
		numbers: map[string]int64{"size": 10 << 20, "zero": 0, "negative": -5},
		times:   map[string]time.Time{"createdat": now.Add(-25 * time.Hour), "expiresat": now.Add(30 * time.Minute)},
	}
}

func TestOrder(t *testing.T) {
	// Numbers, sizes, times and ages compare by what they mean; what cannot be
	// compared matches nothing, whichever way.
	for _, tc := range []struct {
		filter string
		want   bool
	}{
		{"size<10MiB", false}, {"size<=10MiB", true}, {"size>10MiB", false}, {"size>=10MiB", true},
		{"size>10MB", true}, {"size>10m", true}, {"size>10M", true}, {"size>=10mib", true}, {"size<11Mi", true},
		{"size>10485759", true}, {"size>10485760", false}, {"size>=10.0MiB", true}, {"size>9.999999999MiB", true},
		{"size<10.000000001MiB", true}, {"size>0.01g", true}, {"size<1e", true}, {"size>1kB", true}, {"size>10240KiB", false},
		{"size<1ZB", false}, {"negative<0", true}, {"negative<=-5", true}, {"negative<-5.5", false}, {"negative>-5.5", true},
		{"zero<=-0", true}, {"zero>=+0", true}, {"zero<0.5", true}, {`size>="10MiB"`, true}, {"size >= 10MiB", true},
		{"size>2026-01-01", false}, {"size<2026-01-01", false},

		{"createdat<24h", true}, {"createdat>24h", false}, {"createdat<26h", false}, {"createdat>26h", true},
		{"createdat<1d", true}, {"createdat>1d2h", true}, {"createdat>-2d", true}, {"createdat<=25h", true}, {"createdat>=25h", true},
		{"createdat<1w", false}, {"createdat>5m", false}, {"createdat<5m", true}, {"createdat>1.5d", true},
		{"expiresat<+1h", true}, {"expiresat<+20m", false}, {"expiresat>0s", true},
		{"createdat<2026-05-10", true}, {"createdat>=2026-05-09", true}, {"createdat>2026-05", true}, {"createdat<2026-06", true},
		{"createdat>2026", true}, {"createdat>2027", false}, {"createdat<2026-05-09T13:00:00+02:00", false},
		{"createdat<=2026-05-09T13:00:00+02:00", true}, {"createdat>=2026-05-09T11:00:00Z", true},
		{"createdat>2026-05-09T10:59:59.999999999Z", true}, {"createdat<10MiB", false}, {"createdat>10MiB", false},

		{"labels.num>9", true}, {"labels.num<9", false}, {"labels.num<=10", true}, {"labels.num<1k", true},
		{"labels.neg<-1", true}, {"labels.neg>-1.6", true}, {"labels.size>=2048", true}, {"labels.size>2047,labels.size<2049", true},
		{"labels.big>1", false}, {"labels.word>1", false}, {"labels.word<1", false}, {"labels.empty<1", false},
		{"labels.day<2026-05-02", true}, {"labels.day<24h", true}, {"labels.at>2026-05-01T07:59:59Z", true},
		{"labels.at<2026-05-01T08:00:01Z", true}, {"labels.bad<2030-01-01", false}, {"labels.bad>2000-01-01", false},
		{"labels.five>4M", true}, {"labels.five<1h", false}, {"labels.year>2025", true}, {"labels.year>2025-12-31", false},
		{"labels.nope<1", false}, {"labels.nope>=0", false}, {"nope<2030-01-01", false},
	} {
		f, err := filters.Parser{Now: func() time.Time { return now }}.Parse(tc.filter)
		if strings.Contains(tc.filter, "ZB") {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tc.want, f.Match(newRecord()), "%s", tc.filter)
	}
}

func TestTypedEquality(t *testing.T) {
	// Fields that are declared as numbers or times are equal by value; text is
	// equal by text.
	for filter, want := range map[string]bool{
		"size==10485760":                           true,
		"size==10MiB":                              true,
		"size!=10MiB":                              false,
		"size==10MB":                               false,
		"size!=10MB":                               true,
		"size==ten":                                false,
		"size!=ten":                                true,
		"createdat==2026-05-09T11:00:00Z":          true,
		"createdat==2026-05-09T13:00:00+02:00":     true,
		"createdat!=2026-05-09T13:00:00+02:00":     false,
		"createdat==2026-05-09":                    false,
		"labels.num==10":                           true,
		"labels.num==10.0":                         false,
		"labels.num==010":                          false,
		"labels.at==2026-05-01T08:00:00Z":          false,
		"labels.at==\"2026-05-01T10:00:00+02:00\"": true,
		"size,createdat,expiresat,zero":            true,
		"size.more":                                true,
	} {
		require.Equal(t, want, parse(t, filter).Match(newRecord()), "%s", filter)
	}
}

func TestAbsence(t *testing.T) {
	// A field that is not there never equals, always differs, and is empty to a
	// regular expression; presence can be asked for beside.
	r := newRecord()
	for filter, want := range map[string]bool{
		"labels.nope":                  false,
		"labels.nope==x":               false,
		`labels.nope==""`:              false,
		"labels.nope!=x":               true,
		`labels.nope!=""`:              false,
		"labels.nope~=^$":              true,
		"labels.nope~=x":               false,
		"labels.nope,labels.nope!=x":   false,
		"labels.num,labels.num!=x":     true,
		"labels.num,labels.num!=10":    false,
		"labels.num~=^$":               false,
		"labels.empty~=^$":             true,
		`labels.empty==""`:             true,
		"labels.empty,labels.empty!=x": true,
	} {
		require.Equal(t, want, parse(t, filter).Match(r), "%s", filter)
	}
}

func TestLabelKeys(t *testing.T) {
	// Dashes and slashes stand bare in the keys of labels, and nowhere else.
	r := &record{text: map[string]string{"labels.containerd.io/gc-root": "x", "labels.a-": "y"}}
	for _, filter := range []string{
		"labels.containerd.io/gc-root", "labels.containerd.io/gc-root==x", "labels.containerd.io/gc-root~=/x/",
		`labels."containerd.io/gc-root"`, `labels.containerd."io/gc-root"`, `"labels".containerd.io/gc-root`,
		"labels.a-==y", "labels.a-,labels.a-==y",
	} {
		require.True(t, parse(t, filter).Match(r), "%s", filter)
	}
	for _, filter := range []string{"a-b", "a/b", "a.b-c==x", "label.a-b", "labels.-a", "labels./a", "labels-a.b"} {
		_, err := filters.Parse(filter)
		require.Error(t, err, "%s", filter)
	}
}

func TestLists(t *testing.T) {
	// Of a list one has to match; nothing at all and an empty one match
	// everything; a bad one spoils the list.
	r := newRecord()
	require.True(t, parse(t).Match(r))
	require.True(t, parse(t, "").Match(r))
	require.True(t, parse(t, "nope", "").MatchesAll())
	require.False(t, parse(t, "nope", "nope2").Match(r))
	require.True(t, parse(t, "nope", "name==web").Match(r))
	require.True(t, filters.Always.Match(r))
	require.True(t, filters.Filter{}.MatchesAll())
	_, err := filters.ParseAll("", "a=b")
	require.Error(t, err)
}

func TestClock(t *testing.T) {
	// All ages of a list count from one moment, and without an age nobody asks.
	calls := 0
	p := filters.Parser{Now: func() time.Time { calls++; return now.Add(time.Duration(calls) * time.Hour) }}
	_, err := p.ParseAll("size>10MiB", "createdat>2026-01-01", "labels.a~=1h")
	require.NoError(t, err)
	require.Zero(t, calls)
	_, err = p.ParseAll("createdat>1h", "createdat<2h,expiresat>1d")
	require.NoError(t, err)
	require.Equal(t, 1, calls)

	f, err := filters.Parse("createdat<24h")
	require.NoError(t, err)
	require.True(t, f.Match(&record{times: map[string]time.Time{"createdat": time.Now().Add(-25 * time.Hour)}}))
	require.False(t, f.Match(&record{times: map[string]time.Time{"createdat": time.Now().Add(-23 * time.Hour)}}))
}

func TestInspection(t *testing.T) {
	// A planner can read alternatives, and in them paths, operators and values.
	f := parse(t, `digest=="sha256:x",labels.a."b.c"!=d`, "size>=10MiB", "x.y.z")
	alternatives := f.Alternatives()
	require.Len(t, alternatives, 3)
	type selector struct {
		path  []string
		op    filters.Operator
		value string
	}
	var got [][]selector
	for _, c := range alternatives {
		var list []selector
		for i := range c {
			list = append(list, selector{c[i].Path(), c[i].Operator(), c[i].Value()})
		}
		got = append(got, list)
	}
	require.Equal(t, [][]selector{
		{{[]string{"digest"}, filters.Equal, "sha256:x"}, {[]string{"labels", "a.b.c"}, filters.NotEqual, "d"}},
		{{[]string{"size"}, filters.GreaterOrEqual, "10MiB"}},
		{{[]string{"x", "y.z"}, filters.Present, ""}},
	}, got)
	require.Equal(t, `digest==sha256:x,labels.a.b.c!=d or size>=10MiB or x.y.z`, f.String())
	require.Equal(t, "size>=10MiB", alternatives[1][0].String())
}

// raceDetector is whether the tests run under it.
var raceDetector bool

func TestMatchDoesNotAllocate(t *testing.T) {
	// Matching allocates nothing for a record, whatever the operator and
	// whether the field can be read or not.
	if raceDetector {
		t.Skip("pools allocate under the race detector; the run without it checks this")
	}
	r := newRecord()
	f := parse(t,
		"labels.nope", "name==x", "labels.num!=10", "name~=^we.$,name~=^x|y", "size<3,createdat>1h", "size==3",
		"createdat==2026-05-01T00:00:00Z", "labels.at>2026-06-01", "labels.bad>2000", "labels.word>1", "labels.a.b.c.d-e/f",
		"labels.neg>1", "labels.big>1", "labels.day>1h")
	require.False(t, f.Match(r), "every alternative has to be tried")
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Match(r) }))
}
