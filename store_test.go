package cellar_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
	"github.com/cellarstore/cellar/namespaces"
	"github.com/cellarstore/cellar/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The model keeps every promise: it is a store like the others.
func TestModel(t *testing.T) {
	for name, rules := range map[string]storetest.Rules{
		"isolated": {}, "shared": {Shared: true}, "without labels": {NoLabels: true},
	} {
		t.Run(name, func(t *testing.T) {
			tenancy := storetest.ModelTenancy(rules)
			storetest.Run(t, tenancy.Implementation())
			if !rules.NoLabels {
				storetest.RunTenants(t, tenancy)
				storetest.RunLeases(t, tenancy)
			}
		})
	}
}

// The raw store keeps every promise that a store without labels makes.
func TestLocal(t *testing.T) {
	storetest.Run(t, storetest.Implementation{Open: openLocal, Stray: strayIn("")})
}

// A namespace of a database over the raw store keeps every promise, under
// either policy, and so do several together.
func TestMetadata(t *testing.T) {
	for name, policy := range map[string]metadata.Policy{"isolated": metadata.Isolated, "shared": metadata.Shared} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, metadataTenancy(policy, time.Minute, openLocal).Implementation())
			storetest.RunTenants(t, metadataTenancy(policy, time.Minute, openLocal))
			storetest.RunLeases(t, metadataTenancy(policy, 0, openLocal))
		})
	}
}

// The store that takes the namespace from the context keeps every promise.
func TestMetadataContentStore(t *testing.T) {
	storetest.Run(t, storetest.Implementation{
		Labels: true,
		Context: func(ctx context.Context) context.Context {
			return namespaces.WithNamespace(ctx, "tenant-a")
		},
		Open: func(t testing.TB, dir string, now func() time.Time) storetest.Handle {
			db, _, closeAll := openMetadata(t, dir, now, metadata.Isolated, time.Hour, openLocal)
			return storetest.Handle{Store: db.ContentStore(), Close: closeAll}
		},
	})
}

// A database needs no more of its raw store than the contract.
func TestMetadataOverAnyStore(t *testing.T) {
	tenancy := metadataTenancy(metadata.Isolated, time.Minute, openModels())
	storetest.Run(t, tenancy.Implementation())
	tenancy.Damage = nil
	storetest.RunTenants(t, tenancy)
}

// Random histories give the same answers as on the model.
func TestHistories(t *testing.T) {
	for name, tenancy := range map[string]storetest.Tenancy{
		"model":    storetest.ModelTenancy(storetest.Rules{Shared: true, Grace: time.Minute}),
		"local":    localTenancy(),
		"isolated": metadataTenancy(metadata.Isolated, time.Minute, openLocal),
		"shared":   metadataTenancy(metadata.Shared, time.Minute, openLocal),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.RunHistories(t, tenancy)
		})
	}
}

// localTenancy is a raw store as a pool of one namespace.
func localTenancy() storetest.Tenancy {
	return storetest.Tenancy{
		Rules: storetest.Rules{NoLabels: true},
		Open: func(t testing.TB, dir string, now func() time.Time) storetest.Pool {
			raw := openLocal(t, dir, now)
			return storetest.Pool{
				Namespace: func(string) (cellar.Store, error) { return raw.Store, nil },
				Close:     raw.Close,
			}
		},
	}
}

// opener opens a raw store.
type opener func(t testing.TB, dir string, now func() time.Time) storetest.Handle

func openLocal(t testing.TB, dir string, now func() time.Time) storetest.Handle {
	s, err := local.Open(dir, local.Options{Now: now})
	require.NoError(t, err)
	return storetest.Handle{Store: s, Close: s.Close}
}

// openModels opens models without labels, one for each folder. They implement
// nothing beyond the contract.
func openModels() opener {
	var models sync.Map
	return func(t testing.TB, dir string, now func() time.Time) storetest.Handle {
		m, _ := models.LoadOrStore(dir, storetest.NewModel(storetest.Rules{NoLabels: true, Now: now}))
		pool := m.(*storetest.Model).Open()
		store, err := pool.Namespace("raw")
		require.NoError(t, err)
		return storetest.Handle{Store: struct{ cellar.Store }{store}, Close: pool.Close}
	}
}

// openMetadata opens a database over a raw store, and returns how to close
// both. Closing checks the database first.
func openMetadata(t testing.TB, dir string, now func() time.Time, policy metadata.Policy, grace time.Duration, open opener) (*metadata.DB, cellar.Store, func() error) {
	raw := open(t, filepath.Join(dir, "store"), now)
	db, err := metadata.Open(filepath.Join(dir, "metadata.db"), raw.Store, metadata.Options{
		Policy: policy, Now: now, Grace: cmp.Or(grace, -1),
	})
	require.NoError(t, err)
	return db, raw.Store, func() error {
		findings, err := db.Check(context.Background())
		require.NoError(t, err)
		require.Empty(t, findings)
		require.NoError(t, db.Close())
		return raw.Close()
	}
}

// metadataTenancy is a database as a pool. Its own collections, those that
// deleting a lease asks for, know the grace that is given.
func metadataTenancy(policy metadata.Policy, grace time.Duration, open opener) storetest.Tenancy {
	rules := storetest.Rules{Shared: policy == metadata.Shared, Grace: grace}
	return storetest.Tenancy{
		Rules:  rules,
		Stray:  strayIn("store"),
		Damage: damageBlob,
		Open: func(t testing.TB, dir string, now func() time.Time) storetest.Pool {
			db, raw, closeAll := openMetadata(t, dir, now, policy, grace, open)
			return storetest.Pool{
				Namespace: db.Namespace,
				SetLabel:  db.Namespaces().SetLabel,
				Leases:    db.NamespaceLeases,
				Collect: func(ctx context.Context, grace time.Duration) (storetest.Removed, error) {
					stats, err := db.GarbageCollect(ctx, gc.WithGrace(grace))
					return storetest.Removed{Records: stats.Records, Leases: stats.Leases, Ingests: stats.Ingests}, err
				},
				Blobs: func(ctx context.Context) ([]digest.Digest, error) { return blobsOf(ctx, raw) },
				Close: closeAll,
			}
		},
	}
}

// blobsOf returns the digests of all content of a raw store.
func blobsOf(ctx context.Context, raw cellar.Store) ([]digest.Digest, error) {
	var all []digest.Digest
	err := raw.Walk(ctx, func(info cellar.Info) error {
		all = append(all, info.Digest)
		return nil
	})
	return all, err
}

// strayIn puts files and folders that are none of its own into a raw store
// below a folder.
func strayIn(sub string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		dir = filepath.Join(dir, sub)
		hex := func(c string) string { return strings.Repeat(c, 64) }
		for _, name := range []string{"blobs/md5", "blobs/sha256/folder", "blobs/sha256/" + hex("b"), "ingest/folder", "ingest/" + hex("a")} {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
		}
		for _, name := range []string{
			"blobs/stray", "blobs/md5/0123", "blobs/sha256/stray.tmp", "blobs/sha256/" + hex("A"),
			"ingest/stray", "ingest/" + hex("c"), "ingest/" + hex("a") + "/data",
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("stray"), 0o600))
		}
		require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "blobs/sha256", hex("d"))))
		require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "ingest", hex("e"))))
	}
}

// damageBlob removes the file of dgst, or gives it other bytes.
func damageBlob(t testing.TB, dir string, dgst digest.Digest, p []byte) {
	path := filepath.Join(dir, "store", "blobs", dgst.Algorithm().String(), dgst.Encoded())
	require.NoError(t, os.Remove(path))
	if p != nil {
		require.NoError(t, os.WriteFile(path, p, 0o400))
	}
}
