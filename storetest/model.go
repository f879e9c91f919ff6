package storetest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/namespaces"
)

// Rules are what stores may differ in.
type Rules struct {
	// Shared lets every namespace take over what the pool has.
	Shared bool
	// NoLabels is for stores that keep none.
	NoLabels bool
	// Grace is how long content is kept without anything that refers to it by
	// the collections that deleting a lease asks for. Zero is not at all.
	Grace time.Duration
	// Now tells the time, nil for the system's.
	Now func() time.Time
}

// Model is the executable specification: several namespaces over one pool of
// bytes, as maps under one lock. Nothing in it is fast and nothing is durable.
type Model struct {
	mu      sync.Mutex
	rules   Rules
	pool    map[digest.Digest]string
	tenants map[string]*tenant
	freed   chan struct{} // closed and replaced whenever a ref becomes free
	// outcomes are what the last collection came upon.
	outcomes map[string]bool
}

// tenant is a namespace of the model. It implements cellar.Store.
type tenant struct {
	m       *Model
	name    string
	labels  map[string]string
	content map[digest.Digest]cellar.Info
	ingests map[string]*ingestion
	leases  map[string]*modelLease
	// told is when somebody was last told that content exists.
	told map[digest.Digest]time.Time
}

// ingestion is what has been written under a ref, or taken over.
type ingestion struct {
	status cellar.Status // but for Offset, which follows from data
	data   []byte
	// adopted is content that was taken over: the ingestion has all its bytes
	// without having data, and nobody but its writer sees it. The pool keeps
	// those bytes as long as the ingestion is there.
	adopted digest.Digest
	// beside is what had been received before content was taken over. Others
	// see it in place of this, and it is continued if this is given up; Commit,
	// Write and Truncate drop it.
	beside *ingestion
	// claim is content that was taken over before the ingestion went on with
	// what it had received. Its bytes are kept as well.
	claim digest.Digest
	// expires is when a collection removes the ingestion if nobody has it open
	// and no lease holds it.
	expires time.Time
	writer  *modelWriter // nil while nobody has it open
	since   time.Time
}

// claimed is the content that the ingestion keeps, empty if there is none.
func (ing *ingestion) claimed() digest.Digest { return cmp.Or(ing.adopted, ing.claim) }

// NewModel returns a model without content.
func NewModel(rules Rules) *Model {
	if rules.Now == nil {
		rules.Now = time.Now
	}
	return &Model{rules: rules, pool: map[digest.Digest]string{}, tenants: map[string]*tenant{}, freed: make(chan struct{})}
}

// Namespace returns the store of one namespace. A name that breaks the rules
// of package namespaces is InvalidArgument.
func (m *Model) Namespace(name string) (cellar.Store, error) {
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	return m.tenant(name), nil
}

func (m *Model) tenant(name string) *tenant {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tenants[name]
	if !ok {
		t = &tenant{
			m: m, name: name, labels: map[string]string{}, content: map[digest.Digest]cellar.Info{},
			ingests: map[string]*ingestion{}, leases: map[string]*modelLease{}, told: map[digest.Digest]time.Time{},
		}
		m.tenants[name] = t
	}
	return t
}

// SetLabel sets a label of a namespace, or removes it where value is empty.
func (m *Model) SetLabel(name, key, value string) {
	t := m.tenant(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if value == "" {
		delete(t.labels, key)
		return
	}
	t.labels[key] = value
}

// Pool returns the digests whose bytes are kept, in order.
func (m *Model) Pool() []digest.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.pool))
}

// now is the time as stores show it.
func (m *Model) now() time.Time { return m.rules.Now().UTC().Round(0) }

// free lets go of an ingestion's writer. The caller holds the lock.
func (m *Model) free(ing *ingestion) {
	ing.writer = nil
	close(m.freed)
	m.freed = make(chan struct{})
}

// start begins a call: it returns why the call must fail, or holds the lock.
func (t *tenant) start(ctx context.Context, dgsts ...digest.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, dgst := range dgsts {
		if err := cellar.ValidateDigest(dgst); err != nil {
			return err
		}
	}
	t.m.mu.Lock()
	return nil
}

func (t *tenant) missing(what any) error {
	return fmt.Errorf("%v in %q: %w", what, t.name, errdefs.ErrNotFound)
}

// copyInfo returns a description that shares nothing with the one given.
func copyInfo(info cellar.Info) cellar.Info {
	info.Labels = maps.Clone(info.Labels)
	return info
}

func (t *tenant) Info(ctx context.Context, dgst digest.Digest) (cellar.Info, error) {
	if err := t.start(ctx, dgst); err != nil {
		return cellar.Info{}, err
	}
	defer t.m.mu.Unlock()
	info, ok := t.content[dgst]
	if !ok {
		return cellar.Info{}, t.missing(dgst)
	}
	return copyInfo(info), nil
}

func (t *tenant) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cellar.ReaderAt, error) {
	if err := t.start(ctx, desc.Digest); err != nil {
		return nil, err
	}
	defer t.m.mu.Unlock()
	if _, ok := t.content[desc.Digest]; !ok {
		return nil, t.missing(desc.Digest)
	}
	return modelReader{strings.NewReader(t.m.pool[desc.Digest])}, nil
}

// memoryReader reads p.
func memoryReader(p []byte) cellar.ReaderAt { return modelReader{strings.NewReader(string(p))} }

// modelReader reads content that the pool may have dropped meanwhile.
type modelReader struct{ io.ReaderAt }

func (r modelReader) Size() int64 { return r.ReaderAt.(*strings.Reader).Size() }
func (modelReader) Close() error  { return nil }

func (t *tenant) Delete(ctx context.Context, dgst digest.Digest) error {
	if err := t.start(ctx, dgst); err != nil {
		return err
	}
	defer t.m.mu.Unlock()
	if _, ok := t.content[dgst]; !ok {
		return t.missing(dgst)
	}
	delete(t.content, dgst)
	t.giveBack(ctx, contentResource(dgst))
	return nil
}

func (t *tenant) Update(ctx context.Context, info cellar.Info, fieldpaths ...string) (cellar.Info, error) {
	if err := t.start(ctx, info.Digest); err != nil {
		return cellar.Info{}, err
	}
	defer t.m.mu.Unlock()
	stored, ok := t.content[info.Digest]
	switch {
	case !ok:
		return cellar.Info{}, t.missing(info.Digest)
	case t.m.rules.NoLabels:
		return cellar.Info{}, fmt.Errorf("labels are not kept: %w", errdefs.ErrFailedPrecondition)
	}
	updated, err := relabel(stored.Labels, info.Labels, fieldpaths)
	if err != nil {
		return cellar.Info{}, err
	}
	stored.Labels, stored.UpdatedAt = updated, t.m.now()
	t.content[info.Digest] = stored
	return copyInfo(stored), nil
}

// relabel returns what old becomes when the paths are taken from wanted.
func relabel(old, wanted map[string]string, paths []string) (map[string]string, error) {
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	result := maps.Clone(old)
	if result == nil {
		result = map[string]string{}
	}
	for _, path := range paths {
		key, one := strings.CutPrefix(path, "labels.")
		switch {
		case path == "labels":
			clear(result)
			maps.Copy(result, wanted)
		case one && key != "":
			result[key] = wanted[key]
		default:
			return nil, fmt.Errorf("field path %q: %w", path, errdefs.ErrInvalidArgument)
		}
	}
	return keep(result)
}

// keep returns labels as they are stored: without empty ones, nil for none.
func keep(wanted map[string]string) (map[string]string, error) {
	kept := maps.Clone(wanted)
	maps.DeleteFunc(kept, func(_, value string) bool { return value == "" })
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, labels.Validate(kept)
}

func (t *tenant) Walk(ctx context.Context, fn cellar.WalkFunc, expressions ...string) error {
	filter, err := filters.ParseAll(expressions...)
	if err != nil {
		return err
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	dgsts := slices.Sorted(maps.Keys(t.content))
	t.m.mu.Unlock()
	for _, dgst := range dgsts {
		info, err := t.Info(ctx, dgst)
		switch {
		case errdefs.IsNotFound(err):
			continue
		case err != nil:
			return err
		case !filter.Match(info):
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (t *tenant) Status(ctx context.Context, ref string) (cellar.Status, error) {
	if err := t.start(ctx); err != nil {
		return cellar.Status{}, err
	}
	defer t.m.mu.Unlock()
	ing := t.ingests[ref].received()
	if ing == nil {
		return cellar.Status{}, t.missing(cellar.Shorten(ref))
	}
	return t.m.statusOf(ing), nil
}

// received is what others see of an ingestion, nil if that is nothing.
func (ing *ingestion) received() *ingestion {
	if ing != nil && ing.adopted != "" {
		return ing.beside
	}
	return ing
}

// statusOf describes an ingestion as its writer sees it.
func (m *Model) statusOf(ing *ingestion) cellar.Status {
	st := ing.status
	st.Offset = int64(len(ing.data))
	if ing.adopted != "" {
		st.Offset = st.Total
	}
	return st
}

func (t *tenant) ListStatuses(ctx context.Context, expressions ...string) ([]cellar.Status, error) {
	filter, err := filters.ParseAll(expressions...)
	if err != nil {
		return nil, err
	}
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	defer t.m.mu.Unlock()
	var statuses []cellar.Status
	for _, ref := range slices.Sorted(maps.Keys(t.ingests)) {
		ing := t.ingests[ref].received()
		if ing != nil && filter.Match(t.m.statusOf(ing)) {
			statuses = append(statuses, t.m.statusOf(ing))
		}
	}
	return statuses, nil
}

func (t *tenant) Abort(ctx context.Context, ref string) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	defer t.m.mu.Unlock()
	ing, ok := t.ingests[ref]
	if !ok {
		return t.missing(cellar.Shorten(ref))
	}
	delete(t.ingests, ref)
	if ing.writer != nil {
		ing.writer.end(writerAborted)
	}
	t.giveBack(ctx, ingestResource(ref))
	return nil
}

// WaitRef implements [cellar.RefWaiter].
func (t *tenant) WaitRef(ctx context.Context, ref string) error {
	for {
		if err := t.start(ctx); err != nil {
			return err
		}
		ing, freed := t.ingests[ref], t.m.freed
		held := ing != nil && ing.writer != nil
		t.m.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
