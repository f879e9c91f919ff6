package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cellarstore/cellar/cmd/cellar/internal/demo"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

// The committed layout is, byte for byte, what this command makes of the files
// that are in its layers.
func TestCommittedLayoutIsReproduced(t *testing.T) {
	src, out := project(t), filepath.Join(t.TempDir(), "layout")
	require.NoError(t, run(src, out))
	require.Equal(t, tree(t, demo.Layout()), tree(t, os.DirFS(out)))
}

// Running again replaces the layout; a folder that is none is left alone.
func TestRunReplacesLayoutsOnly(t *testing.T) {
	src, out := project(t), filepath.Join(t.TempDir(), "layout")
	require.NoError(t, run(src, out))
	first := tree(t, os.DirFS(out))
	require.NoError(t, os.WriteFile(filepath.Join(src, "gc", "more.go"), []byte("package gc\n"), 0o600))
	require.NoError(t, run(src, out))
	second := tree(t, os.DirFS(out))
	require.Len(t, second, len(first), "no stale blobs")
	require.NotEqual(t, first, second)

	keep := filepath.Join(t.TempDir(), "keep")
	require.NoError(t, os.WriteFile(keep, nil, 0o600))
	require.ErrorContains(t, run(src, filepath.Dir(keep)), "is no layout")
	require.FileExists(t, keep)
}

// Every blob of the committed layout has the digest that it is named by.
func TestCommittedLayoutIsWhole(t *testing.T) {
	blobs, total := 0, 0
	for name, content := range tree(t, demo.Layout()) {
		total += len(content)
		if filepath.Dir(name) == "blobs/sha256" {
			blobs++
			require.Equal(t, filepath.Base(name), digest.FromBytes(content).Encoded())
		}
	}
	require.Equal(t, 8, blobs, "an index, two manifests, two configs, three layers")
	require.Less(t, total, 1<<20, "bytes in the repository")
}

// A folder that is not the project is refused.
func TestRunOnAnotherFolder(t *testing.T) {
	require.Error(t, run(t.TempDir(), filepath.Join(t.TempDir(), "layout")))
}

// project returns a folder with the files that the committed layout holds.
func project(t *testing.T) string {
	t.Helper()
	src, extracted := t.TempDir(), 0
	for _, pkg := range packages {
		require.NoError(t, os.MkdirAll(filepath.Join(src, pkg), 0o700))
	}
	for _, content := range tree(t, demo.Layout()) {
		extracted += untar(t, content, src)
	}
	require.Greater(t, extracted, 10, "files in the layers")
	return src
}

// tree returns the files of fsys by their names.
func tree(t *testing.T, fsys fs.FS) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	require.NoError(t, fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(fsys, name)
		return err
	}))
	return files
}

// untar writes the files of a tar below dir and returns how many there were;
// content that is no tar has none.
func untar(t *testing.T, content []byte, dir string) int {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(content))
	for n := 0; ; n++ {
		header, err := r.Next()
		if err != nil {
			return n
		}
		target := filepath.Join(dir, header.Name)
		require.NoError(t, os.MkdirAll(filepath.Dir(target), 0o700))
		file, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(target, file, 0o600))
	}
}
