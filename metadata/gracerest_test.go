package metadata_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
)

func TestGraceEndsAtRest(t *testing.T) {
	// A collection at the very moment at which grace ends is not taken for one
	// that has nothing to do, whoever the grace was for.
	const grace = 30 * time.Second
	for name, begin := range map[string]func(*world, *clock){
		"written": func(w *world, _ *clock) { w.put("a", []byte("new")) },
		"told to exist": func(w *world, c *clock) {
			dgst := w.put("a", []byte("new"))
			c.step(grace)
			_, err := w.ns("a").Writer(w.Context(), cellar.WithRef("r"), withDigest(dgst))
			requireClass(w, err, errExists)
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			w := newWorld(t, withClock(clock))
			begin(w, clock)
			for _, kept := range []int{1, 1, 0} {
				_, err := w.db.GarbageCollect(t.Context(), gc.WithGrace(grace))
				require.NoError(t, err)
				require.Len(t, w.stored(), kept)
				clock.step(grace / 2)
			}
		})
	}
}
