//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// OS is the file system of the operating system. On this one directories can't
// be locked and synced as a store needs it: every call is ErrUnsupported.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(string, int, fs.FileMode) (File, error) { return nil, errors.ErrUnsupported }
func (osFS) OpenDir(string) (Dir, error)                     { return nil, errors.ErrUnsupported }
func (osFS) Mkdir(string, fs.FileMode) error                 { return errors.ErrUnsupported }
func (osFS) Rename(string, string) error                     { return errors.ErrUnsupported }
func (osFS) Remove(string) error                             { return errors.ErrUnsupported }
func (osFS) Lstat(string) (Info, error)                      { return Info{}, errors.ErrUnsupported }
func (osFS) Lock(string) (io.Closer, error)                  { return nil, errors.ErrUnsupported }
func (osFS) BootID() string                                  { return "" }
