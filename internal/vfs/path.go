package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

func join(dir, name string) string { return filepath.Join(dir, name) }

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
