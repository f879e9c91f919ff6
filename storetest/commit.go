package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

var commitPromises = []promise{
	{"with size and digest zero, whatever was written is committed", func(e *env) {
		for _, n := range sizes {
			p := blob("unknown", n)
			w := e.open("ref")
			e.write(w, p)
			require.NoError(e, w.Commit(e.ctx, 0, ""))
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"an ingestion that was never written to is empty content", func(e *env) {
		require.NoError(e, e.open("ref").Commit(e.ctx, 0, ""))
		e.requireContent(digest.FromString(""), nil)
	}},
	{"CreatedAt and UpdatedAt lie within the call", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("now"))
		committed := during(e, func() { require.NoError(e, w.Commit(e.ctx, 0, "")) })
		info := e.info(w.Digest())
		committed(info.CreatedAt)
		committed(info.UpdatedAt)
	}},
	{"a wrong size or digest is FailedPrecondition, and the ingestion is resumed and committed", func(e *env) {
		for _, n := range []int{1000, 100_000} {
			p := blob("mismatch", n)
			ref := fmt.Sprint(n)
			e.leave(ref, p, withSize(int64(n)))
			for _, tc := range []struct {
				size     int64
				expected digest.Digest
			}{
				{int64(n) - 1, ""}, {int64(n) + 1, ""}, {math.MaxInt64, ""}, {int64(n) + 1, digest.FromBytes(p)},
				{0, digest.FromString("other")}, {int64(n), digest.FromString("")}, {0, digest.SHA512.FromString("other")},
			} {
				w := e.open(ref)
				requireClass(e, w.Commit(e.ctx, tc.size, tc.expected), errdefs.ErrFailedPrecondition)
				e.requireClosed(w)
				e.requireLeft(ref, p)
				e.requireAbsent(digest.FromBytes(p))
			}
			require.NoError(e, e.open(ref).Commit(e.ctx, int64(n), digest.FromBytes(p)))
			e.requireContent(digest.FromBytes(p), p)
		}
	}},
	{"a negative size is InvalidArgument and leaves the ingestion", func(e *env) {
		for _, size := range []int64{-1, math.MinInt64} {
			p := []byte("negative")
			e.leave("ref", nil)
			w := e.open("ref")
			require.NoError(e, w.Truncate(0))
			e.write(w, p)
			requireClass(e, w.Commit(e.ctx, size, ""), errdefs.ErrInvalidArgument)
			e.requireClosed(w)
			e.requireLeft("ref", p)
		}
	}},
	{"a malformed expected digest is InvalidArgument and leaves the ingestion (W-R1)", func(e *env) {
		p := []byte("malformed")
		e.leave("ref", p)
		for _, dgst := range malformedDigests {
			if dgst == "" {
				continue // unknown, here
			}
			w := e.open("ref")
			requireClass(e, w.Commit(e.ctx, 0, dgst), errdefs.ErrInvalidArgument)
			e.requireClosed(w)
			e.requireLeft("ref", p)
		}
	}},
	{"expected in another algorithm is verified and names the content", func(e *env) {
		for _, n := range sizes {
			for _, alg := range algorithms {
				for _, opened := range algorithms {
					p := blob(string(alg+opened), n)
					w := e.open("ref", withDigest(opened.FromString("never")))
					e.write(w, p)
					require.NoError(e, w.Commit(e.ctx, int64(n), alg.FromBytes(p)))
					require.Equal(e, alg.FromBytes(p), w.Digest())
					e.requireContent(alg.FromBytes(p), p)
					if alg != opened {
						e.requireAbsent(opened.FromBytes(p))
					}
					require.NoError(e, e.store.Delete(e.ctx, alg.FromBytes(p)))
				}
			}
		}
	}},
	{"content that is there is AlreadyExists; the ingestion is gone and the ref free", func(e *env) {
		for _, n := range sizes {
			p := blob("twice", n)
			dgst := e.put(p)
			before := e.info(dgst)
			for i, expected := range []digest.Digest{dgst, ""} {
				ref := fmt.Sprintf("%d %d", n, i)
				w := e.open(ref)
				e.write(w, p)
				err := w.Commit(e.ctx, int64(n), expected, cellar.WithLabels(map[string]string{"late": "label"}))
				requireClass(e, err, errdefs.ErrAlreadyExists)
				require.Equal(e, dgst, w.Digest())
				e.requireClosed(w)
				e.requireNoIngestion(ref)
			}
			require.Equal(e, before, e.info(dgst), "options had no effect")
			e.requireContent(dgst, p)
		}
	}},
	{"content that was there when the store was opened is AlreadyExists and stays as it is", func(e *env) {
		for _, n := range sizes {
			e.put(blob("from before", n))
		}
		before := walk(e, e.ctx, e.store)
		e.reopen()
		for _, n := range sizes {
			p := blob("from before", n)
			w := e.open("ref")
			e.write(w, p)
			requireClass(e, w.Commit(e.ctx, 0, ""), errdefs.ErrAlreadyExists)
			e.requireContent(digest.FromBytes(p), p)
			e.requireNoIngestion("ref")
		}
		require.Equal(e, before, walk(e, e.ctx, e.store))
	}},
	{"the error of an option is returned and leaves the ingestion (W-R4)", func(e *env) {
		refused := errors.New("refused")
		w := e.open("ref")
		e.write(w, []byte("option"))
		err := w.Commit(e.ctx, 0, "", func(*cellar.Info) error { return refused })
		require.ErrorIs(e, err, refused)
		e.requireClosed(w)
		e.requireLeft("ref", []byte("option"))
	}},
	{"a context that is done is returned; the writer is closed, the ingestion left", func(e *env) {
		for _, n := range []int{10, 100_000} {
			p := blob("cancelled", n)
			ref := fmt.Sprint(n)
			w := e.open(ref)
			e.write(w, p)
			ctx, cancel := context.WithCancel(e.ctx)
			cancel()
			requireClass(e, w.Commit(ctx, 0, ""), context.Canceled)
			e.requireClosed(w)
			e.requireAbsent(digest.FromBytes(p))
			e.requireLeft(ref, p)
			require.NoError(e, e.open(ref).Commit(e.ctx, 0, ""))
		}
	}},
	{"labels are kept, the last of several options counts, the map is copied", func(e *env) {
		e.needLabels()
		labels := map[string]string{"a": "1", "b.c/d": "2"}
		w := e.open("ref")
		e.write(w, []byte("labelled"))
		last := cellar.WithLabels(labels)
		want := maps.Clone(labels)
		require.NoError(e, w.Commit(e.ctx, 0, "", cellar.WithLabels(map[string]string{"first": "x"}), last))
		labels["a"] = "changed later"
		require.Equal(e, want, e.info(w.Digest()).Labels)
		e.reopen()
		require.Equal(e, want, e.info(w.Digest()).Labels)
	}},
	{"an empty label value is not kept, and the caller's map is not changed", func(e *env) {
		e.needLabels()
		labels := map[string]string{"empty": "", "kept": "x"}
		w := e.open("ref")
		e.write(w, []byte("labelled"))
		require.NoError(e, w.Commit(e.ctx, 0, "", func(info *cellar.Info) error {
			info.Labels = labels
			return nil
		}))
		require.Equal(e, map[string]string{"kept": "x"}, e.info(w.Digest()).Labels)
		require.Equal(e, map[string]string{"empty": "", "kept": "x"}, labels)
		none := e.put([]byte("none"), cellar.WithLabels(map[string]string{"empty": ""}))
		require.Nil(e, e.info(none).Labels)
	}},
	{"labels over the limits are InvalidArgument and leave the ingestion (W-D3, W-R13)", func(e *env) {
		e.needLabels()
		p := blob("over the limit", 100)
		e.leave("ref", p)
		for name, labels := range badLabels() {
			w := e.open("ref")
			requireClass(e, w.Commit(e.ctx, 0, "", cellar.WithLabels(labels)), errdefs.ErrInvalidArgument)
			e.requireClosed(w)
			e.requireLeft("ref", p)
			e.requireAbsent(digest.FromBytes(p))
			require.NotEmpty(e, name)
		}
		require.NoError(e, e.open("ref").Commit(e.ctx, 0, "", cellar.WithLabels(largestLabel())))
		require.Equal(e, largestLabel(), e.info(digest.FromBytes(p)).Labels)
	}},
	{"a store that keeps no labels ignores them", func(e *env) {
		if e.impl.Labels {
			e.Skip("the store keeps labels")
		}
		for _, labels := range badLabels() {
			p := blob(fmt.Sprint(len(labels)), 100)
			w := e.open("ref")
			e.write(w, p)
			err := w.Commit(e.ctx, 0, "", cellar.WithLabels(labels))
			require.True(e, err == nil || errdefs.IsAlreadyExists(err), "%v", err)
			require.Nil(e, e.info(digest.FromBytes(p)).Labels)
		}
	}},
	{"options may change nothing but labels", func(e *env) {
		p := []byte("options")
		dgst := e.put(p, func(info *cellar.Info) error {
			info.Digest, info.Size = digest.FromString("forged"), 99
			return nil
		})
		e.requireContent(dgst, p)
		e.requireAbsent(digest.FromString("forged"))
	}},
	{"a second Commit leaves what the first one made", func(e *env) {
		w := e.open("ref")
		e.write(w, []byte("once"))
		require.NoError(e, w.Commit(e.ctx, 0, ""))
		before := e.info(w.Digest())
		requireClass(e, w.Commit(e.ctx, 0, "", cellar.WithLabels(map[string]string{"second": "x"})), errdefs.ErrFailedPrecondition)
		require.Equal(e, before, e.info(w.Digest()))
	}},
}

// needLabels skips the test on stores that keep none.
func (e *env) needLabels() {
	e.Helper()
	if !e.impl.Labels {
		e.Skip("the store keeps no labels")
	}
}

// requireLeft checks that ref's ingestion can be resumed and holds p.
func (e *env) requireLeft(ref string, p []byte) {
	e.Helper()
	st, err := e.store.Status(e.ctx, ref)
	require.NoError(e, err)
	require.Equal(e, int64(len(p)), st.Offset)
	w := e.open(ref)
	require.Equal(e, digest.FromBytes(p), w.Digest())
	require.NoError(e, w.Close())
}

// largestLabel is one label that has just the size it may have.
func largestLabel() map[string]string {
	return map[string]string{strings.Repeat("k", 96): strings.Repeat("v", maxLabel-96)}
}

// maxLabel is the most that a key and its value have together, in bytes.
const maxLabel = 4096

// badLabels are sets of labels that no store takes.
func badLabels() map[string]map[string]string {
	many := map[string]string{}
	for i := range 5000 {
		many[fmt.Sprint("key ", i)] = "x"
	}
	large := map[string]string{}
	for i := range 200 {
		large[fmt.Sprint("key ", i)] = strings.Repeat("v", 4000)
	}
	return map[string]map[string]string{
		"value too large": {"k": strings.Repeat("v", maxLabel)},
		"key too large":   {strings.Repeat("k", maxLabel): "v"},
		"empty key":       {"": "v"},
		"too many":        many,
		"too large":       large,
	}
}
