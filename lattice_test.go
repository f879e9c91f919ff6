package cellar_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/cellarstore/cellar"
	bbolt  = "go.etcd.io/bbolt"
)

// lattice says what each package may import beside the standard library.
// Packages of this module are named by their folder, "." for the root; a name
// stands for the packages below it too. Files of tests may import anything but
// bbolt, which belongs to metadata alone.
var lattice = map[string][]string{
	".":          {"labels", "filters", goDigest, imageSpec, errdefsModule},
	"labels":     {goDigest, errdefsModule},
	"filters":    {goDigest, errdefsModule},
	"namespaces": {goDigest, errdefsModule},
	"leases":     {goDigest, errdefsModule},
	"gc":         {},
	"gc/schedule": {
		"gc",
	},
	"local": {".", "filters", "internal", goDigest, imageSpec, errdefsModule, sys},
	"metadata": {
		".", "labels", "filters", "namespaces", "leases", "gc", "internal",
		bbolt, goDigest, imageSpec, errdefsModule, sys,
	},
	"storetest":      {".", "labels", "filters", "namespaces", "leases", goDigest, imageSpec, errdefsModule, testify, rapid},
	"internal/vfs":   {sys},
	"internal/fserr": {errdefsModule, sys},
	// A command that puts everything together under load.
	"internal/soak": {".", "labels", "leases", "local", "metadata", goDigest, imageSpec, errdefsModule},
}

// tiny is what a package below internal may import that has no line above.
var tiny = []string{}

const (
	goDigest      = "github.com/opencontainers/go-digest"
	imageSpec     = "github.com/opencontainers/image-spec"
	errdefsModule = "github.com/containerd/errdefs"
	sys           = "golang.org/x/sys"
	testify       = "github.com/stretchr/testify"
	rapid         = "pgregory.net/rapid"
)

func TestLattice(t *testing.T) {
	// No package imports what is not below it, under any build tag.
	checked := 0
	for _, file := range goFiles(t, false) {
		dir := path.Dir(file.name)
		allowed, ok := policy(dir)
		require.True(t, ok, "package %s has no line in the lattice: add one", dir)
		for _, spec := range file.syntax.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			checked++
			if strings.HasSuffix(file.name, "_test.go") {
				if within(target, bbolt) && dir != "metadata" {
					t.Errorf("%s imports %s, which belongs to metadata alone", file.name, target)
				}
				continue
			}
			if !mayImport(allowed, target) {
				t.Errorf("%s imports %s; package %s may import %q beside the standard library", file.name, target, dir, allowed)
			}
		}
	}
	require.Greater(t, checked, 100, "the files were not found")
}

func TestLatticeCatches(t *testing.T) {
	// What the lattice is there to prevent is not allowed by it.
	for dir, targets := range map[string][]string{
		".":            {module + "/local", module + "/internal/vfs", bbolt},
		"labels":       {module, module + "/filters", "github.com/pkg/errors"},
		"leases":       {module + "/labels", module + "/namespaces"},
		"gc":           {module, errdefsModule, bbolt},
		"gc/schedule":  {module, module + "/metadata", errdefsModule},
		"local":        {module + "/metadata", module + "/labels", bbolt, bbolt + "/errors"},
		"metadata":     {module + "/local", module + "/storetest", module + "/gc/schedule"},
		"storetest":    {module + "/local", module + "/metadata"},
		"internal/any": {module, errdefsModule, sys + "/unix"},
		"internal/vfs": {module, errdefsModule, module + "/internal/fserr"},
	} {
		allowed, ok := policy(dir)
		require.True(t, ok)
		for _, target := range targets {
			require.False(t, mayImport(allowed, target), "%s importing %s", dir, target)
		}
	}
	_, ok := policy("util")
	require.False(t, ok, "a new package has to be given its place")
}

// policy returns what the package in dir may import.
func policy(dir string) (allowed []string, ok bool) {
	if allowed, ok = lattice[dir]; ok {
		return allowed, true
	}
	return tiny, strings.HasPrefix(dir, "internal/")
}

// mayImport reports whether target is of the standard library or allowed.
func mayImport(allowed []string, target string) bool {
	if first, _, _ := strings.Cut(target, "/"); !strings.Contains(first, ".") {
		return true
	}
	return slices.ContainsFunc(allowed, func(name string) bool {
		switch {
		case name == ".":
			return target == module
		case name == "internal" || strings.Contains(name, "."):
			return within(target, name) || within(target, module+"/"+name)
		}
		return target == module+"/"+name
	})
}

// within reports whether target is the package root or one below it.
func within(target, root string) bool {
	return target == root || strings.HasPrefix(target, root+"/")
}

// goFile is one file of the repository.
type goFile struct {
	name   string // with slashes, from the top
	syntax *ast.File
	set    *token.FileSet
	lines  int
}

// goFiles parses every Go file of this module, or with nested set those of the
// modules inside it as well, whatever its build tags.
func goFiles(t *testing.T, nested bool) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && skipped(name, nested):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, goFile{filepath.ToSlash(name), syntax, set, set.File(syntax.FileStart).LineCount()})
		return nil
	})
	require.NoError(t, err)
	return files
}

// skipped reports whether a folder is none of this module's packages.
func skipped(dir string, nested bool) bool {
	base := filepath.Base(dir)
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil && !nested
}
