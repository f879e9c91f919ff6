package vfs

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// OS is the file system of the operating system.
var OS FS = osFS{}

// osFS calls the system without package os in between: a file opened there is
// offered to the poller and gets a finalizer, which together cost as much as
// the read of a small blob.
type osFS struct{}

const openFlags = syscall.O_CLOEXEC | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	fd, err := openat(atFDCWD, name, flag, uint32(perm.Perm()))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &osFile{fd: fd, name: name}, nil
}

const atFDCWD = -0x64

func openat(dir int, name string, flag int, perm uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = syscall.Openat(dir, name, flag|openFlags, perm)
		return err
	})
	return fd, err
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

func (osFS) OpenDir(name string) (Dir, error) {
	fd, err := openat(atFDCWD, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &osDir{fd: fd, name: name}, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

func (osFS) Rename(from, to string) error {
	if err := retry(func() error { return syscall.Rename(from, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Lstat(name string) (Info, error) {
	var st syscall.Stat_t
	if err := retry(func() error { return syscall.Lstat(name, &st) }); err != nil {
		return Info{}, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return infoOf(&st), nil
}

func infoOf(st *syscall.Stat_t) Info {
	return Info{
		Size:       st.Size,
		Mode:       fs.FileMode(st.Mode&0o777) | typeOf(st.Mode),
		Inode:      st.Ino,
		Links:      uint64(st.Nlink),
		ModTime:    time.Unix(st.Mtim.Unix()),
		ChangeTime: time.Unix(st.Ctim.Unix()),
	}
}

func typeOf(mode uint32) fs.FileMode {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return 0
	case syscall.S_IFDIR:
		return fs.ModeDir
	case syscall.S_IFLNK:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

func (osFS) Lock(name string) (io.Closer, error) {
	fd, err := openat(atFDCWD, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	dir := &osDir{fd: fd, name: name}
	err = retry(func() error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == nil {
		return dir, nil
	}
	held := &HeldError{Name: name, PID: lockHolder(fd)}
	dir.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, held
	}
	return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
}

// lockHolder finds who has locked the open file, 0 if that can't be told. The
// device that the kernel lists is not always the one that stat shows, so the
// inode decides.
func lockHolder(fd int) int {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	inode := strconv.FormatUint(st.Ino, 10)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], ":"+inode) {
			continue
		}
		pid, _ := strconv.Atoi(field[4])
		return max(pid, 0)
	}
	return 0
}

// BootID changes with every start of the machine.
func (osFS) BootID() string { return bootID() }

var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

type osDir struct {
	fd     int
	name   string
	mu     sync.RWMutex
	closed bool
}

func (d *osDir) use(call func() error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return fs.ErrClosed
	}
	return retry(call)
}

func (d *osDir) Open(name string) (File, error) {
	fd := -1
	err := d.use(func() (err error) {
		fd, err = syscall.Openat(d.fd, name, syscall.O_RDONLY|openFlags, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.name, name), Err: err}
	}
	return &osFile{fd: fd, name: name}, nil
}

func (d *osDir) ReadNames(fn func(names []string) error) error {
	buf := make([]byte, 64<<10)
	if err := d.use(func() error { _, err := syscall.Seek(d.fd, 0, io.SeekStart); return err }); err != nil {
		return &fs.PathError{Op: "seek", Path: d.name, Err: err}
	}
	for {
		var n int
		err := d.use(func() (err error) { n, err = syscall.ReadDirent(d.fd, buf); return err })
		if err != nil {
			return &fs.PathError{Op: "readdir", Path: d.name, Err: err}
		}
		if n <= 0 {
			return nil
		}
		_, _, names := syscall.ParseDirent(buf[:n], -1, nil)
		if err := fn(names); err != nil {
			return err
		}
	}
}

func (d *osDir) Sync() error {
	if err := d.use(func() error { return syscall.Fsync(d.fd) }); err != nil {
		return &fs.PathError{Op: "fsync", Path: d.name, Err: err}
	}
	return nil
}

func (d *osDir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return syscall.Close(d.fd)
}

// osFile is an open file. The read lock is held during every call, so that the
// descriptor is not closed, and given to another file, under it.
type osFile struct {
	fd     int
	name   string
	mu     sync.RWMutex
	closed bool
	file   *os.File // owns fd once it is made
}

func (f *osFile) use(op string, call func() error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	if err := retry(call); err != nil {
		return &fs.PathError{Op: op, Path: f.name, Err: err}
	}
	return nil
}

// maxIO bounds a single read or write, which the kernel would cut anyway.
const maxIO = 1 << 30

func (f *osFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: syscall.EINVAL}
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrClosed}
	}
	for n < len(p) {
		m, err := syscall.Pread(f.fd, p[n:min(len(p), n+maxIO)], off+int64(n))
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return n, &fs.PathError{Op: "read", Path: f.name, Err: err}
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

func (f *osFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: fs.ErrClosed}
	}
	for n < len(p) {
		m, err := syscall.Pwrite(f.fd, p[n:min(len(p), n+maxIO)], off+int64(n))
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return n, &fs.PathError{Op: "write", Path: f.name, Err: err}
		case m == 0:
			return n, &fs.PathError{Op: "write", Path: f.name, Err: io.ErrShortWrite}
		default:
			n += m
		}
	}
	return n, nil
}

func (f *osFile) Sync() error {
	return f.use("fsync", func() error { return syscall.Fsync(f.fd) })
}

func (f *osFile) Datasync() error {
	return f.use("fdatasync", func() error { return syscall.Fdatasync(f.fd) })
}

func (f *osFile) Truncate(size int64) error {
	return f.use("truncate", func() error { return syscall.Ftruncate(f.fd, size) })
}

func (f *osFile) Chmod(mode fs.FileMode) error {
	return f.use("chmod", func() error { return syscall.Fchmod(f.fd, uint32(mode.Perm())) })
}

func (f *osFile) SetModTime(t time.Time) error {
	ts := syscall.NsecToTimespec(t.UnixNano())
	return f.use("utimes", func() error { return futimens(f.fd, &[2]syscall.Timespec{ts, ts}) })
}

func (f *osFile) Stat() (Info, error) {
	var st syscall.Stat_t
	if err := f.use("stat", func() error { return syscall.Fstat(f.fd, &st) }); err != nil {
		return Info{}, err
	}
	return infoOf(&st), nil
}

// syncFileRangeWrite starts writing dirty pages that are not yet being written.
const syncFileRangeWrite = 2

func (f *osFile) Flush(off, n int64) {
	_ = f.use("flush", func() error { return syscall.SyncFileRange(f.fd, off, n, syncFileRangeWrite) })
}

func (f *osFile) File() *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil && !f.closed {
		// O_NONBLOCK is only against devices and pipes; with it package os
		// would take the file for one of them.
		_ = syscall.SetNonblock(f.fd, false)
		f.file = os.NewFile(uintptr(f.fd), f.name)
	}
	return f.file
}

func (f *osFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.file != nil {
		return f.file.Close()
	}
	if err := syscall.Close(f.fd); err != nil && err != syscall.EINTR {
		return &fs.PathError{Op: "close", Path: f.name, Err: err}
	}
	return nil
}
