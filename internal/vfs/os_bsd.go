//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// OS is the file system of the operating system: here package os, without a
// boot id, so that after a restart of the process only what is durable of an
// ingestion is resumed.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (osFS) OpenDir(name string) (Dir, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return &osDir{name}, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }
func (osFS) Rename(from, to string) error              { return os.Rename(from, to) }
func (osFS) Remove(name string) error                  { return os.Remove(name) }
func (osFS) BootID() string                            { return "" }

func (osFS) Lstat(name string) (Info, error) { return infoOf(os.Lstat(name)) }

func infoOf(info fs.FileInfo, err error) (Info, error) {
	if err != nil {
		return Info{}, err
	}
	out := Info{Size: info.Size(), Mode: info.Mode(), Links: 1, ModTime: info.ModTime(), ChangeTime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		out.Inode, out.Links = uint64(st.Ino), uint64(st.Nlink)
	}
	return out, nil
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, &HeldError{Name: name}
		}
		return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
	}
	return f, nil
}

type osDir struct{ name string }

func (d *osDir) Open(name string) (File, error) {
	return OS.OpenFile(filepath.Join(d.name, name), os.O_RDONLY, 0)
}

func (d *osDir) ReadNames(fn func(names []string) error) error {
	f, err := os.Open(d.name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1000)
		if len(names) > 0 {
			if err := fn(names); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *osDir) Sync() error {
	f, err := os.Open(d.name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *osDir) Close() error { return nil }

type osFile struct{ f *os.File }

func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) Sync() error                              { return f.f.Sync() }
func (f *osFile) Datasync() error                          { return f.f.Sync() }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f *osFile) Chmod(mode fs.FileMode) error             { return f.f.Chmod(mode) }
func (f *osFile) SetModTime(t time.Time) error             { return os.Chtimes(f.f.Name(), t, t) }
func (f *osFile) Stat() (Info, error)                      { return infoOf(f.f.Stat()) }
func (f *osFile) Flush(off, n int64)                       {}
func (f *osFile) File() *os.File                           { return f.f }

func (f *osFile) Close() error {
	if err := f.f.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
