package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
)

// Tenancy says how several namespaces over one pool of bytes are made.
type Tenancy struct {
	// Open opens the pool that lives in dir, as Implementation.Open does.
	Open func(t testing.TB, dir string, now func() time.Time) Pool

	// Rules are those that the pool follows; Rules.Now is not looked at.
	Rules Rules

	// Stray is as in Implementation.
	Stray func(t testing.TB, dir string)

	// Damage removes the bytes of dgst from a pool in dir that is closed, or
	// replaces them by p; nil where that can't be done.
	Damage func(t testing.TB, dir string, dgst digest.Digest, p []byte)
}

// Pool is several namespaces over one pool of bytes, open.
type Pool struct {
	// Namespace returns the store of a namespace, which need not exist.
	Namespace func(name string) (cellar.Store, error)
	// SetLabel sets a label of a namespace, or removes it where value is empty.
	SetLabel func(ctx context.Context, name, key, value string) error
	// Leases returns the leases of a namespace; nil where there are none.
	Leases func(name string) (leases.Manager, error)
	// Collect removes what nothing keeps. Content is new, and needs nothing
	// that refers to it, for as long as grace.
	Collect func(ctx context.Context, grace time.Duration) (Removed, error)
	// Blobs returns the digests whose bytes are there, in order.
	Blobs func(ctx context.Context) ([]digest.Digest, error)
	// Close leaves ingestions that are open to be resumed.
	Close func() error
}

// Implementation makes a store under test of one namespace of a pool that has
// others beside it.
func (tc Tenancy) Implementation() Implementation {
	return Implementation{
		Labels: !tc.Rules.NoLabels,
		Stray:  tc.Stray,
		Open: func(t testing.TB, dir string, now func() time.Time) Handle {
			pool := tc.Open(t, dir, now)
			store, err := pool.Namespace("tenant-a")
			require.NoError(t, err)
			return Handle{Store: store, Close: pool.Close}
		},
	}
}

// ModelTenancy makes models by the given rules. What is opened with the same
// folder is the same model; nothing is stored in the folder.
func ModelTenancy(rules Rules) Tenancy {
	var models sync.Map
	return Tenancy{
		Rules: rules,
		Open: func(_ testing.TB, dir string, now func() time.Time) Pool {
			own := rules
			own.Now = now
			m, _ := models.LoadOrStore(dir, NewModel(own))
			return m.(*Model).Open()
		},
	}
}

// Open returns the model as a pool. Closing it leaves open ingestions to be
// resumed, and the model can be opened again.
func (m *Model) Open() Pool {
	return Pool{
		Namespace: m.Namespace,
		SetLabel: func(_ context.Context, name, key, value string) error {
			m.SetLabel(name, key, value)
			return nil
		},
		Leases:  m.Leases,
		Collect: m.Collect,
		Blobs:   func(context.Context) ([]digest.Digest, error) { return m.Pool(), nil },
		Close: func() error {
			m.leaveAll()
			return nil
		},
	}
}

// leaveAll closes every open writer. What was told to those who asked is over.
func (m *Model) leaveAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tenants {
		clear(t.told)
		for _, ing := range t.ingests {
			if ing.writer != nil {
				ing.writer.end(writerClosed)
			}
		}
	}
}
