package metadata_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
)

// traceEnv names a folder of further traces to replay.
const traceEnv = "CELLAR_GC_TRACES"

func TestTraces(t *testing.T) {
	// What containerd kept and answered in recorded histories, so does a
	// database without grace: every class of error, offset, record, label,
	// lease, resource, ingestion and blob.
	dir := os.Getenv(traceEnv)
	if dir == "" {
		dir = filepath.Join("testdata", "gc-traces")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".jsonl"), func(t *testing.T) { replayTrace(t, file) })
	}
}

// traceHeader is the first line of a trace.
type traceHeader struct {
	Format     string
	Policy     string
	Timed      bool
	Start      time.Time
	Namespaces []string
	Blobs      []traceBlob
}

type traceBlob struct {
	ID     string
	Data   string
	Digest digest.Digest
}

// traceOp is one of the other lines.
type traceOp struct {
	Op, NS, ID, Ref, Blob, Lease, Type, Res string
	Declare, Late                           bool
	N, Seconds                              int
	Labels                                  map[string]string
	Want                                    struct {
		Class  string
		Offset *int64
		State  *traceState
	}
}

// traceState is what can be seen of a store.
type traceState struct {
	Namespaces map[string]traceNamespace
	// Blobs are the files of the recorded run, Need those of them that must be
	// there. Of a replay, both are the files.
	Blobs, Need []string
}

type traceNamespace struct {
	Listed  bool
	Labels  map[string]string
	Content map[string]map[string]string
	Leases  map[string]traceLease
	Ingests map[string]traceIngest
}

type traceLease struct {
	Labels    map[string]string
	Resources []string
}

type traceIngest struct{ Offset, Total int64 }

// player replays one trace.
type player struct {
	*world
	header traceHeader
	clock  *clock
	names  map[digest.Digest]string // of blobs
	text   *strings.Replacer        // {b1} to the digest
	ops    []traceOp
	next   int // index of the operation after the one that is played
	// left is what containerd's raw store may still have of an ingestion, by
	// namespace and ref.
	left map[string]leftover
}

func replayTrace(t *testing.T, file string) {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	require.True(t, lines.Scan())
	p := newPlayer(t, lines.Bytes())
	var text []string
	for lines.Scan() {
		var op traceOp
		require.NoError(t, json.Unmarshal(lines.Bytes(), &op))
		p.ops, text = append(p.ops, op), append(text, lines.Text())
	}
	require.NoError(t, lines.Err())
	for i, line := range text {
		p.next = i + 1
		p.play(p.ops[i], line)
	}
}

func newPlayer(t *testing.T, header []byte) *player {
	p := &player{clock: newClock(), names: map[digest.Digest]string{}, left: map[string]leftover{}}
	require.NoError(t, json.Unmarshal(header, &p.header))
	require.Equal(t, "conf-gc-trace/1", p.header.Format)
	p.clock.at = p.header.Start
	if !p.header.Timed {
		p.clock.at = ofRecording
	}
	var pairs []string
	for _, b := range p.header.Blobs {
		require.Equal(t, b.Digest, digest.FromString(b.Data))
		p.names[b.Digest] = b.ID
		pairs = append(pairs, "{"+b.ID+"}", b.Digest.String())
	}
	p.text = strings.NewReplacer(pairs...)
	policy := metadata.Isolated
	if p.header.Policy == "shared" {
		policy = metadata.Shared
	}
	p.world = newWorld(t, withPolicy(policy), withClock(p.clock), func(w *world) {
		w.unsound = true // labels that are no expiry, which requireSound finds
	})
	return p
}

// play does one operation and compares what it gives.
func (p *player) play(op traceOp, line string) {
	p.Helper()
	offset, err := p.do(p.Context(), op)
	require.Equal(p, op.Want.Class, traceClass(err), "error is %v of\n%s", err, line)
	if op.Want.Offset != nil {
		require.NotNil(p, offset, "no writer was opened by\n%s", line)
		require.Equal(p, *op.Want.Offset, *offset, "offset of\n%s", line)
	}
	if op.Want.State != nil {
		p.requireState(op.Want.State, line)
	}
}

// traceClass is how traces call the class of an error.
func traceClass(err error) string {
	for name, is := range map[string]func(error) bool{
		"not_found":           errdefs.IsNotFound,
		"already_exists":      errdefs.IsAlreadyExists,
		"failed_precondition": errdefs.IsFailedPrecondition,
		"invalid_argument":    errdefs.IsInvalidArgument,
		"not_implemented":     errdefs.IsNotImplemented,
	} {
		if is(err) {
			return name
		}
	}
	if err != nil {
		return "unknown"
	}
	return "ok"
}

// do does one operation. offset is that of the writer if it opened one.
func (p *player) do(ctx context.Context, op traceOp) (offset *int64, err error) {
	if op.Lease != "" {
		ctx = leases.WithLease(ctx, op.Lease)
	}
	switch op.Op {
	case "put", "stage":
		return p.write(ctx, op)
	case "label", "setlabels":
		return nil, p.setLabels(ctx, op)
	case "delete":
		return nil, p.ns(op.NS).Delete(ctx, p.blob(op.Blob).Digest)
	case "abort":
		return nil, p.ns(op.NS).Abort(ctx, op.Ref)
	case "advance":
		p.clock.step(time.Duration(op.Seconds) * time.Second)
		return nil, nil
	case "gc":
		return nil, p.collectNow(ctx)
	case "state":
		return nil, nil
	}
	if strings.HasPrefix(op.Op, "ns.") {
		return nil, p.changeNamespace(ctx, op)
	}
	return nil, p.changeLease(ctx, op)
}

// ofRecording is the time in traces without a clock, whose leases expire long
// before or after it.
var ofRecording = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *player) collectNow(ctx context.Context) error {
	_, err := p.db.GarbageCollect(ctx, gc.WithGrace(0))
	return err
}

func (p *player) changeNamespace(ctx context.Context, op traceOp) error {
	all := p.db.Namespaces()
	switch op.Op {
	case "ns.create":
		return all.Create(ctx, op.NS, p.expand(op.Labels))
	case "ns.delete":
		return all.Delete(ctx, op.NS)
	}
	for _, key := range slices.Sorted(maps.Keys(op.Labels)) {
		if err := all.SetLabel(ctx, op.NS, key, op.Labels[key]); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) changeLease(ctx context.Context, op traceOp) error {
	all, err := p.db.NamespaceLeases(op.NS)
	require.NoError(p, err)
	r := leases.Resource{Type: op.Type, ID: p.text.Replace(op.Res)}
	switch op.Op {
	case "lease.create":
		_, err := all.Create(ctx, leases.WithID(op.ID), leases.WithLabels(p.expand(op.Labels)))
		return err
	case "lease.delete":
		_, err := all.Delete(ctx, op.ID)
		return err
	case "lease.add":
		return all.AddResource(ctx, op.ID, r)
	case "lease.rm":
		return all.DeleteResource(ctx, op.ID, r)
	}
	return fmt.Errorf("unknown operation %q", op.Op)
}

func (p *player) setLabels(ctx context.Context, op traceOp) error {
	paths := []string{"labels"}
	if op.Op == "label" {
		paths = nil
		for _, key := range slices.Sorted(maps.Keys(op.Labels)) {
			paths = append(paths, "labels."+key)
		}
	}
	_, err := p.ns(op.NS).Update(ctx, cellar.Info{Digest: p.blob(op.Blob).Digest, Labels: p.expand(op.Labels)}, paths...)
	return err
}

// write is put, or stage, which leaves the ingestion.
func (p *player) write(ctx context.Context, op traceOp) (offset *int64, err error) {
	b := p.blob(op.Blob)
	opts := []cellar.WriterOpt{cellar.WithRef(op.Ref)}
	if op.Declare {
		opts = append(opts, cellar.WithDescriptor(describe(b.Digest, int64(len(b.Data)))))
	}
	p.bringBack(ctx, op)
	before, _ := p.ns(op.NS).Status(ctx, op.Ref)
	cw, err := p.ns(op.NS).Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cw.Close()) }()
	at := p.status(cw).Offset
	offset = &at
	end := len(b.Data)
	if op.Op == "stage" {
		end = op.N
	}
	if whole := op.Declare && at == int64(len(b.Data)) && cw.Digest() == b.Digest; !whole {
		if err := p.fill(cw, op, before, b.Data[min(int(at), end):end]); err != nil {
			return offset, err
		}
	}
	if op.Op == "stage" {
		return offset, nil
	}
	var expected digest.Digest
	if op.Declare || op.Late {
		expected = b.Digest
	}
	return offset, cw.Commit(ctx, int64(len(b.Data)), expected, cellar.WithLabels(p.expand(op.Labels)))
}

func (p *player) blob(id string) traceBlob {
	i := slices.IndexFunc(p.header.Blobs, func(b traceBlob) bool { return b.ID == id })
	require.GreaterOrEqual(p, i, 0, "blob %q", id)
	return p.header.Blobs[i]
}

// expand puts digests into the values of labels.
func (p *player) expand(labels map[string]string) map[string]string {
	all := map[string]string{}
	for key, value := range labels {
		all[key] = p.text.Replace(value)
	}
	return all
}

// name is how a trace calls a digest.
func (p *player) name(dgst digest.Digest) string {
	if name, ok := p.names[dgst]; ok {
		return name
	}
	return dgst.String()
}

// requireState compares what is there. Files may be any that the recorded run
// had, and must be those that it needed.
func (p *player) requireState(want *traceState, line string) {
	p.Helper()
	got := p.state()
	for name, ns := range want.Namespaces {
		want.Namespaces[name] = p.normal(ns)
	}
	require.Equal(p, traceText(want.Namespaces), traceText(got.Namespaces), "after\n%s", line)
	for _, name := range want.Need {
		require.Contains(p, got.Blobs, name, "file that is missing after\n%s", line)
	}
	for _, name := range got.Blobs {
		require.Contains(p, want.Blobs, name, "file that should be gone after\n%s", line)
	}
}

// traceText is a state as text that shows well in a difference.
func traceText(state map[string]traceNamespace) string {
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(text)
}

// normal is a namespace without empty maps and with digests in its labels.
func (p *player) normal(ns traceNamespace) traceNamespace {
	n := traceNamespace{
		Listed: ns.Listed, Labels: p.expand(ns.Labels), Content: map[string]map[string]string{},
		Leases: map[string]traceLease{}, Ingests: map[string]traceIngest{},
	}
	maps.Copy(n.Ingests, ns.Ingests)
	for name, labels := range ns.Content {
		n.Content[name] = p.expand(labels)
	}
	for id, l := range ns.Leases {
		resources := []string{}
		for _, r := range l.Resources {
			resources = append(resources, p.text.Replace(r))
		}
		slices.Sort(resources)
		n.Leases[id] = traceLease{Labels: p.expand(l.Labels), Resources: resources}
	}
	return n
}

// state reads what is there.
func (p *player) state() traceState {
	p.Helper()
	listed, err := p.db.Namespaces().List(p.Context())
	require.NoError(p, err)
	s := traceState{Namespaces: map[string]traceNamespace{}}
	for _, dgst := range p.stored() {
		s.Blobs = append(s.Blobs, p.name(dgst))
	}
	for _, name := range append(slices.Clone(p.header.Namespaces), listed...) {
		ns := traceNamespace{Listed: slices.Contains(listed, name)}
		if ns.Listed {
			ns.Labels, err = p.db.Namespaces().Labels(p.Context(), name)
			require.NoError(p, err)
		}
		p.read(&ns, name)
		if ns.Listed || len(ns.Content)+len(ns.Leases)+len(ns.Ingests) > 0 {
			s.Namespaces[name] = p.normal(ns)
		}
	}
	return s
}

// read reads what a namespace holds.
func (p *player) read(ns *traceNamespace, name string) {
	ctx := p.Context()
	ns.Content, ns.Leases, ns.Ingests = map[string]map[string]string{}, map[string]traceLease{}, map[string]traceIngest{}
	err := p.ns(name).Walk(ctx, func(info cellar.Info) error {
		ns.Content[p.name(info.Digest)] = info.Labels
		return nil
	})
	require.NoError(p, err)
	statuses, err := p.ns(name).ListStatuses(ctx)
	require.NoError(p, err)
	for _, st := range statuses {
		ns.Ingests[st.Ref] = traceIngest{Offset: st.Offset, Total: st.Total}
	}
	manager, err := p.db.NamespaceLeases(name)
	require.NoError(p, err)
	all, err := manager.List(ctx)
	require.NoError(p, err)
	for _, l := range all {
		resources, err := manager.ListResources(ctx, l.ID, leases.Page{})
		require.NoError(p, err)
		held := traceLease{Labels: l.Labels}
		for _, r := range resources {
			held.Resources = append(held.Resources, r.String())
		}
		ns.Leases[l.ID] = held
	}
}
