package layout_test

import (
	"encoding/json"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/cmd/cellar/internal/demo"
	"github.com/cellarstore/cellar/cmd/cellar/internal/layout"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// Every blob is planned once, after what it refers to, and is labelled with it
// as containerd does.
func TestPlan(t *testing.T) {
	l, plan := open(t, copyDemo(t))
	require.Empty(t, plan.Missing)
	require.Len(t, plan.Nodes, 8)
	require.Equal(t, l.Index.Manifests, plan.Roots)

	at := map[digest.Digest]int{}
	for i, node := range plan.Nodes {
		require.NotContains(t, at, node.Digest)
		at[node.Digest] = i
		for key, target := range node.Labels {
			if key != "containerd.io/gc.root" {
				require.Contains(t, at, digest.Digest(target), "what %s names comes before", key)
			}
		}
	}

	index := plan.Nodes[len(plan.Nodes)-1]
	require.Equal(t, plan.Roots[0].Digest, index.Digest)
	manifests := nodesOf(plan, ocispec.MediaTypeImageManifest)
	require.Equal(t, map[string]string{
		"containerd.io/gc.root":            "true",
		"containerd.io/gc.ref.content.m.0": manifests[0].Digest.String(),
		"containerd.io/gc.ref.content.m.1": manifests[1].Digest.String(),
	}, index.Labels)
	for i, layers := range []int{2, 3} {
		labels := manifests[i].Labels
		require.Len(t, labels, layers+1)
		require.Contains(t, labels, "containerd.io/gc.ref.content.config")
		require.Contains(t, labels, "containerd.io/gc.ref.content.l.1")
	}
	for _, leaf := range nodesOf(plan, ocispec.MediaTypeImageLayer) {
		require.Nil(t, leaf.Labels)
	}
}

// What is wrong with a layout is told by class before anything is written.
func TestBrokenLayouts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, fsys fstest.MapFS)
		class error
	}{
		{"no marker", remove(ocispec.ImageLayoutFile), errdefs.ErrNotFound},
		{"no index", remove(ocispec.ImageIndexFile), errdefs.ErrNotFound},
		{"newer version", replace(ocispec.ImageLayoutFile, `{"imageLayoutVersion":"2.0.0"}`), errdefs.ErrInvalidArgument},
		{"marker is no JSON", replace(ocispec.ImageLayoutFile, `1.0.0`), errdefs.ErrInvalidArgument},
		{"index is no JSON", replace(ocispec.ImageIndexFile, `{"manifests":[`), errdefs.ErrInvalidArgument},
		{"digest leads elsewhere", index(`{"digest":"sha256:../../../etc/passwd","size":10}`), errdefs.ErrInvalidArgument},
		{"no digest", index(`{"size":10}`), errdefs.ErrInvalidArgument},
		{"negative size", index(`{"digest":"` + emptyDigest + `","size":-1}`), errdefs.ErrInvalidArgument},
		{"size too small", resize(-1), errdefs.ErrDataLoss},
		{"size too large", resize(1), errdefs.ErrDataLoss},
		{"manifest over the limit", index(`{"digest":"` + emptyDigest + `","size":99999999,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`), errdefs.ErrInvalidArgument},
		{"manifest damaged", damage(ocispec.MediaTypeImageManifest), errdefs.ErrDataLoss},
		{"layer cut short", cut(ocispec.MediaTypeImageLayer), errdefs.ErrDataLoss},
		{"nested without end", nest(40), errdefs.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fsys := copyDemo(t)
			tc.spoil(t, fsys)
			l, err := layout.Open(fsys)
			if err == nil {
				_, err = l.Plan(t.Context())
			}
			require.ErrorIs(t, err, tc.class)
		})
	}
}

// Blobs that are not there are listed, all of them, and nothing is imported.
func TestMissingBlobs(t *testing.T) {
	fsys := copyDemo(t)
	_, whole := open(t, fsys)
	layers := nodesOf(whole, ocispec.MediaTypeImageLayer)
	delete(fsys, blobName(layers[0].Descriptor))
	delete(fsys, blobName(layers[2].Descriptor))

	l, plan := open(t, fsys)
	require.Equal(t, []ocispec.Descriptor{layers[0].Descriptor, layers[2].Descriptor}, plan.Missing)
	require.Len(t, plan.Nodes, 6)
	store := newStore(t)
	_, err := l.Import(t.Context(), store, plan)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	require.ErrorContains(t, err, layers[2].Digest.String())
	require.Empty(t, all(t, store))
}

// An import stores every blob with its labels; a second one adds only what is
// not there, labels too.
func TestImport(t *testing.T) {
	l, plan := open(t, copyDemo(t))
	store := newStore(t)
	result, err := l.Import(t.Context(), store, plan)
	require.NoError(t, err)
	require.Equal(t, layout.Result{New: 8, NewBytes: plan.Bytes()}, result)
	stored := all(t, store)
	require.Len(t, stored, 8)
	for _, node := range plan.Nodes {
		require.Equal(t, node.Labels, stored[node.Digest].Labels)
		content, err := cellar.ReadBlob(t.Context(), store, node.Descriptor)
		require.NoError(t, err)
		require.Equal(t, node.Digest, digest.FromBytes(content))
	}

	root := plan.Roots[0].Digest
	_, err = store.Update(t.Context(), cellar.Info{Digest: root, Labels: map[string]string{"mine": "1"}}, "labels")
	require.NoError(t, err)
	require.NoError(t, store.Delete(t.Context(), plan.Nodes[0].Digest))
	result, err = l.Import(t.Context(), store, plan)
	require.NoError(t, err)
	require.Equal(t, layout.Result{New: 1, NewBytes: plan.Nodes[0].Size, Present: 7}, result)
	labels := all(t, store)[root].Labels
	require.Equal(t, "1", labels["mine"])
	require.Equal(t, "true", labels["containerd.io/gc.root"])
}

// A leaf whose bytes are wrong is not stored, leaves no ingestion behind, and
// does not stand in the way of the right one.
func TestImportOfDamagedLeaf(t *testing.T) {
	fsys := copyDemo(t)
	_, whole := open(t, fsys)
	layer := nodesOf(whole, ocispec.MediaTypeImageLayer)[1].Descriptor
	right := fsys[blobName(layer)]
	wrong := slices.Clone(right.Data)
	wrong[len(wrong)/2] ^= 1
	fsys[blobName(layer)] = &fstest.MapFile{Data: wrong}

	l, plan := open(t, fsys)
	store := newStore(t)
	_, err := l.Import(t.Context(), store, plan)
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	require.NotContains(t, all(t, store), layer.Digest)
	left, err := store.ListStatuses(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)

	fsys[blobName(layer)] = right
	_, err = l.Import(t.Context(), store, plan)
	require.NoError(t, err)
	require.Len(t, all(t, store), 8)
}

const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// copyDemo returns the committed layout in memory, to be changed.
func copyDemo(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(demo.Layout(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(demo.Layout(), name)
		files[name] = &fstest.MapFile{Data: content}
		return err
	}))
	return files
}

func open(t *testing.T, fsys fs.FS) (*layout.Layout, *layout.Plan) {
	t.Helper()
	l, err := layout.Open(fsys)
	require.NoError(t, err)
	plan, err := l.Plan(t.Context())
	require.NoError(t, err)
	return l, plan
}

// newStore returns a namespace of an empty store.
func newStore(t *testing.T) cellar.Store {
	t.Helper()
	root := t.TempDir()
	blobs, err := local.Open(root, local.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, blobs.Close()) })
	db, err := metadata.Open(filepath.Join(root, "metadata.db"), blobs, metadata.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := db.Namespace("test")
	require.NoError(t, err)
	return store
}

func all(t *testing.T, store cellar.Store) map[digest.Digest]cellar.Info {
	t.Helper()
	found := map[digest.Digest]cellar.Info{}
	require.NoError(t, store.Walk(t.Context(), func(info cellar.Info) error {
		found[info.Digest] = info
		return nil
	}))
	return found
}

func nodesOf(plan *layout.Plan, mediaType string) []layout.Node {
	var found []layout.Node
	for _, node := range plan.Nodes {
		if node.MediaType == mediaType {
			found = append(found, node)
		}
	}
	return found
}

func blobName(desc ocispec.Descriptor) string {
	return path.Join("blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

// The spoilers make one thing wrong.

func remove(name string) func(*testing.T, fstest.MapFS) {
	return func(_ *testing.T, fsys fstest.MapFS) { delete(fsys, name) }
}

func replace(name, content string) func(*testing.T, fstest.MapFS) {
	return func(_ *testing.T, fsys fstest.MapFS) { fsys[name] = &fstest.MapFile{Data: []byte(content)} }
}

// index makes desc the only descriptor of index.json.
func index(desc string) func(*testing.T, fstest.MapFS) {
	return replace(ocispec.ImageIndexFile, `{"schemaVersion":2,"manifests":[`+desc+`]}`)
}

// resize makes index.json lie about its image's size.
func resize(by int64) func(*testing.T, fstest.MapFS) {
	return func(t *testing.T, fsys fstest.MapFS) {
		l, err := layout.Open(fsys)
		require.NoError(t, err)
		l.Index.Manifests[0].Size += by
		content, err := json.Marshal(l.Index)
		require.NoError(t, err)
		replace(ocispec.ImageIndexFile, string(content))(t, fsys)
	}
}

// damage flips a bit of the first blob of a type.
func damage(mediaType string) func(*testing.T, fstest.MapFS) {
	return change(mediaType, func(content []byte) []byte {
		content[len(content)/2] ^= 1
		return content
	})
}

func cut(mediaType string) func(*testing.T, fstest.MapFS) {
	return change(mediaType, func(content []byte) []byte { return content[:len(content)-1] })
}

func change(mediaType string, how func([]byte) []byte) func(*testing.T, fstest.MapFS) {
	return func(t *testing.T, fsys fstest.MapFS) {
		_, plan := open(t, fsys)
		name := blobName(nodesOf(plan, mediaType)[0].Descriptor)
		fsys[name] = &fstest.MapFile{Data: how(slices.Clone(fsys[name].Data))}
	}
}

// nest wraps the image in indexes, one in another.
func nest(depth int) func(*testing.T, fstest.MapFS) {
	return func(t *testing.T, fsys fstest.MapFS) {
		l, err := layout.Open(fsys)
		require.NoError(t, err)
		for range depth {
			content, err := json.Marshal(l.Index)
			require.NoError(t, err)
			desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(content), Size: int64(len(content))}
			fsys[blobName(desc)] = &fstest.MapFile{Data: content}
			l.Index.Manifests = []ocispec.Descriptor{desc}
		}
		content, err := json.Marshal(l.Index)
		require.NoError(t, err)
		replace(ocispec.ImageIndexFile, string(content))(t, fsys)
	}
}
