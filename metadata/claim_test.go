package metadata_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

func TestStartedAfreshIsShown(t *testing.T) {
	// An ingestion that starts afresh, for its size is another now, is shown
	// while it is open, whatever it had taken over before.
	w := newWorld(t, withPolicy(metadata.Shared))
	lent := w.put("a", []byte("lent"))
	require.NoError(t, w.begin("b", "ref", []byte("received"), cellar.WithDescriptor(describe("", 70))).Close())
	require.NoError(t, w.open("b", "ref", cellar.WithDescriptor(describe(lent, 0))).Close())
	cw := w.open("b", "ref", cellar.WithDescriptor(describe(digest.FromString("another"), 7)))
	require.Equal(t, []string{"ref"}, w.listed("b"))
	st, err := w.ns("b").Status(t.Context(), "ref")
	require.NoError(t, err)
	require.Equal(t, w.status(cw), st)
	require.Equal(t, int64(7), st.Total)
	w.write(cw, []byte("another"))
	require.NoError(t, cw.Commit(t.Context(), 7, digest.FromString("another")))
	w.requireContent("b", []byte("another"))
}
