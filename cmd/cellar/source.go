package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// source is one input of an ingest.
type source struct {
	name  string // as the user knows it
	path  string // empty for the standard input
	info  fs.FileInfo
	stdin io.Reader
}

// sources finds the inputs that args name: folders stand for all regular files
// below them, "-" or no argument for the standard input. What is neither file
// nor folder is left out below a folder, with a warning, and an error elsewhere.
func (a *app) sources(args []string) ([]source, error) {
	if len(args) == 0 {
		args = []string{"-"}
	}
	var all []source
	stdin := 0
	for _, arg := range args {
		if arg == "-" {
			stdin++
			all = append(all, source{name: "standard input", stdin: a.in})
			continue
		}
		found, err := a.sourcesAt(arg)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	switch {
	case stdin > 1:
		return nil, &usageError{errors.New(`"-" is given twice, the standard input can be read once`)}
	case len(all) == 0:
		return nil, &usageError{fmt.Errorf("no file below %s", strings.Join(args, ", "))}
	}
	return all, nil
}

func (a *app) sourcesAt(path string) ([]source, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, &inputError{path, err}
	case info.IsDir():
		return a.sourcesBelow(path)
	case !info.Mode().IsRegular():
		return nil, &usageError{fmt.Errorf("%s is no regular file; a pipe can come in as the standard input", path)}
	}
	return []source{{name: path, path: path, info: info}}, nil
}

func (a *app) sourcesBelow(dir string) ([]source, error) {
	var found []source
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return &inputError{path, err}
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			a.say("%s: left out, it is no regular file", path)
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return &inputError{path, err}
		}
		found = append(found, source{name: path, path: path, info: info})
		return nil
	})
	return found, err
}

// inputError is an error of the user's own files, not of the store.
type inputError struct {
	path string
	err  error
}

func (e *inputError) Error() string { return "input " + e.path + ": " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// open opens the source for reading. The standard input stops to give bytes
// when ctx ends, whatever is at its other end.
func (src source) open(ctx context.Context) (io.ReadCloser, error) {
	if src.stdin == nil {
		f, err := os.Open(src.path)
		if err != nil {
			return nil, &inputError{src.path, err}
		}
		return f, nil
	}
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, src.stdin)
		w.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	return r, nil
}

// namelessPrefix begins the refs of ingestions that nobody can continue.
const namelessPrefix = "nameless-"

// withDefaults completes the user's wish with what src tells. A file's own ref
// names the file as it is now: when it changes, what was stored of it is not
// continued.
func (src source) withDefaults(want wish) wish {
	if src.stdin == nil && want.desc.Size == 0 {
		want.desc.Size = src.info.Size()
	}
	switch {
	case want.ref != "":
	case src.stdin != nil:
		want.ref = namelessPrefix + rand.Text()
	default:
		path := src.path
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		want.ref = fmt.Sprintf("file-%d-%d-%s", src.info.Size(), src.info.ModTime().UnixNano(), path)
	}
	return want
}

// resumable tells whether a later command can continue the ingestion.
func (w wish) resumable() bool {
	return !strings.HasPrefix(w.ref, namelessPrefix)
}
