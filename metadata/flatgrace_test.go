package metadata_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

func TestFlatLeaseAndGrace(t *testing.T) {
	// Content that a flat lease keeps and that is new as well keeps what it
	// refers to, for as long as it is new.
	clock := newClock()
	w := newWorld(t, withClock(clock))
	target := w.put("a", []byte("old, and referred to"))
	clock.step(time.Minute)
	all, err := w.db.NamespaceLeases("a")
	require.NoError(t, err)
	_, err = all.Create(t.Context(), leases.WithID("flat"), leases.WithLabels(map[string]string{labels.GCFlat: "yes"}))
	require.NoError(t, err)
	ctx := leases.WithLease(t.Context(), "flat")
	w.putIn(ctx, "a", []byte("new"), cellar.WithLabels(map[string]string{labels.GCRefContent: target.String()}))

	_, err = w.db.GarbageCollect(t.Context(), gc.WithGrace(30*time.Second))
	require.NoError(t, err)
	w.requireContent("a", []byte("old, and referred to"))

	clock.step(time.Minute)
	_, err = w.db.GarbageCollect(t.Context(), gc.WithGrace(30*time.Second))
	require.NoError(t, err)
	w.requireAbsent("a", target)
	w.requireContent("a", []byte("new"))
}
