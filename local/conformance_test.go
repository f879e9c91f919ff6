package local_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	// The raw store keeps every promise that the contract makes, labels apart.
	storetest.Run(t, storetest.Implementation{
		Open: func(t testing.TB, dir string, now func() time.Time) storetest.Handle {
			s, err := local.Open(dir, local.Options{Now: now})
			require.NoError(t, err)
			return storetest.Handle{Store: s, Close: s.Close}
		},
		Stray: plantStrays,
	})
}

// plantStrays puts into a store what does not belong there.
func plantStrays(t testing.TB, dir string) {
	for _, sub := range []string{"blobs/md5", "blobs/sha256/folder", "ingest/folder", "ingest/" + hex64('a'), "blobs/sha256/" + hex64('b')} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	for _, name := range []string{
		"blobs/stray", "blobs/md5/0123", "blobs/sha256/stray.tmp", "blobs/sha256/" + hex64('A'),
		"ingest/stray", "ingest/" + hex64('c'), "ingest/" + hex64('a') + "/data",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("stray"), 0o600))
	}
	require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "blobs/sha256", hex64('d'))))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "ingest", hex64('e'))))
}

func hex64(c byte) string {
	p := make([]byte, 64)
	for i := range p {
		p[i] = c
	}
	return string(p)
}
