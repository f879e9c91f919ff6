package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// packages are the folders that the snapshot takes: the contract and the
// vocabulary. They say what the project is and stay well under a megabyte.
var packages = []string{".", "labels", "filters", "namespaces", "leases", "gc"}

// file is one file of the snapshot.
type file struct {
	name    string // slash-separated, relative to the top folder
	content []byte
}

// snapshot is what goes into the layers, each sorted by name.
type snapshot struct {
	licence, sources, tests []file
}

// collect reads the snapshot's files from the project at src.
func collect(src string) (snapshot, error) {
	var s snapshot
	licence, err := read(src, "LICENSE")
	if err != nil {
		return s, err
	}
	s.licence = []file{licence}
	for _, pkg := range packages {
		if err := s.addPackage(src, pkg); err != nil {
			return s, err
		}
	}
	if len(s.sources) == 0 || len(s.tests) == 0 {
		return s, fmt.Errorf("%s has %d source files and %d tests: it is not the project's top folder", src, len(s.sources), len(s.tests))
	}
	return s, nil
}

// addPackage adds the Go files of one folder, without those below it.
func (s *snapshot) addPackage(src, pkg string) error {
	entries, err := os.ReadDir(filepath.Join(src, filepath.FromSlash(pkg)))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || path.Ext(entry.Name()) != ".go" {
			continue
		}
		f, err := read(src, path.Join(pkg, entry.Name()))
		if err != nil {
			return err
		}
		if strings.HasSuffix(f.name, "_test.go") {
			s.tests = append(s.tests, f)
		} else {
			s.sources = append(s.sources, f)
		}
	}
	return nil
}

func read(src, name string) (file, error) {
	content, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(name)))
	return file{name: name, content: content}, err
}
