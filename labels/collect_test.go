package labels_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/labels"
)

func TestKindOf(t *testing.T) {
	// A key has the meaning that containerd gives it, and no other key has one.
	for key, want := range map[string]labels.Kind{
		"":                                 labels.Plain,
		"foo":                              labels.Plain,
		"containerd.io/gc.":                labels.Plain,
		"containerd.io/gc.root":            labels.Root,
		"containerd.io/gc.rootfoo":         labels.Root,
		"containerd.io/gc.root.x":          labels.Root,
		"containerd.io/gc.roo":             labels.Plain,
		"Containerd.io/gc.root":            labels.Plain,
		"containerd.io/gc.ref.content":     labels.Forward,
		"containerd.io/gc.ref.content.":    labels.Forward,
		"containerd.io/gc.ref.content.l.0": labels.Forward,
		"containerd.io/gc.ref.content/anything at all": labels.Forward,
		"containerd.io/gc.ref.contentbad":              labels.Plain,
		"containerd.io/gc.ref.content-x":               labels.Plain,
		"containerd.io/gc.ref.conten":                  labels.Plain,
		"containerd.io/gc.ref.image":                   labels.Plain,
		"containerd.io/gc.ref.snapshot.overlayfs":      labels.Plain,
		"containerd.io/gc.bref.content":                labels.Back,
		"containerd.io/gc.bref.content.0":              labels.Back,
		"containerd.io/gc.bref.content/0":              labels.Back,
		"containerd.io/gc.bref.contentbad":             labels.Plain,
		"containerd.io/gc.bref.image":                  labels.Plain,
		"containerd.io/gc.expire":                      labels.Expire,
		"containerd.io/gc.expire.x":                    labels.Plain,
		"containerd.io/gc.expired":                     labels.Plain,
		"containerd.io/gc.flat":                        labels.Flat,
		"containerd.io/gc.flat.x":                      labels.Plain,
	} {
		require.Equal(t, want, labels.KindOf(key), "key %q", key)
		require.Equal(t, want, labels.KindOf([]byte(key)), "bytes of key %q", key)
	}
	require.Equal(t, "back", labels.Back.String())
	require.Equal(t, "unknown", labels.Kind(99).String())
}

func TestParseReference(t *testing.T) {
	// A reference says which way it points and at what; other labels are none.
	ref, ok := labels.ParseReference("containerd.io/gc.ref.content.config", "sha256:abc")
	require.True(t, ok)
	require.Equal(t, labels.Reference[string]{Target: "sha256:abc"}, ref)

	back, ok := labels.ParseReference([]byte("containerd.io/gc.bref.content"), []byte("sha256:abc"))
	require.True(t, ok)
	require.Equal(t, labels.Reference[[]byte]{Back: true, Target: []byte("sha256:abc")}, back)

	for _, key := range []string{"a", labels.GCRoot, labels.GCExpire, labels.GCFlat, labels.GCRefContent + "x"} {
		_, ok = labels.ParseReference(key, "sha256:abc")
		require.False(t, ok, "key %q", key)
	}
	_, ok = labels.ParseReference(labels.GCRefContent, "")
	require.False(t, ok, "an empty value is no label")
}

func TestGrammarDoesNotAllocate(t *testing.T) {
	// Reading the labels of a record costs no allocation, as strings or bytes.
	keys := []string{"foo", "containerd.io/distribution.source.x", labels.GCRefContent + ".l.0", labels.GCRoot}
	raw := make([][]byte, len(keys))
	for i, key := range keys {
		raw[i] = []byte(key)
	}
	value := []byte("sha256:abc")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for i := range keys {
			labels.KindOf(keys[i])
			labels.KindOf(raw[i])
			labels.ParseReference(keys[i], "sha256:abc")
			labels.ParseReference(raw[i], value)
		}
	}))
}

func TestExpiry(t *testing.T) {
	// An expiry reads back as it was written; what is no time is told apart.
	at := time.Date(2031, 2, 3, 4, 5, 6, 789, time.FixedZone("", 3600))
	got, ok := labels.ParseExpiry(labels.FormatExpiry(at))
	require.True(t, ok)
	require.True(t, at.Equal(got))
	require.Equal(t, time.UTC, got.Location())

	got, ok = labels.ParseExpiry("2999-01-01T00:00:00+02:00")
	require.True(t, ok)
	require.Equal(t, time.Date(2998, 12, 31, 22, 0, 0, 0, time.UTC), got)
	for _, value := range []string{"", "tomorrow", "2999-01-01", "24h"} {
		_, ok = labels.ParseExpiry(value)
		require.False(t, ok, "value %q", value)
	}
}

func TestReserved(t *testing.T) {
	// Keys of containerd and its CRI are reserved, lookalikes are not.
	for key, want := range map[string]bool{
		"containerd.io/x": true, "containerd.io/": true, "io.cri-containerd.image": true,
		"containerd.io": false, "xcontainerd.io/": false, "foo": false, "": false,
	} {
		require.Equal(t, want, labels.Reserved(key), "key %q", key)
	}
}

func FuzzReference(f *testing.F) {
	f.Add(labels.GCRefContent+".config", "sha256:abc")
	f.Add(labels.GCBackRefContent+"/0", "x")
	f.Add(labels.GCRoot, "")
	f.Fuzz(func(t *testing.T, key, value string) {
		str, okStr := labels.ParseReference(key, value)
		raw, okRaw := labels.ParseReference([]byte(key), []byte(value))
		require.Equal(t, okStr, okRaw, "strings and bytes read alike")
		require.Equal(t, labels.KindOf(key), labels.KindOf([]byte(key)))
		if !okStr {
			return
		}
		require.Equal(t, str.Back, raw.Back)
		require.Equal(t, value, str.Target)
		require.Equal(t, value, string(raw.Target))
		name := labels.GCRefContent
		if str.Back {
			name = labels.GCBackRefContent
		}
		rest, ok := strings.CutPrefix(key, name)
		require.True(t, ok)
		require.True(t, rest == "" || rest[0] == '.' || rest[0] == '/')
	})
}
