package filters_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/filters"
)

func TestErrors(t *testing.T) {
	// An error says where it is, what is wrong and what to write instead.
	for _, tc := range []struct {
		filter        string
		offset        int
		message, hint string
	}{
		{"foo=bar", 3, `no operator "="`, "equal is =="},
		{"foo=~bar", 3, `no operator "=~"`, "~="},
		{"foo!==bar", 3, `no operator "!=="`, "unequal is !="},
		{"foo<bar", 4, "no number, size, time or age", "10MiB"},
		{"foo<>1", 4, "no number", "2026-01-31"},
		{"foo&&bar", 3, "where an operator should be", "comma means and"},
		{"foo|bar", 3, "where an operator should be", "mean or"},
		{"foo-bar==1", 3, "where an operator should be", "quoted"},
		{"foo==", 5, "value is missing", `""`},
		{"foo==,a", 5, "value is missing", "comma"},
		{"foo~=.*", 5, "begins with .", "quote"},
		{"foo==/x/", 5, "begins with /", "quote"},
		{"foo~=/x", 5, "not closed", "quoted"},
		{`foo=="x`, 5, "not closed", ""},
		{`foo=="x\`, 7, "not closed", ""},
		{`foo=="\d"`, 6, `no escape \d`, `\\`},
		{`foo=="\x4"`, 6, "without its 2 digits", ""},
		{`foo=="\400"`, 6, "no character", ""},
		{`foo=="\U00110000"`, 6, "no character", ""},
		{"foo==\"a\nb\"", 7, "line break", `\n`},
		{"!foo", 0, "name of a field should begin", "~=^$"},
		{"foo,", 4, "name of a field is missing", ""},
		{"é==1", 0, "name of a field should begin", "quoted"},
		{"foo ", 4, "blanks at the end", ""},
		{"foo==a b", 6, "after a selector", "quoted"},
		{`foo=="a"b`, 8, "after a selector", "commas"},
		{"foo==é\xff", 7, "not UTF-8", `\xff`},
		{"foo==\x00", 5, "NUL", `\x00`},
		{"foo~=(", 5, "missing closing )", ""},
		{`a~=b,foo~="a{2000}"`, 10, "invalid repeat count", ""},
	} {
		t.Run(tc.filter, func(t *testing.T) {
			_, err := filters.ParseAll("fine", tc.filter)
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
			var bad *filters.ParseError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, tc.filter, bad.Input)
			require.Equal(t, tc.offset, bad.Offset, "%v", err)
			require.Contains(t, bad.Message, tc.message)
			require.Contains(t, bad.Hint, tc.hint)
			require.Contains(t, err.Error(), tc.message)
			require.Contains(t, err.Error(), tc.hint)
		})
	}
}

func TestErrorShowsThePlace(t *testing.T) {
	// The caret stands below the place, on one line, however long the input.
	_, err := filters.Parse("size>=1,foo=bar")
	require.EqualError(t, err, `filter: there is no operator "=" at byte 11 `+
		`(equal is ==, and a value that begins with = ! or ~ is quoted with "): invalid argument`+
		"\n\tsize>=1,foo=bar\n\t           ^")

	for _, input := range []string{
		strings.Repeat("é日", 1000) + "=", `"` + strings.Repeat("é\t", 1000) + `"=x` + strings.Repeat("\n", 1000), "\xff\xff", "a==\n\n\"",
	} {
		_, err := filters.Parse(input)
		var bad *filters.ParseError
		require.ErrorAs(t, err, &bad)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, 3)
		require.Less(t, utf8.RuneCountInString(lines[1]), 90)
		require.LessOrEqual(t, utf8.RuneCountInString(lines[2]), utf8.RuneCountInString(lines[1])+1)
		require.True(t, utf8.ValidString(err.Error()))
	}
}

func TestBounds(t *testing.T) {
	// What comes from outside is refused when it is too much, at the limit it
	// is not, and neither takes much memory.
	many := func(n int, s string) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = s
		}
		return list
	}
	for _, tc := range []struct {
		name string
		list []string
		ok   bool
	}{
		{"length", many(1, "a=="+strings.Repeat("x", filters.MaxLength-3)), true},
		{"length over", many(1, "a=="+strings.Repeat("x", filters.MaxLength-2)), false},
		{"filters", many(filters.MaxFilters, "a"), true},
		{"filters over", many(filters.MaxFilters+1, "a"), false},
		{"selectors", many(1, strings.Repeat("a,", filters.MaxSelectors-1)+"a"), true},
		{"selectors over", many(1, strings.Repeat("a,", filters.MaxSelectors)+"a"), false},
		{"selectors over together", many(8, strings.Repeat("a,", filters.MaxSelectors/8)+"a"), false},
		{"names", many(1, strings.Repeat("a.", filters.MaxLength/2-1)+"a"), true},
		{"pattern", many(1, "a~="+strings.Repeat("x", filters.MaxPattern-2)), true},
		{"pattern over", many(1, "a~="+strings.Repeat("x", filters.MaxPattern+1)), false},
		{"pattern over together", many(4, "a~="+strings.Repeat("x", filters.MaxPattern/3)), false},
		{"repetition", many(1, "a~=(a{10}){100}"), true},
		{"repetition over", many(1, "a~=("+strings.Repeat("ab", 10)+"){1000}"), false},
		{"repetition over, in parts", many(20, "a~=(a{10}){100}"), false},
		{"repeated classes", many(1, `a~=(\pL{10}){100}`), false},
		{"depth", many(1, "a~="+strings.Repeat("(", 5000)+"a"+strings.Repeat(")", 5000)), false},
		{"empty repetition", many(1, "a~="+strings.Repeat("(", 900)+strings.Repeat("*)", 900)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := filters.ParseAll(tc.list...)
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<20))
			if tc.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
			require.Less(t, len(err.Error()), 1000)
		})
	}
}

func TestPrint(t *testing.T) {
	// What is printed quotes only what needs it, and reads as the same.
	for filter, want := range map[string]string{
		"":                        "",
		"a":                       "a",
		` "a" == "b" ,` + "\tc":   "",
		`"a"=="b", c`:             "a==b,c",
		`labels."a.b/c-d"=="x y"`: `labels.a.b/c-d=="x y"`,
		`labels."a..b"`:           `labels."a..b"`,
		`labels."-a"."b c"`:       `labels."-a.b c"`,
		`labels.""`:               `labels.""`,
		`"labels.a"`:              `"labels.a"`,
		`"a-b"."c-d"`:             `"a-b"."c-d"`,
		`""==""`:                  `""==""`,
		"a~=/b,c/":                `a~="b,c"`,
		`a~=|\\d+|`:               `a~=\d+`,
		`a~=|\\d{1,2}"|`:          `a~="\\d{1,2}\""`,
		`a=="\xff\ufffd\x00\n\u200b\U000e0001é"`: `a=="\xff\ufffd\x00\n\u200b\U000e0001é"`,
		`a=="=x"`:                   `a=="=x"`,
		`a=="x=y|z/"`:               "a==x=y|z/",
		`a<"10 "`:                   "",
		`a< 10`:                     "a<10",
		`a>="2026-05-01 10:00:00Z"`: `a>="2026-05-01 10:00:00Z"`,
	} {
		f, err := filters.Parse(filter)
		if want == "" && filter != "" {
			require.Error(t, err, "%s", filter)
			continue
		}
		require.NoError(t, err, "%s", filter)
		require.Equal(t, want, f.String())
		again, err := filters.Parse(want)
		require.NoError(t, err)
		require.Equal(t, want, again.String())
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "a", `labels."x y"==b,size>=10MiB`, "a~=/x{2}/", "createdat<24h", "labels.a-b/c.d!=|x", `a=="\u00e9\377\x00"`, "a<5m,b>+1.5h", "é", "\xff",
	} {
		f.Add(seed)
	}
	r := newRecord()
	f.Fuzz(func(t *testing.T, input string) {
		parsed, err := filters.Parse(input)
		if err != nil {
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
			var bad *filters.ParseError
			if errors.As(err, &bad) {
				require.LessOrEqual(t, bad.Offset, len(input))
				require.GreaterOrEqual(t, bad.Offset, 0)
			}
			return
		}
		printed := parsed.String()
		if len(printed) > filters.MaxLength {
			return // escapes can make it longer than what was read
		}
		again, err := filters.Parse(printed)
		require.NoError(t, err, "printed %q", printed)
		require.Equal(t, shape(parsed), shape(again), "printed %q", printed)
		require.Equal(t, parsed.Match(r), again.Match(r))
	})
}

// shape is all that was read from an expression but the moment it was read at.
func shape(f filters.Filter) []string {
	var list []string
	for _, c := range f.Alternatives() {
		for i := range c {
			list = append(list, fmt.Sprintf("%q %d %q", c[i].Path(), c[i].Operator(), c[i].Value()))
		}
	}
	return list
}
