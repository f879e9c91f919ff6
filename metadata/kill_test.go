package metadata_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
)

// killRoundsEnv makes the kill loops longer. killRoundEnv tells a child which
// round it is.
const (
	killRoundsEnv = "CELLAR_KILL_ROUNDS"
	killRoundEnv  = "CELLAR_KILL_ROUND"
)

// A process that is killed at any moment loses nothing that it had
// acknowledged: every commit is there byte for byte, every deletion holds,
// Check finds nothing, and the next collection leaves the live blobs and no
// others.
func TestKill9(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	if n, err := strconv.Atoi(os.Getenv(killRoundsEnv)); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	known := map[string]bool{} // what a name's content must be: there, or not
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		acks := runAndKill(t, "work", dir, round, time.Duration(20+rng.IntN(400))*time.Millisecond)
		unsure := replay(known, acks)
		verifyKilled(t, dir, known, unsure)
		t.Logf("round %d: %d acknowledgements, %d names", round, len(acks), len(known))
	}
}

// runAndKill runs a child on dir, kills it after some time of work, and
// returns what it said.
func runAndKill(t *testing.T, name, dir string, round int, after time.Duration) []string {
	t.Helper()
	cmd := child(t.Context(), name, dir)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", killRoundEnv, round))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	require.NoError(t, err, "%s", stderr.String())
	require.Equal(t, "open\n", first)
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var acks []string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line that was cut was not acknowledged
		}
		acks = append(acks, strings.TrimSuffix(line, "\n"))
	}
	_ = cmd.Wait()
	require.Empty(t, stderr.String())
	return acks
}

// replay brings known up to date, and returns the names whose last operation
// was begun and not acknowledged.
func replay(known map[string]bool, acks []string) (unsure map[string]bool) {
	unsure = map[string]bool{}
	for _, ack := range acks {
		verb, name, _ := strings.Cut(ack, " ")
		switch verb {
		case "begin":
			unsure[name] = true
		case "put", "deleted":
			known[name] = verb == "put"
			delete(unsure, name)
		}
	}
	return unsure
}

func verifyKilled(t *testing.T, dir string, known, unsure map[string]bool) {
	t.Helper()
	t.Setenv(childDirEnv, dir)
	w := openChild()
	defer func() { require.NoError(t, w.close()) }()
	findings, err := w.db.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, findings)
	live := map[digest.Digest]bool{}
	for name := range unsure {
		known[name] = false
		store, _ := w.db.Namespace(nameSpace(name))
		if _, err := store.Info(t.Context(), digest.FromBytes(nameBlob(name))); err == nil {
			known[name] = true
		}
	}
	for name, there := range known {
		p := nameBlob(name)
		store, err := w.db.Namespace(nameSpace(name))
		require.NoError(t, err)
		got, err := cellar.ReadBlob(t.Context(), store, describe(digest.FromBytes(p), 0))
		if !there {
			require.True(t, errdefs.IsNotFound(err), "deleted %s is back: %v", name, err)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, digest.FromBytes(p), digest.FromBytes(got), name)
		live[digest.FromBytes(p)] = true
	}
	_, err = w.db.GarbageCollect(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.blobs.Walk(t.Context(), func(info cellar.Info) error {
		require.True(t, live[info.Digest], "%s is held by nobody", info.Digest)
		delete(live, info.Digest)
		return nil
	}))
	require.Empty(t, live)
}

// nameSpace and nameBlob tell namespace and content of a name. A third of the
// content is large.
func nameSpace(name string) string { return "n" + name[:1] }

func nameBlob(name string) []byte {
	n := 0
	for _, c := range name[2:] {
		n = n*10 + int(c-'0')
	}
	return blob(name, []int{16, 100, 5000, metadata.SmallBlob, large, 300 << 10}[n%6])
}

// childWork writes, resumes, deletes and collects until it is killed. It says
// what it begins and what was acknowledged.
func childWork() {
	w := openChild()
	round, _ := strconv.Atoi(os.Getenv(killRoundEnv))
	var mu sync.Mutex
	say := func(verb, name string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(os.Stdout, strings.TrimSuffix(verb+" "+name, " ")+"\n")
	}
	say("open", "")
	ctx := context.Background()
	resumeAll(ctx, w, say)
	for worker := range 6 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d", worker%3, (round*1000+i)*6+worker)
				childPut(ctx, w, rng, name, say)
				if rng.IntN(3) == 0 {
					say("begin", name)
					store, _ := w.db.Namespace(nameSpace(name))
					orExit(store.Delete(ctx, digest.FromBytes(nameBlob(name))))
					say("deleted", name)
				}
			}
		}()
	}
	for {
		_, err := w.db.GarbageCollect(ctx)
		orExit(err)
		time.Sleep(10 * time.Millisecond)
	}
}

// resumeAll goes on with what the last process had not committed.
func resumeAll(ctx context.Context, w *childWorld, say func(verb, name string)) {
	for _, ns := range []string{"n0", "n1", "n2"} {
		store, err := w.db.Namespace(ns)
		orExit(err)
		statuses, err := store.ListStatuses(ctx)
		orExit(err)
		for _, st := range statuses {
			childPut(ctx, w, rand.New(rand.NewPCG(1, 1)), st.Ref, say)
		}
	}
}

// childPut writes one content, sometimes in two goes.
func childPut(ctx context.Context, w *childWorld, rng *rand.Rand, name string, say func(verb, name string)) {
	p := nameBlob(name)
	store, err := w.db.Namespace(nameSpace(name))
	orExit(err)
	half := len(p)
	if rng.IntN(3) == 0 {
		half = len(p) / 2
	}
	for _, end := range []int{half, len(p)} {
		cw, err := store.Writer(ctx, cellar.WithRef(name))
		orExit(err)
		st, err := cw.Status()
		orExit(err)
		if st.Offset < int64(end) {
			_, err = cw.Write(p[st.Offset:end])
			orExit(err)
		}
		if end < len(p) {
			orExit(cw.Close())
			continue
		}
		say("begin", name)
		orExit(cw.Commit(ctx, int64(len(p)), digest.FromBytes(p)))
		say("put", name)
		return
	}
}
