package metadata_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// recordsEnv makes the test of the size a larger one.
const recordsEnv = "CELLAR_SIZE_RECORDS"

// W-B1, P4: a record with two labels of the size that real ones have takes at
// most 480 bytes of database, the pages that are not full included.
func TestW_B1_BytesPerRecord(t *testing.T) {
	records := 20000
	if testing.Short() {
		records = 4000
	}
	if n, err := strconv.Atoi(os.Getenv(recordsEnv)); err == nil {
		records = n
	}
	w := newWorld(t)
	w.put("a", []byte("first"))
	require.NoError(t, w.db.Settle(t.Context()))
	_, before := w.databaseSize()
	for done := 0; done < records; {
		w.update(func(ctx context.Context) {
			for range min(500, records-done) {
				w.putIn(ctx, "a", fmt.Append(nil, "content ", done), cellar.WithLabels(map[string]string{
					"containerd.io/distribution.source.docker.io": "library/postgres",
					"containerd.io/gc.ref.content.config":         "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
				}))
				done++
			}
		})
		if done%5000 == 0 {
			require.NoError(t, w.db.Settle(t.Context()))
		}
	}
	file, used := w.databaseSize()
	perRecord := float64(used-before) / float64(records)
	t.Logf("%d records take %.0f bytes each; the file has %.0f", records, perRecord, float64(file)/float64(records))
	require.LessOrEqual(t, perRecord, 480.0)
	if records >= 100000 {
		require.LessOrEqual(t, float64(file)/float64(records), 480.0)
	}
	seen := 0
	require.NoError(t, w.ns("a").Walk(t.Context(), func(cellar.Info) error { seen++; return nil }))
	require.Equal(t, records+1, seen)
}

// databaseSize returns how long the file is, which grows by megabytes, and how
// much of it is in use.
func (w *world) databaseSize() (file, used int64) {
	w.Helper()
	w.close()
	info, err := os.Stat(w.path)
	require.NoError(w, err)
	db, err := bolt.Open(w.path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	require.NoError(w, err)
	require.NoError(w, db.View(func(tx *bolt.Tx) error {
		used = tx.Size() - int64(db.Stats().FreePageN*db.Info().PageSize)
		return nil
	}))
	require.NoError(w, db.Close())
	w.start()
	return info.Size(), used
}
