package metadata_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

// A raw store that offers nothing but the plain contract does as well, only
// slower: writing, resuming, other algorithms, taking over, healing,
// collecting, and surviving a power loss.
func TestPlainRawStore(t *testing.T) {
	for _, size := range []int{0, small, large} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, withPolicy(metadata.Shared), withRaw(func(r cellar.RawStore) cellar.Store {
				return struct{ cellar.Store }{r}
			}))
			p := blob("p", size)
			dgst := digest.FromBytes(p)
			require.NoError(t, w.begin("a", "r", p[:size/2]).Close())
			w.reopen()
			cw := w.open("a", "r")
			require.EqualValues(t, size/2, w.status(cw).Offset)
			w.write(cw, p[size/2:])
			require.NoError(t, cw.Commit(t.Context(), int64(size), dgst))
			w.powerLoss(1, 0)
			w.requireContent("a", p)

			cw = w.open("b", "r", withDigest(dgst))
			require.EqualValues(t, size, w.status(cw).Offset)
			require.NoError(t, cw.Commit(t.Context(), 0, ""))
			w.put("c", p)
			other := digest.SHA512.FromBytes(p)
			cw = w.open("a", "other", withDigest(other))
			w.write(cw, p)
			require.NoError(t, cw.Commit(t.Context(), int64(size), other))
			w.requireContentUnder("a", other, p)

			for _, ns := range []string{"a", "b"} {
				w.delete(ns, dgst)
			}
			w.update(func(ctx context.Context) { require.NoError(t, w.ns("a").Delete(ctx, other)) })
			w.collect()
			require.Equal(t, []digest.Digest{dgst}, w.stored())
			w.requireContent("c", p)
			w.delete("c", dgst)
			w.collect()
			require.Empty(t, w.stored())
			require.Empty(t, w.rawRefs())
		})
	}
}
