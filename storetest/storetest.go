// Package storetest holds what every [cellar.Store] has to do, as tests.
//
// Four suites build on one another. [Run] takes one store and tries each
// promise that the comments of package cellar's interfaces make. [RunTenants]
// takes several namespaces over one pool of bytes and tries what separates
// and what connects them. [RunLeases] tries the promises of package leases'
// Manager. [RunHistories] plays random sequences of calls on namespaces, leases
// and the collector, and on [Model] at once, and compares every answer.
//
// A sentence with a mark such as W-R3 at its end also catches a weakness that
// comparable stores have or had:
//
//	W-D2   bytes without a record are forgotten by the next process
//	W-D3   a Commit that fails takes the ingestion's bytes with it
//	W-D5   taking content over makes a record without bytes
//	W-D7   damaged bytes are acknowledged because something has their name
//	W-G1   a collection takes an ingestion from under its writer
//	W-G3   Abort leaves bytes behind
//	W-G5   one half-made or vanishing ingestion fails every listing
//	W-G6   one stray file stops every collection
//	W-R1   a malformed digest at Commit panics
//	W-R2   starting afresh keeps the old tail of the file
//	W-R3   Commit on a closed writer frees a ref that is somebody else's
//	W-R4   a failing option at Commit leaves the writer half-closed
//	W-R5   an ingestion that no longer takes content over keeps it alive
//	W-R6   writers that take content over hold no ref
//	W-R9   Write on a closed writer moves its offset
//	W-R13  refs and labels have no bounds
//
// The model is a store too, and is put through the first three suites: they keep
// it honest, and it keeps them independent of any one implementation.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/cellarstore/cellar"
)

// Implementation says how the stores under test are made.
type Implementation struct {
	// Open opens the store that lives in dir: an empty folder the first time,
	// the one it left behind when it is opened again after Close. now is the
	// clock to use, nil for the system's.
	Open func(t testing.TB, dir string, now func() time.Time) Handle

	// Labels tells that the store keeps labels.
	Labels bool

	// Context derives the context that calls are made with; nil leaves it as
	// it is.
	Context func(context.Context) context.Context

	// Stray makes files and folders in dir, below those of an open store, that
	// are none of the store's; nil where there can be none.
	Stray func(t testing.TB, dir string)
}

// Handle is an open store and the way to close it.
type Handle struct {
	Store cellar.Store
	Close func() error
}

// promise is one sentence of the contract, and the test that a store keeps it.
type promise struct {
	sentence string
	holds    func(*env)
}

// group is the promises of one interface, or on one matter.
type group struct {
	name     string
	promises []promise
}

// Run tries every promise of the contract on a fresh store each.
func Run(t *testing.T, impl Implementation) {
	groups := []group{
		{"Life", lifePromises},
		{"ReaderAt", readerPromises},
		{"Ingester", ingesterPromises},
		{"Resume", resumePromises},
		{"Writer", writerPromises},
		{"Commit", commitPromises},
		{"IngestManager", ingestManagerPromises},
		{"Info", infoPromises},
		{"Update", updatePromises(impl.Labels)},
		{"Walk", walkPromises},
		{"Delete", deletePromises},
		{"Input", inputPromises},
		{"Concurrency", concurrencyPromises},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, p := range g.promises {
				t.Run(p.sentence, func(t *testing.T) {
					t.Parallel()
					p.holds(newEnv(t, impl))
				})
			}
		})
	}
}
