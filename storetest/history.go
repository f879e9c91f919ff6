package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
)

// The environment variables that say how long RunHistories plays: the number
// of histories, the number of calls in each, and the seed of the first one,
// which is different in every run where it is not given.
const (
	envHistories = "CELLAR_HISTORIES"
	envSteps     = "CELLAR_HISTORY_STEPS"
	envSeed      = "CELLAR_HISTORY_SEED"
)

// The defaults are for every commit; nights may have more.
const (
	defaultHistories = 25
	// moreHistories is how many times as many are played if something that they
	// are to reach is still unseen.
	moreHistories = 4
	shrinkTime    = 20 * time.Second
)

// defaultSteps makes histories longer where there is more to do.
func defaultSteps(tc Tenancy) uint64 {
	if tc.single() {
		return 80
	}
	return 400
}

// RunHistories plays random sequences of calls on a pool and on the model, and
// compares class and value of every answer. A history that differs is cut down
// to the calls that matter before it is shown, with the seed to play it again.
func RunHistories(t *testing.T, tc Tenancy) {
	table := operationsFor(tc)
	seed := setting(t, envSeed, rand.Uint64N(1<<40))
	few := uint64(defaultHistories)
	if testing.Short() {
		few /= 4
	}
	histories := setting(t, envHistories, few)
	length := int(setting(t, envSteps, defaultSteps(tc)))
	t.Logf("%s=%d", envSeed, seed)
	done := map[string]int{}
	complete := histories >= defaultHistories
	for i := range moreHistories * histories {
		if i >= histories && (!complete || len(unseen(tc, done)) == 0) {
			break
		}
		steps := compose(seed+i, length, table)
		f := play(t, tc, steps, done)
		if f == nil {
			continue
		}
		f = shrink(t, tc, steps[:f.step+1], f)
		t.Fatalf("%s=%d %s=1 %s=%d\n%s", envSeed, seed+i, envHistories, envSteps, length, f.describe())
	}
	t.Logf("answers: %v", done)
	if complete {
		require.Empty(t, unseen(tc, done), "no history had these")
	}
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// unseen returns what the histories were to reach and did not: a generator that
// only ever asks for what is not there proves nothing.
func unseen(tc Tenancy, done map[string]int) []string {
	must := []string{
		"commit ok", "commit FailedPrecondition", "open ok", "open AlreadyExists", "open Unavailable", "write ok", "read ok",
		"delete ok", "abort ok", "reopen ok", "truncate ok",
	}
	if !tc.single() {
		must = append(must, "update ok", "lend ok", "collect ok", "took over", "lease ok", "renew ok", "end ok", "hold ok",
			"put NotFound", "commit NotFound")
		must = append(must, outcomesOfCollections()...)
	}
	return slices.DeleteFunc(must, func(what string) bool { return done[what] > 0 })
}

// step is one call of a history. Its arguments are drawn from its own seed, so
// that it stays what it is when steps before it are taken out.
type step struct {
	op   operation
	seed uint64
}

// compose draws a history.
func compose(seed uint64, length int, table []operation) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	var weighted []operation
	for _, op := range table {
		weighted = append(weighted, slices.Repeat([]operation{op}, op.weight)...)
	}
	steps := make([]step, length)
	for i := range steps {
		steps[i] = step{weighted[r.IntN(len(weighted))], r.Uint64()}
	}
	return steps
}

// side is one of the two stores that a history is played on.
type side struct {
	pool   Pool
	stores map[string]cellar.Store
	// managers are those of the leases, nil where there are none.
	managers map[string]leases.Manager
	writers  map[slot][]cellar.Writer // of a ref, the newest last
}

// slot is where a history keeps the writers of a ref.
type slot struct{ namespace, ref string }

// stage is a history being played.
type stage struct {
	t     testing.TB
	tc    Tenancy
	dir   string
	clock atomic.Int64 // in seconds; background work may ask for it at any time
	real  side
	model side
	// outcomes tells what the model's last collection came upon.
	outcomes func() []string
	done     map[string]int
	past     []string // the calls so far
}

// failure is the first step at which the answers differ.
type failure struct {
	step        int
	past        []string
	real, model answer
}

func (f *failure) describe() string {
	return fmt.Sprintf("%s\nthe store answers: %s\nthe model answers: %s", strings.Join(f.past, "\n"), f.real, f.model)
}

// play plays steps on a fresh pool and a fresh model, and then compares all
// that they hold, before and after opening them again.
func play(t testing.TB, tc Tenancy, steps []step, done map[string]int) *failure {
	dir, err := os.MkdirTemp(t.TempDir(), "history")
	require.NoError(t, err)
	s := &stage{t: t, tc: tc, dir: dir, done: done}
	s.clock.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	rules := tc.Rules
	rules.Now = s.now
	model := NewModel(rules)
	s.model.pool, s.outcomes = model.Open(), model.Outcomes
	s.real.pool = tc.Open(t, filepath.Join(dir, "pool"), s.now)
	s.arrange()
	defer func() { require.NoError(t, s.real.pool.Close()) }()
	for i, st := range steps {
		if f := s.take(st); f != nil {
			f.step = i
			return f
		}
	}
	for _, op := range []operation{inventory, reopen, inventory} {
		if f := s.take(step{op: op}); f != nil {
			f.step = len(steps) - 1
			return f
		}
	}
	return nil
}

func (s *stage) now() time.Time { return time.Unix(s.clock.Load(), 0).UTC() }

// arrange gets the stores of both sides, which have no writers yet.
func (s *stage) arrange() {
	for _, side := range []*side{&s.real, &s.model} {
		side.stores, side.writers = map[string]cellar.Store{}, map[slot][]cellar.Writer{}
		side.managers = map[string]leases.Manager{}
		for _, name := range s.tc.names() {
			store, err := side.pool.Namespace(name)
			require.NoError(s.t, err)
			side.stores[name] = store
			if side.pool.Leases != nil {
				side.managers[name], err = side.pool.Leases(name)
				require.NoError(s.t, err)
			}
		}
	}
}

// take makes one call on both sides.
func (s *stage) take(st step) *failure {
	s.clock.Add(1)
	d := &drawer{Rand: rand.New(rand.NewPCG(st.seed, 2)), stage: s}
	c := st.op.draw(d)
	if c.run == nil {
		return nil
	}
	s.past = append(s.past, st.op.name+" "+c.text)
	ctx := s.t.Context()
	real, model := c.run(ctx, &s.real), c.run(ctx, &s.model)
	s.count(st.op.name, model)
	if !real.equal(model) {
		return &failure{past: s.past, real: real, model: model}
	}
	return nil
}

func (s *stage) count(name string, a answer) {
	if s.done == nil {
		return
	}
	s.done[name+" "+a.class()]++
	for _, remark := range a.remarks {
		s.done[remark]++
	}
}

// shrink takes out steps as long as the rest still fails.
func shrink(t testing.TB, tc Tenancy, steps []step, f *failure) *failure {
	deadline := time.Now().Add(shrinkTime)
	for size := len(steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(steps) && time.Now().Before(deadline); {
			fewer := slices.Concat(steps[:at], steps[at+size:])
			if still := play(t, tc, fewer, nil); still != nil {
				steps, f = fewer[:still.step+1], still
			} else {
				at += size
			}
		}
	}
	return f
}

// answer is what a call returned, as far as sides must agree on it.
type answer struct {
	classes []error
	value   any
	// remarks name what the histories are to reach at least once. Sides need
	// not agree on them.
	remarks []string
}

func (a answer) equal(b answer) bool {
	return slices.Equal(a.classes, b.classes) && reflect.DeepEqual(a.value, b.value)
}

func answerOf(value any, err error) answer {
	if err != nil {
		return answer{classes: classesOf(err)}
	}
	return answer{value: value}
}

// class is a short name for the kind of answer.
func (a answer) class() string {
	if len(a.classes) == 0 {
		return "ok"
	}
	words := strings.Fields(a.classes[0].Error())
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

func (a answer) String() string {
	if len(a.classes) > 0 {
		return fmt.Sprint(a.classes)
	}
	return fmt.Sprintf("%+v", a.value)
}
