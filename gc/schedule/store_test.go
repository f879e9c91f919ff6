package schedule_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/gc/schedule"
	"github.com/cellarstore/cellar/metadata"
)

var _ schedule.Collector = (*metadata.DB)(nil)

func TestStoreIsCollected(t *testing.T) {
	// In a real store what is deleted is removed from the disk without anything
	// else having to happen, an idle store is left alone, and closing it ends
	// Run.
	db, shut := open()
	t.Cleanup(shut)
	store, err := db.Namespace("tenant")
	require.NoError(t, err)
	const text = "kept by a label until it is deleted"
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	require.NoError(t, cellar.WriteBlob(t.Context(), store, "ref", strings.NewReader(text), desc,
		cellar.WithLabels(map[string]string{"containerd.io/gc.root": "yes"})))

	collections := make(chan gc.Stats, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- schedule.Run(context.Background(), db, schedule.Policy{
			StartupDelay: -1, MinInterval: time.Millisecond, Delay: time.Millisecond, Budget: -1,
			OnCollected: func(stats gc.Stats, err error) {
				if err == nil {
					collections <- stats
				}
			},
		})
	}()
	require.Equal(t, 1, (<-collections).Live)
	require.NoError(t, store.Delete(t.Context(), desc.Digest))
	require.Equal(t, 1, (<-collections).Blobs)
	require.Never(t, func() bool { return len(collections) > 0 }, 100*time.Millisecond, 10*time.Millisecond)

	require.NoError(t, db.Close())
	require.ErrorIs(t, <-ended, errdefs.ErrFailedPrecondition)
}
