package gc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/gc"
)

func TestOptions(t *testing.T) {
	// Without options nothing is asked for; of two that say the same, the last
	// holds; a grace of zero is asked for, not absent.
	require.Equal(t, gc.Options{}, gc.NewOptions())
	grace := gc.NewOptions(gc.WithGrace(time.Hour), gc.WithGrace(0)).Grace
	require.NotNil(t, grace)
	require.Zero(t, *grace)
}
