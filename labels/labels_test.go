package labels_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/labels"
)

func TestValidatePair(t *testing.T) {
	// A key and its value have 1 to MaxSize bytes together, the key at least one.
	for _, tc := range []struct {
		name, key, value string
		bad              string // in the message; empty: valid
	}{
		{"plain", "a", "b", ""},
		{"empty value", "a", "", ""},
		{"arbitrary bytes", "\x00\xff", "\n", ""},
		{"at the limit", "k", strings.Repeat("v", labels.MaxSize-1), ""},
		{"key at the limit", strings.Repeat("k", labels.MaxSize), "", ""},
		{"over by value", "key", strings.Repeat("v", labels.MaxSize-2), `label "key": key and value have 4097 bytes, over the limit of 4096`},
		{"over by key", strings.Repeat("k", labels.MaxSize+1), "", `"` + strings.Repeat("k", 64) + `"…`},
		{"empty key", "", "v", "key is empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := labels.ValidatePair(tc.key, tc.value)
			if tc.bad == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
			require.ErrorContains(t, err, tc.bad)
			require.Less(t, len(err.Error()), 300, "the message must not repeat what was too long")
		})
	}
}

func TestValidate(t *testing.T) {
	// A record has at most MaxCount labels with MaxTotal bytes, each of them valid.
	many := func(n, size int) map[string]string {
		all := map[string]string{}
		for i := range n {
			key := fmt.Sprintf("%06d", i)
			all[key] = strings.Repeat("v", size-len(key))
		}
		return all
	}
	require.NoError(t, labels.Validate(nil))
	require.NoError(t, labels.Validate(many(labels.MaxCount, 256)), "both limits are reached, neither is passed")

	err := labels.Validate(many(labels.MaxCount+1, 10))
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	require.ErrorContains(t, err, "1025 labels, over the limit of 1024")

	over := many(labels.MaxCount, 256)
	over["000000"] += "v"
	err = labels.Validate(over)
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	require.ErrorContains(t, err, "262145 bytes together, over the limit of 262144")

	long := strings.Repeat("v", labels.MaxSize)
	for range 10 {
		err = labels.Validate(map[string]string{"c": long, "b": long, "a": "fine", "d": long})
		require.ErrorContains(t, err, `label "b"`, "the same labels must give the same message")
	}
}

func TestClean(t *testing.T) {
	// Clean copies, and drops what has no value.
	in := map[string]string{"a": "1", "b": ""}
	out := labels.Clean(in)
	require.Equal(t, map[string]string{"a": "1"}, out)
	out["a"] = "changed"
	require.Equal(t, map[string]string{"a": "1", "b": ""}, in)
	require.Nil(t, labels.Clean(map[string]string{"b": ""}))
	require.Nil(t, labels.Clean(nil))
}

func TestUpdate(t *testing.T) {
	// Each path changes what it names, in order, and nothing else.
	type m = map[string]string
	current := m{"a": "1", "b": "2", "a.b/c": "3"}
	for _, tc := range []struct {
		name  string
		next  m
		paths []string
		want  m
	}{
		{"no path replaces all", m{"x": "9"}, nil, m{"x": "9"}},
		{"no path and no labels clears", nil, nil, nil},
		{"labels replaces all", m{"x": "9", "y": ""}, []string{"labels"}, m{"x": "9"}},
		{"one key is set", m{"a": "9", "z": "9"}, []string{"labels.a"}, m{"a": "9", "b": "2", "a.b/c": "3"}},
		{"a new key is added", m{"z": "9"}, []string{"labels.z"}, m{"a": "1", "b": "2", "a.b/c": "3", "z": "9"}},
		{"an absent one is removed", m{}, []string{"labels.a"}, m{"b": "2", "a.b/c": "3"}},
		{"an empty one is removed", m{"a": ""}, []string{"labels.a"}, m{"b": "2", "a.b/c": "3"}},
		{"removing what is not there", nil, []string{"labels.nope"}, m{"a": "1", "b": "2", "a.b/c": "3"}},
		{"the key is all that follows", m{"a.b/c": "9"}, []string{"labels.a.b/c"}, m{"a": "1", "b": "2", "a.b/c": "9"}},
		{"only the first prefix is cut", m{"labels.a": "9"}, []string{"labels.labels.a"}, m{"a": "1", "b": "2", "a.b/c": "3", "labels.a": "9"}},
		{"paths in order", m{"x": "9"}, []string{"labels.a", "labels"}, m{"x": "9"}},
		{"paths in order, reversed", m{"x": "9"}, []string{"labels", "labels.a"}, m{"x": "9"}},
		{"twice the same", m{"a": "9"}, []string{"labels.a", "labels.a"}, m{"a": "9", "b": "2", "a.b/c": "3"}},
		{"removing all", nil, []string{"labels.a", "labels.b", "labels.a.b/c"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next, before := maps.Clone(tc.next), maps.Clone(current)
			got, err := labels.Update(current, next, tc.paths...)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.next, next, "the new labels belong to the caller")
			require.Equal(t, before, current, "the current labels belong to the caller")
			if got != nil {
				got["canary"] = "x"
				require.NotContains(t, current, "canary")
				require.NotContains(t, next, "canary")
			}
		})
	}
}

func TestUpdateOfNothing(t *testing.T) {
	// A record without labels can be given one.
	got, err := labels.Update(nil, map[string]string{"a": "1", "b": "2"}, "labels.a")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1"}, got)
}

func TestUpdateRefuses(t *testing.T) {
	// Other paths, and results over the limits, are InvalidArgument.
	long := strings.Repeat("v", labels.MaxSize)
	for _, path := range []string{"", "size", "digest", "Labels", "labels.", "label.a", "labelsa", ".labels", "labels/a", strings.Repeat("x", 1000)} {
		got, err := labels.Update(map[string]string{"a": "1"}, map[string]string{"a": "2"}, "labels.a", path)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "path %.20q", path)
		require.ErrorContains(t, err, "only", "path %.20q", path)
		require.Less(t, len(err.Error()), 300)
		require.Nil(t, got)
	}
	_, err := labels.Update(nil, map[string]string{"key": long}, "labels.key")
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	_, err = labels.Update(nil, map[string]string{"": "v"})
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)

	got, err := labels.Update(nil, map[string]string{long + "k": ""})
	require.NoError(t, err, "what is not kept has no limit")
	require.Nil(t, got)
}

func FuzzUpdate(f *testing.F) {
	for _, path := range []string{"labels", "labels.a", "labels.", "size", "labels.a.b/c", ""} {
		f.Add(path, "a", "1", "2")
	}
	f.Fuzz(func(t *testing.T, path, key, was, value string) {
		current := map[string]string{key: was, "other": "kept"}
		next := map[string]string{key: value}
		got, err := labels.Update(current, next, path)
		if err != nil {
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
			return
		}
		require.NoError(t, labels.Validate(got))
		require.NotContains(t, got, "")
		for name, v := range got {
			require.NotEmpty(t, v, "label %q", name)
		}
		switch {
		case path == "labels":
			require.Equal(t, value, got[key])
		case path == "labels."+key && key != "other":
			require.Equal(t, value, got[key])
			require.Equal(t, "kept", got["other"])
		}
	})
}
