package metadata

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// labelKeys and labelValues draw what is packed as well as what is not.
var (
	labelKeys = rapid.OneOf(
		rapid.StringN(1, -1, 40),
		rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom(keyPrefixes[1:]).Draw(t, "prefix") + rapid.StringN(0, -1, 10).Draw(t, "rest")
		}))
	labelValues = rapid.OneOf(
		rapid.StringN(1, -1, 40),
		rapid.Custom(func(t *rapid.T) string {
			alg := rapid.SampledFrom([]digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}).Draw(t, "algorithm")
			return alg.FromString(rapid.String().Draw(t, "data")).String()
		}))
)

// Any record decodes to what was encoded.
func TestContentRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		record := contentRecord{
			size:    rapid.Int64Range(0, math.MaxInt64).Draw(t, "size"),
			created: time.Unix(0, rapid.Int64Range(1, 1<<61).Draw(t, "created")).UTC(),
			labels:  rapid.MapOf(labelKeys, labelValues).Draw(t, "labels"),
		}
		record.updated = record.created.Add(time.Duration(rapid.Int64Range(-1<<60, 1<<60).Draw(t, "age")))
		if len(record.labels) == 0 {
			record.labels = nil
		}
		got, err := decodeContent(record.encode())
		require.NoError(t, err)
		require.Equal(t, record, got)
	})
}

// A record of an ingestion decodes to what was encoded, zero times included.
func TestIngestRecordRoundTrip(t *testing.T) {
	record := ingestRecord{
		open: true, started: time.Unix(1, 2).UTC(), updated: time.Unix(3, 4).UTC(),
		total: 5, expected: digest.FromString("a"), borrowed: digest.FromString("b"),
	}
	got, err := decodeIngest(record.encode())
	require.NoError(t, err)
	require.Equal(t, record, got)
}

// Every flipped bit and every missing byte of a record is noticed.
func TestDamagedRecordIsDataLoss(t *testing.T) {
	record := contentRecord{size: 7, created: time.Unix(1, 0).UTC(), updated: time.Unix(2, 0).UTC(), labels: map[string]string{"k": "v"}}
	whole := record.encode()
	for i := range whole {
		for bit := range 8 {
			damaged := append([]byte(nil), whole...)
			damaged[i] ^= 1 << bit
			_, err := decodeContent(damaged)
			require.True(t, errdefs.IsDataLoss(err), "byte %d bit %d: %v", i, bit, err)
		}
		_, err := decodeContent(whole[:i])
		require.True(t, errdefs.IsDataLoss(err), "cut to %d: %v", i, err)
	}
}

// Encoding does not depend on the order in which a map gives its keys.
func TestRecordEncodingIsCanonical(t *testing.T) {
	labels := map[string]string{}
	for _, k := range strings.Split("a b c d e f g h i j k l m n o p q r s t u v w", " ") {
		labels[k] = k
	}
	record := contentRecord{labels: labels, created: time.Unix(1, 0), updated: time.Unix(1, 0)}
	want := record.encode()
	for range 20 {
		require.Equal(t, want, record.encode())
	}
}

// Decoders of every record take any bytes without panicking.
func FuzzDecodeRecords(f *testing.F) {
	content := contentRecord{size: 1, created: time.Unix(1, 0), updated: time.Unix(1, 0), labels: map[string]string{"a": "b"}}
	f.Add(content.encode()[:12])
	f.Add([]byte{recordVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		sealed := seal(append([]byte{recordVersion}, body...))
		if record, err := decodeContent(sealed); err == nil {
			again, err := decodeContent(record.encode())
			require.NoError(t, err)
			require.Equal(t, record, again)
		}
		_, _ = decodeNamespace(sealed)
		_, _ = decodeIngest(sealed)
		_, _, _ = decodeStaged(body)
		_, _ = parseDigestKey(body)
		_, _ = decodeContent(body)
	})
}

// Keys give back their digests and sort as the digests' strings do.
func TestDigestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) digest.Digest {
			alg := rapid.SampledFrom([]digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}).Draw(t, name+" algorithm")
			return alg.FromString(rapid.String().Draw(t, name))
		}
		a, b := draw("a"), draw("b")
		ka, err := newDigestKey(a)
		require.NoError(t, err)
		kb, err := newDigestKey(b)
		require.NoError(t, err)
		back, err := parseDigestKey(ka.bytes())
		require.NoError(t, err)
		require.Equal(t, a, back)
		require.Equal(t, strings.Compare(a.String(), b.String()), strings.Compare(string(ka.bytes()), string(kb.bytes())))
	})
}

// What is no digest of a known algorithm has no key.
func TestMalformedDigestsHaveNoKey(t *testing.T) {
	good := digest.FromString("x")
	for _, dgst := range []digest.Digest{
		"", ":", "sha256", "sha256:", "sha256:" + digest.Digest(good.Encoded()[1:]), good + "0",
		"sha256:" + digest.Digest(strings.ToUpper(good.Encoded())), "md5:d41d8cd98f00b204e9800998ecf8427e",
		"sha512:" + digest.Digest(good.Encoded()), "sha256:../../../../../../../../../../../../../../../../../../../../../etc/passwd",
		"sha256:" + digest.Digest(strings.Repeat("g", 64)), digest.Digest(strings.Repeat("a", 1<<16)),
	} {
		_, err := keyOf(dgst)
		require.True(t, errdefs.IsInvalidArgument(err), "%q: %v", dgst, err)
	}
}
