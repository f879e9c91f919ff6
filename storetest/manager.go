package storetest

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var infoPromises = []promise{
	{"content that is not there is NotFound", func(e *env) {
		_, err := e.store.Info(e.ctx, digest.FromString("absent"))
		requireClass(e, err, errdefs.ErrNotFound)
	}},
	{"one digest is not taken for another", func(e *env) {
		dgst := e.put([]byte("there"))
		hex := dgst.Encoded()
		last := "0"
		if strings.HasSuffix(hex, last) {
			last = "1"
		}
		e.requireAbsent(digest.NewDigestFromEncoded(digest.SHA256, hex[:len(hex)-1]+last))
		e.requireAbsent(digest.SHA384.FromString("there"))
	}},
	{"the result is the caller's, labels included", func(e *env) {
		e.needLabels()
		dgst := e.put([]byte("mine"), cellar.WithLabels(map[string]string{"a": "1"}))
		e.info(dgst).Labels["a"] = "changed"
		e.info(dgst).Labels["b"] = "added"
		require.Equal(e, map[string]string{"a": "1"}, e.info(dgst).Labels)
	}},
	{"Labels is nil where there are none", func(e *env) {
		require.Nil(e, e.info(e.put([]byte("bare"))).Labels)
		require.Nil(e, e.info(e.put([]byte("empty"), cellar.WithLabels(map[string]string{}))).Labels)
		for _, info := range walk(e, e.ctx, e.store) {
			require.Nil(e, info.Labels)
		}
	}},
}

var deletePromises = []promise{
	{"content is gone, for everybody and after opening the store again", func(e *env) {
		for _, n := range sizes[1:] {
			p := blob("deleted", n)
			kept := e.put(blob("kept", n))
			dgst := e.put(p)
			require.NoError(e, e.store.Delete(e.ctx, dgst))
			e.requireAbsent(dgst)
			e.requireContent(kept, blob("kept", n))
		}
		e.reopen()
		for _, n := range sizes[1:] {
			e.requireAbsent(digest.FromBytes(blob("deleted", n)))
			e.requireContent(digest.FromBytes(blob("kept", n)), blob("kept", n))
		}
	}},
	{"content that is not there is NotFound, the second time as well", func(e *env) {
		requireClass(e, e.store.Delete(e.ctx, digest.FromString("absent")), errdefs.ErrNotFound)
		dgst := e.put([]byte("twice"))
		require.NoError(e, e.store.Delete(e.ctx, dgst))
		requireClass(e, e.store.Delete(e.ctx, dgst), errdefs.ErrNotFound)
	}},
	{"an ingestion of the same bytes is not touched", func(e *env) {
		p := []byte("still coming")
		e.leave("ref", p)
		require.NoError(e, e.store.Delete(e.ctx, e.put(p)))
		require.NoError(e, e.open("ref").Commit(e.ctx, 0, ""))
		e.requireContent(digest.FromBytes(p), p)
	}},
}

// updatePromises are those for stores that keep labels, or for those that do not.
func updatePromises(labels bool) []promise {
	if !labels {
		return []promise{{"a store that keeps no labels answers FailedPrecondition", func(e *env) {
			dgst := e.put([]byte("bare"))
			before := e.info(dgst)
			for _, paths := range [][]string{nil, {"labels"}, {"labels.a"}} {
				_, err := e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: map[string]string{"a": "1"}}, paths...)
				requireClass(e, err, errdefs.ErrFailedPrecondition)
			}
			require.Equal(e, before, e.info(dgst))
		}}}
	}
	return []promise{
		{"labels become what the field paths say", updateFieldPaths},
		{"the new description is returned, durable, and only labels and UpdatedAt differ", updateKeepsRest},
		{"another path is InvalidArgument and changes nothing", func(e *env) {
			dgst := e.put([]byte("paths"), cellar.WithLabels(map[string]string{"a": "1"}))
			before := e.info(dgst)
			for _, path := range []string{"", "size", "digest", "Labels", "labels.", "label", "labelsa", ".labels", "createdat", "labels/a"} {
				info := cellar.Info{Digest: dgst, Labels: map[string]string{"a": "2"}}
				_, err := e.store.Update(e.ctx, info, "labels.a", path)
				requireClass(e, err, errdefs.ErrInvalidArgument)
			}
			require.Equal(e, before, e.info(dgst))
		}},
		{"labels over the limits are InvalidArgument and change nothing", func(e *env) {
			dgst := e.put([]byte("limits"), cellar.WithLabels(map[string]string{"a": "1"}))
			before := e.info(dgst)
			for name, labels := range badLabels() {
				_, err := e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: labels})
				requireClass(e, err, errdefs.ErrInvalidArgument)
				require.Equal(e, before, e.info(dgst), name)
			}
			_, err := e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: largestLabel()})
			require.NoError(e, err)
			require.Equal(e, largestLabel(), e.info(dgst).Labels)
		}},
		{"the limits hold for all labels of a record together", func(e *env) {
			dgst := e.put([]byte("one by one"))
			var err error
			for i := 0; err == nil && i < 5000; i += 50 {
				more := map[string]string{}
				var paths []string
				for j := range 50 {
					key := fmt.Sprint("key ", i+j)
					more[key] = strings.Repeat("v", 1000)
					paths = append(paths, "labels."+key)
				}
				_, err = e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: more}, paths...)
			}
			requireClass(e, err, errdefs.ErrInvalidArgument)
		}},
		{"content that is not there is NotFound", func(e *env) {
			_, err := e.store.Update(e.ctx, cellar.Info{Digest: digest.FromString("absent")}, "labels.a")
			requireClass(e, err, errdefs.ErrNotFound)
		}},
		{"the argument's map is neither changed nor kept, the result is the caller's", func(e *env) {
			dgst := e.put([]byte("maps"))
			labels := map[string]string{"a": "1", "empty": ""}
			got, err := e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: labels})
			require.NoError(e, err)
			require.Equal(e, map[string]string{"a": "1", "empty": ""}, labels)
			labels["a"] = "later"
			got.Labels["b"] = "later"
			require.Equal(e, map[string]string{"a": "1"}, e.info(dgst).Labels)
		}},
	}
}

func updateFieldPaths(e *env) {
	start := map[string]string{"k1": "v1", "k2": "v2", "k3": "v3", "a.b/c.d": "deep"}
	set := map[string]string{"k1": "new", "k4": "v4", "a.b/c.d": "deeper", "empty": "", "k2": ""}
	type labels = map[string]string
	for i, tc := range []struct {
		set   labels
		paths []string
		want  labels
	}{
		{set, nil, labels{"k1": "new", "k4": "v4", "a.b/c.d": "deeper"}},
		{set, []string{"labels"}, labels{"k1": "new", "k4": "v4", "a.b/c.d": "deeper"}},
		{set, []string{"labels.k1"}, labels{"k1": "new", "k2": "v2", "k3": "v3", "a.b/c.d": "deep"}},
		{set, []string{"labels.k3", "labels.k1"}, labels{"k1": "new", "k2": "v2", "a.b/c.d": "deep"}},
		{set, []string{"labels.k2"}, labels{"k1": "v1", "k3": "v3", "a.b/c.d": "deep"}},
		{set, []string{"labels.a.b/c.d"}, labels{"k1": "v1", "k2": "v2", "k3": "v3", "a.b/c.d": "deeper"}},
		{set, []string{"labels.never"}, start},
		{set, []string{"labels.k3", "labels"}, labels{"k1": "new", "k4": "v4", "a.b/c.d": "deeper"}},
		{set, []string{"labels", "labels.k4"}, labels{"k1": "new", "k4": "v4", "a.b/c.d": "deeper"}},
		{labels{"labels.x": "odd", "labels": "name"}, []string{"labels.labels.x", "labels.labels"}, labels{
			"k1": "v1", "k2": "v2", "k3": "v3", "a.b/c.d": "deep", "labels.x": "odd", "labels": "name",
		}},
		{nil, nil, nil},
		{nil, []string{"labels"}, nil},
		{labels{"empty": ""}, nil, nil},
		{nil, []string{"labels.k1", "labels.k2", "labels.k3", "labels.a.b/c.d"}, nil},
	} {
		dgst := e.put([]byte(fmt.Sprint("case ", i)), cellar.WithLabels(start))
		got, err := e.store.Update(e.ctx, cellar.Info{Digest: dgst, Labels: maps.Clone(tc.set)}, tc.paths...)
		require.NoError(e, err)
		require.Equal(e, tc.want, got.Labels, "case %d, %v", i, tc.paths)
		require.Equal(e, got, e.info(dgst))
	}
}

func updateKeepsRest(e *env) {
	p := []byte("updated")
	dgst := e.put(p)
	before := e.info(dgst)
	var got cellar.Info
	updated := during(e, func() {
		var err error
		got, err = e.store.Update(e.ctx, cellar.Info{
			Digest: dgst, Size: 99, CreatedAt: time.Unix(1, 0), UpdatedAt: time.Unix(2, 0), Labels: map[string]string{"a": "1"},
		}, "labels.a")
		require.NoError(e, err)
	})
	updated(got.UpdatedAt)
	want := before
	want.Labels, want.UpdatedAt = map[string]string{"a": "1"}, got.UpdatedAt
	require.Equal(e, want, got)
	e.reopen()
	require.Equal(e, want, e.info(dgst))
	e.requireContent(dgst, p)
}
