package local

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/internal/vfs"
)

// killedRoot, in the environment, makes the test binary the process that
// TestKill9 kills.
const killedRoot = "CELLAR_TEST_KILLED_ROOT"

// killedSize is more than two checkpoints, and not a multiple of their distance.
const killedSize = 2*checkpointEvery + 5<<20

func TestKill9(t *testing.T) {
	// A process that is killed in the midst of a large ingest leaves one that is
	// resumed at once: no more is read than what followed its last checkpoint.
	if root := os.Getenv(killedRoot); root != "" {
		writeUntilKilled(t, root)
	}
	if testing.Short() {
		t.Skip("writes 37 MiB")
	}
	root := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill9$")
	cmd.Env = append(os.Environ(), killedRoot+"="+root)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "written", lines.Text())
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	fault := vfs.NewFault(vfs.OS)
	s, err := Open(root, Options{FS: fault})
	require.NoError(t, err, "the lock went with the process")
	defer s.Close()
	begin := time.Now()
	w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("killed")})
	require.NoError(t, err)
	t.Logf("resumed in %v", time.Since(begin))
	require.Equal(t, int64(killedSize), w.offset())
	require.LessOrEqual(t, fault.BytesRead(dataName), int64(5<<20+tailSize))
	data := pattern(1, killedSize)
	require.NoError(t, w.Commit(bg, killedSize, digest.FromBytes(data)))
}

func writeUntilKilled(t *testing.T, root string) {
	s, err := Open(root, Options{})
	require.NoError(t, err)
	w, err := s.newWriter(bg, []cellar.WriterOpt{cellar.WithRef("killed")})
	require.NoError(t, err)
	data := pattern(1, killedSize)
	for off := 0; off < len(data); off += checkpointEvery {
		_, err = w.Write(data[off:min(off+checkpointEvery, len(data))])
		require.NoError(t, err)
		w.mu.Lock()
		require.NoError(t, w.wait())
		w.mu.Unlock()
	}
	_, _ = os.Stdout.WriteString("written\n")
	select {}
}
