package metadata_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// One failing call of the raw store at a time, on every call that a commit
// makes: the error has a class, the ref is free, nothing of it is visible, and
// a retry works.
func TestEveryRawCallFails(t *testing.T) {
	for _, size := range []int{small, large} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} {
			t.Run(fmt.Sprintf("%d %v", size, errno), func(t *testing.T) {
				t.Parallel()
				failEachCall(t, size, errno)
			})
		}
	}
}

func failEachCall(t *testing.T, size int, errno syscall.Errno) {
	w := newWorld(t)
	w.put("a", blob("before", size))
	for n := 1; ; n++ {
		require.Less(t, n, 200)
		p := blob(fmt.Sprintf("attempt %d", n), size)
		ref := fmt.Sprintf("r%d", n)
		w.fault.Fail(0, n, errno)
		err := tryPut(w, ref, p)
		if !w.fault.Heal() {
			require.NoError(t, err)
			return
		}
		if err != nil {
			require.NotEmpty(t, classesOf(err), "call %d: %v", n, err)
			w.requireAbsent("a", digest.FromBytes(p))
		} else {
			w.requireContent("a", p)
			continue
		}
		retry, err := w.ns("a").Writer(t.Context(), cellar.WithRef(ref))
		require.NoError(t, err, "call %d: the ref", n)
		have := w.status(retry).Offset
		require.LessOrEqual(t, have, int64(size), "call %d", n)
		w.write(retry, p[have:])
		require.NoError(t, retry.Commit(t.Context(), int64(size), digest.FromBytes(p)), "call %d: retry", n)
		w.requireContent("a", p)
	}
}
