package metadata_test

import (
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

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// A process that is killed while it collects leaves nothing that the next
// collection does not finish: Check finds nothing, everything that a root, a
// reference or a lease had been acknowledged to keep is there byte for byte, and
// nothing else is.
func TestKill9Collecting(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	if n, err := strconv.Atoi(os.Getenv(killRoundsEnv)); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	groups := map[string]groupState{}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	midway, collected := 0, 0
	for round := range rounds {
		acks := runAndKill(t, "collect", dir, round, time.Duration(20+rng.IntN(400))*time.Millisecond)
		running, records := replayGroups(groups, acks)
		if running {
			midway++
		}
		collected += records
		verifyCollected(t, dir, groups, rng)
		t.Logf("round %d: %d acknowledgements, %d records collected, %d groups", round, len(acks), records, len(groups))
	}
	require.Positive(t, midway, "no process was killed while it collected")
	require.Positive(t, collected, "no process collected anything")
}

// groupState is what is known of a group of contents that live and die together.
type groupState int

const (
	groupBegun  groupState = iota // may be there in part, and is for nobody
	groupKept                     // acknowledged, and must be there
	groupEnding                   // may have been given up
	groupGone                     // given up, and must go
)

// replayGroups brings the groups up to date. It returns whether a collection ran
// at the end, and how many records those before it had collected.
func replayGroups(groups map[string]groupState, acks []string) (running bool, records int) {
	states := map[string]groupState{"begin": groupBegun, "kept": groupKept, "end": groupEnding, "gone": groupGone}
	for _, ack := range acks {
		verb, name, _ := strings.Cut(ack, " ")
		switch state, ok := states[verb]; {
		case ok:
			groups[name] = state
		case verb == "collecting":
			running = true
		case verb == "collected":
			n, _ := strconv.Atoi(name)
			running, records = false, records+n
		}
	}
	return running, records
}

// verifyCollected opens what the process left, collects once, without grace, and
// checks all that there is.
func verifyCollected(t *testing.T, dir string, groups map[string]groupState, rng *rand.Rand) {
	t.Helper()
	t.Setenv(childDirEnv, dir)
	w := openChild()
	defer func() { require.NoError(t, w.close()) }()
	requireNoFindings(t, w)
	g := &grouper{w: w, rng: rng}
	for name, state := range groups {
		if state == groupBegun || state == groupEnding {
			groups[name] = g.settle(t, name)
		}
	}
	_, err := w.db.GarbageCollect(t.Context(), gc.WithGrace(0))
	require.NoError(t, err)
	requireNoFindings(t, w)

	live := map[string]map[digest.Digest]bool{"n0": {}, "n1": {}, "n2": {}}
	files := map[digest.Digest]bool{}
	for name, state := range groups {
		if state != groupKept {
			delete(groups, name)
			continue
		}
		for _, p := range groupBlobs(name) {
			live[groupSpace(name)][digest.FromBytes(p)] = true
			files[digest.FromBytes(p)] = true
			requireBlob(t, w, name, p)
		}
	}
	requireRecords(t, w, live)
	require.NoError(t, w.blobs.Walk(t.Context(), func(info cellar.Info) error {
		require.True(t, files[info.Digest], "file of %s is garbage", info.Digest)
		return nil
	}))
	g.thin(groups)
}

// thin gives up groups as long as there are many, for the next process to
// collect.
func (g *grouper) thin(groups map[string]groupState) {
	for name := range groups {
		if len(groups) < 10 || g.rng.IntN(2) == 0 {
			continue
		}
		g.end(name)
		groups[name] = groupGone
	}
}

func requireNoFindings(t *testing.T, w *childWorld) {
	t.Helper()
	findings, err := w.db.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, findings)
}

func requireBlob(t *testing.T, w *childWorld, name string, p []byte) {
	t.Helper()
	store, err := w.db.Namespace(groupSpace(name))
	require.NoError(t, err)
	got, err := cellar.ReadBlob(t.Context(), store, describe(digest.FromBytes(p), 0))
	require.NoError(t, err, "group %s", name)
	require.Equal(t, digest.FromBytes(p), digest.FromBytes(got), "group %s", name)
}

// requireRecords checks that the namespaces have these records and no others, and
// no ingestion that can't be given up.
func requireRecords(t *testing.T, w *childWorld, live map[string]map[digest.Digest]bool) {
	t.Helper()
	for ns, want := range live {
		store, err := w.db.Namespace(ns)
		require.NoError(t, err)
		count := 0
		require.NoError(t, store.Walk(t.Context(), func(info cellar.Info) error {
			require.True(t, want[info.Digest], "record of %s in %s is garbage, labels %v", info.Digest, ns, info.Labels)
			count++
			return nil
		}))
		require.Equal(t, len(want), count)
		left, err := store.ListStatuses(t.Context())
		require.NoError(t, err)
		for _, st := range left {
			require.NoError(t, store.Abort(t.Context(), st.Ref))
		}
	}
	left, err := w.blobs.ListStatuses(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)
}

// settle finds out what became of a group whose last step was not acknowledged,
// and lets go of the lease that it was built under: then it is kept or gone.
func (g *grouper) settle(t *testing.T, name string) groupState {
	t.Helper()
	store, all := g.space(name)
	_, err := all.Delete(t.Context(), name, leases.IfExists())
	require.NoError(t, err)
	info, err := store.Info(t.Context(), digest.FromBytes(groupBlobs(name)[0]))
	if err == nil && info.Labels[labels.GCRoot] != "" {
		return groupKept
	}
	return groupGone
}

// A group is held together in one of these ways; its first content is the one
// that is held from outside.
const (
	rootedGroup = iota // a root refers to the others
	backedGroup        // the others belong to a root
	leasedGroup        // a lease holds the first, which refers to the others
	groupKinds
)

func groupNumber(name string) int {
	_, number, _ := strings.Cut(name, "-")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	return n
}

func groupSpace(name string) string { return "n" + name[:1] }
func groupKind(name string) int     { return groupNumber(name) % groupKinds }

// groupBlobs are the contents of a group, which no other group has.
func groupBlobs(name string) [][]byte {
	sizes := []int{40, 300, 5000, large}
	blobs := make([][]byte, 2+groupNumber(name)%3)
	for i := range blobs {
		blobs[i] = blob(fmt.Sprint("group ", name, " ", i), sizes[(i+groupNumber(name))%len(sizes)])
	}
	return blobs
}

// childCollect writes and gives up groups, and garbage, while it collects
// without rest and without grace. Leases keep what is not referred to yet.
func childCollect() {
	w := openChild()
	round, _ := strconv.Atoi(os.Getenv(killRoundEnv))
	var mu sync.Mutex
	say := func(verb, name string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(os.Stdout, strings.TrimSuffix(verb+" "+name, " ")+"\n")
	}
	say("open", "")
	for worker := range 3 {
		go func() {
			g := &grouper{w: w, say: say, rng: rand.New(rand.NewPCG(uint64(round), uint64(worker)))}
			for i := 0; ; i++ {
				g.work(fmt.Sprintf("%d-%d", worker, round*100_000+i))
			}
		}()
	}
	for {
		say("collecting", "")
		stats, err := w.db.GarbageCollect(context.Background(), gc.WithGrace(0))
		orExit(err)
		say("collected", strconv.Itoa(stats.Records))
	}
}

// grouper makes groups, each in one namespace, and gives most of them up.
type grouper struct {
	w    *childWorld
	say  func(verb, name string)
	rng  *rand.Rand
	kept []string
}

func (g *grouper) work(name string) {
	g.say("begin", name)
	g.build(name)
	g.say("kept", name)
	g.garbage(name)
	if g.kept = append(g.kept, name); len(g.kept) < 3 {
		return
	}
	i := g.rng.IntN(len(g.kept))
	old := g.kept[i]
	g.kept = append(g.kept[:i], g.kept[i+1:]...)
	g.say("end", old)
	g.end(old)
	g.say("gone", old)
}

func (g *grouper) space(name string) (cellar.Store, leases.Manager) {
	store, err := g.w.db.Namespace(groupSpace(name))
	orExit(err)
	all, err := g.w.db.NamespaceLeases(groupSpace(name))
	orExit(err)
	return store, all
}

// build writes a group under a lease, the one that is held from outside last,
// and lets go of the lease unless that is what holds the group.
func (g *grouper) build(name string) {
	store, all := g.space(name)
	_, err := all.Create(context.Background(), leases.WithID(name))
	orExit(err)
	ctx := leases.WithLease(context.Background(), name)
	blobs := groupBlobs(name)
	first := digest.FromBytes(blobs[0]).String()
	held := map[string]string{}
	for i, p := range blobs[1:] {
		belongs := map[string]string{}
		if groupKind(name) == backedGroup {
			belongs[labels.GCBackRefContent] = first
		} else {
			held[fmt.Sprint(labels.GCRefContent, ".", i)] = digest.FromBytes(p).String()
		}
		g.put(ctx, store, fmt.Sprint(name, "-", i+1), p, belongs)
	}
	if groupKind(name) != leasedGroup {
		held[labels.GCRoot] = "yes"
	}
	g.put(ctx, store, name+"-0", blobs[0], held)
	if groupKind(name) != leasedGroup {
		_, err = all.Delete(context.Background(), name)
		orExit(err)
	}
}

func (g *grouper) put(ctx context.Context, store cellar.Store, ref string, p []byte, set map[string]string) {
	cw, err := store.Writer(ctx, cellar.WithRef(ref))
	orExit(err)
	_, err = cw.Write(p)
	orExit(err)
	orExit(cw.Commit(ctx, int64(len(p)), digest.FromBytes(p), cellar.WithLabels(set)))
}

// garbage writes what nothing keeps: the collection may take it before its
// Commit has returned, but not fail it.
func (g *grouper) garbage(name string) {
	store, _ := g.space(name)
	g.put(context.Background(), store, name+"-garbage", blob("garbage "+name, []int{50, large}[g.rng.IntN(2)]), nil)
}

// end takes away what holds a group: its root's label, the root itself, or the
// lease.
func (g *grouper) end(name string) {
	store, all := g.space(name)
	first := digest.FromBytes(groupBlobs(name)[0])
	switch {
	case groupKind(name) == leasedGroup:
		_, err := all.Delete(context.Background(), name)
		orExit(err)
	case g.rng.IntN(2) == 0:
		_, err := store.Update(context.Background(), cellar.Info{Digest: first}, "labels."+labels.GCRoot)
		orExit(err)
	default:
		orExit(store.Delete(context.Background(), first))
	}
}
