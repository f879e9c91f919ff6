// Package vfs is the file system as the raw store sees it: the few operations
// it needs, so that tests can count them, make them fail, and take away what a
// power loss may take.
//
// Three implementations: [OS] is the operating system's, [Mem] a file system in
// memory that knows what is durable, and [Fault] wraps another one to count
// and to fail calls.
package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// FS is a file system. Names are paths as package path/filepath makes them. No
// operation follows a symbolic link in the last element of a name. Errors are
// those of package os, or wrap a syscall.Errno. All methods may be called
// concurrently.
type FS interface {
	// OpenFile opens a file with the flags of package os. Opening never blocks
	// on what is not a regular file.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)

	// OpenDir opens a directory; what is not one is an error.
	OpenDir(name string) (Dir, error)

	// Mkdir makes one directory.
	Mkdir(name string, perm fs.FileMode) error

	// Rename moves a file, replacing a file that has the new name.
	Rename(from, to string) error

	// Remove removes a file or an empty directory.
	Remove(name string) error

	// Lstat describes what has the name.
	Lstat(name string) (Info, error)

	// Lock takes the lock of the directory name for this process until the
	// result is closed. If it is taken the error is a *HeldError; Lock does
	// not wait.
	Lock(name string) (io.Closer, error)

	// BootID names the time since the machine started: while it is the same,
	// what was written is there, synced or not. It is empty if unknown.
	BootID() string
}

// Dir is an open directory.
type Dir interface {
	// Open opens the file called name in the directory for reading, wherever
	// the directory has been moved to.
	Open(name string) (File, error)

	// ReadNames calls fn with the names in the directory, a bounded number at a
	// time and in no order, until all are told or fn returns an error, which is
	// returned as it is. It starts from the beginning each time. Calls must not
	// overlap.
	ReadNames(fn func(names []string) error) error

	// Sync makes the entries durable.
	Sync() error

	Close() error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes data and description durable, Datasync the data and the size.
	Sync() error
	Datasync() error

	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	SetModTime(t time.Time) error
	Stat() (Info, error)

	// Flush asks for the writing of n bytes at off to begin. It promises
	// nothing and waits for nothing, as far as the system can do that.
	Flush(off, n int64)

	// File returns the file as package os knows it, nil if it does not. It
	// belongs to this File and is valid until Close.
	File() *os.File
}

// Info describes a file.
type Info struct {
	Size  int64
	Mode  fs.FileMode
	Inode uint64
	Links uint64
	// ModTime is that of the last write or SetModTime, ChangeTime that of the
	// last change of any kind, which nobody can set.
	ModTime    time.Time
	ChangeTime time.Time
}

// HeldError says that another open store holds a lock.
type HeldError struct {
	Name string
	PID  int // 0 if unknown
}

func (e *HeldError) Error() string {
	switch e.PID {
	case 0:
		return fmt.Sprintf("%s is held by another process", e.Name)
	case os.Getpid():
		return fmt.Sprintf("%s is held by this process already (pid %d)", e.Name, e.PID)
	}
	return fmt.Sprintf("%s is held by process %d", e.Name, e.PID)
}

// SyncDir opens a directory, makes its entries durable, and closes it.
func SyncDir(fsys FS, name string) error {
	dir, err := fsys.OpenDir(name)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadNames opens a directory, calls fn as Dir.ReadNames does, and closes it.
func ReadNames(fsys FS, name string, fn func(names []string) error) error {
	dir, err := fsys.OpenDir(name)
	if err != nil {
		return err
	}
	err = dir.ReadNames(fn)
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	return err
}

// RemoveAll removes name with everything in it. What is not there is no error.
// It goes on after an error and returns the first one.
func RemoveAll(fsys FS, name string) error {
	err := fsys.Remove(name)
	if err == nil || notExist(err) {
		return nil
	}
	info, lerr := fsys.Lstat(name)
	if lerr != nil || !info.Mode.IsDir() {
		return err
	}
	var first error
	rerr := ReadNames(fsys, name, func(names []string) error {
		for _, child := range names {
			if err := RemoveAll(fsys, join(name, child)); err != nil && first == nil {
				first = err
			}
		}
		return nil
	})
	if first == nil {
		first = rerr
	}
	if err := fsys.Remove(name); err != nil && !notExist(err) && first == nil {
		first = err
	}
	return first
}
