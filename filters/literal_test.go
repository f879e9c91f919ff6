package filters

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseNumber(t *testing.T) {
	// Numbers are read exactly or not at all.
	for s, want := range map[string]number{
		"0": {}, "-0": {}, "+7": {7, 0}, "007": {7, 0}, "1.5": {1, 5e8}, "-1.5": {-1, -5e8}, "0.000000001": {0, 1},
		"1B": {1, 0}, "1k": {1000, 0}, "1K": {1000, 0}, "1kB": {1000, 0}, "1KB": {1000, 0}, "1Ki": {1024, 0}, "1kib": {1024, 0},
		"1M": {1e6, 0}, "1GiB": {1 << 30, 0}, "1T": {1e12, 0}, "1PiB": {1 << 50, 0}, "1e": {1e18, 0}, "7EiB": {7 << 60, 0},
		"1.5KiB": {1536, 0}, "0.1KiB": {102, 4e8}, "0.000000001k": {0, 1000}, "9223372036854775807": {math.MaxInt64, 0},
		"-9223372036854775807": {-math.MaxInt64, 0}, "7.999999999EiB": {9223372035701854303, 393153024},
	} {
		got, ok := parseNumber(s)
		require.True(t, ok, "%s", s)
		require.Equal(t, want, got, "%s", s)
	}
	for _, s := range []string{
		"", "+", "-", "--1", "x", "1x", "1 k", " 1", "1.", ".5", "1.5.5", "1.0000000001", "1kBB", "1BB", "1i", "1iB", "1kk", "1e3", "0x10", "1_000",
		"9223372036854775808", "18446744073709551616", "99999999999999999999", "8EiB", "9.3e", "1Z", "∞", "1\u212a",
	} {
		_, ok := parseNumber(s)
		require.False(t, ok, "%s", s)
	}
}

func TestParseAge(t *testing.T) {
	// Ages add up, lie in the past unless a plus says otherwise, and never wrap.
	for s, want := range map[string]time.Duration{
		"0s": 0, "1s": -time.Second, "-1s": -time.Second, "+1s": time.Second, "1d": -24 * time.Hour, "1w": -168 * time.Hour,
		"1h30m": -90 * time.Minute, "1.5h": -90 * time.Minute, "1ms": -time.Millisecond, "1m": -time.Minute, "3us": -3 * time.Microsecond,
		"3µs": -3 * time.Microsecond, "3μs": -3 * time.Microsecond, "5ns": -5, "1d1h1m1s": -(25*time.Hour + time.Minute + time.Second),
		"106751d": -106751 * 24 * time.Hour,
	} {
		got, ok := parseAge(s)
		require.True(t, ok, "%s", s)
		require.Equal(t, want, got, "%s", s)
	}
	for _, s := range []string{"", "1", "+", "h", "1x", "1h ", "1y", "1M", "1H", "106752d", "106751d106751d", "999999999999999999999s", "1h-1m"} {
		_, ok := parseAge(s)
		require.False(t, ok, "%s", s)
	}
}

func TestParseTime(t *testing.T) {
	// Times that exist are read, others are not; months and years only where
	// that is asked for.
	for s, want := range map[string]time.Time{
		"2026-05-01":                     time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"2024-02-29":                     time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"2026-05-01T10:20:30Z":           time.Date(2026, 5, 1, 10, 20, 30, 0, time.UTC),
		"2026-05-01t10:20:30z":           time.Date(2026, 5, 1, 10, 20, 30, 0, time.UTC),
		"2026-05-01 10:20:30Z":           time.Date(2026, 5, 1, 10, 20, 30, 0, time.UTC),
		"2026-05-01T10:20:30.5+02:30":    time.Date(2026, 5, 1, 7, 50, 30, 5e8, time.UTC),
		"2026-05-01T10:20:30-02:00":      time.Date(2026, 5, 1, 12, 20, 30, 0, time.UTC),
		"0000-01-01T00:00:00.000000001Z": time.Date(0, 1, 1, 0, 0, 0, 1, time.UTC),
	} {
		for _, p := range []precision{wholeOnly, orBeginning} {
			got, ok := parseTime(s, p)
			require.True(t, ok, "%s", s)
			require.Equal(t, want, got, "%s", s)
		}
	}
	for s, want := range map[string]time.Time{
		"2026-05": time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), "2026": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		got, ok := parseTime(s, orBeginning)
		require.True(t, ok, "%s", s)
		require.Equal(t, want, got, "%s", s)
		_, ok = parseTime(s, wholeOnly)
		require.False(t, ok, "%s", s)
	}
	for _, s := range []string{
		"", "2", "202", "20260", "2026-", "2026-1", "2026-13", "2026-00", "2026-05-", "2026-05-32", "2026-02-29", "2026-05-00", "2026-05-01T", "2026-05-01T10",
		"2026-05-01T10:20", "2026-05-01T10:20Z", "2026-05-01T10:20:30", "2026-05-01T24:00:00Z", "2026-05-01T10:60:00Z", "2026-05-01T10:20:60Z",
		"2026-05-01T10:20:30.Z", "2026-05-01T10:20:30.1234567890Z", "2026-05-01T10:20:30+0200", "2026-05-01T10:20:30+24:00", "2026-05-01T10:20:30Zx",
		"2026-05-01Z", "-026-05-01", "20x6-05-01", "2026/05/01",
	} {
		_, ok := parseTime(s, orBeginning)
		require.False(t, ok, "%s", s)
	}
}

func TestParseTimeAgreesWithPackageTime(t *testing.T) {
	// Every time that package time writes in RFC 3339 is read as it was.
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-62167219200+86400, 253402300799-86400).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos"))
		minutes := rapid.IntRange(-23*60-59, 23*60+59).Draw(t, "zone")
		at = at.In(time.FixedZone("", minutes*60))
		got, ok := parseTime(at.Format(time.RFC3339Nano), wholeOnly)
		require.True(t, ok)
		require.True(t, at.Equal(got), "%s read as %s", at, got)
	})
}

func FuzzLiterals(f *testing.F) {
	for _, s := range []string{"10", "1.5GiB", "24h", "2026-05-01T10:00:00+02:00", "+1w2d", "-3.000000001", "2026-05", "8EiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := parseNumber(s); ok {
			require.False(t, n.whole > 0 && n.nanos < 0 || n.whole < 0 && n.nanos > 0, "mixed signs in %q", s)
			require.Less(t, n.nanos, int32(1e9))
			require.Greater(t, n.nanos, int32(-1e9))
		}
		parseAge(s)
		if at, ok := parseTime(s, wholeOnly); ok && len(s) > len(time.DateOnly) {
			text := []byte(s)
			text[10] = 'T'
			want, err := time.Parse(time.RFC3339, string(text[:19])+"Z")
			require.NoError(t, err, "%q", s)
			require.Less(t, at.Sub(want).Abs(), 25*time.Hour)
		}
	})
}
