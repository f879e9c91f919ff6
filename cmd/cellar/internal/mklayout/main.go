// Command mklayout makes the OCI image layout that the tour brings into a
// store: a snapshot of this project's own source.
//
// The layout has one image index with two manifests. Both have the licence and
// the sources as layers; the second has the tests in a layer of its own. So
// the two share most of their bytes, as images do. Equal files give an equal
// layout, byte for byte, whichever machine and version of Go runs it: layers
// are plain tars, with no times and no owners.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	src := flag.String("src", ".", "the project's top folder")
	out := flag.String("out", "layout", "the folder that becomes the layout; what it held is replaced")
	flag.Parse()
	if err := run(*src, *out); err != nil {
		fmt.Fprintln(os.Stderr, "mklayout:", err)
		os.Exit(1)
	}
}

func run(src, out string) error {
	files, err := collect(src)
	if err != nil {
		return err
	}
	if err := clearOld(out); err != nil {
		return err
	}
	return build(files, out)
}

// clearOld removes the layout at out, if there is one. Any other folder with
// something in it is an error, lest a wrong flag costs the user's files.
func clearOld(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, ocispec.ImageLayoutFile)); err != nil {
		return fmt.Errorf("%s is no layout, it is left alone: %w", out, err)
	}
	return os.RemoveAll(out)
}
