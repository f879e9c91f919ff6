package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that tells what is written from what is
// durable. Data is durable after the file's Sync or Datasync, an entry after
// the Sync of its directory, neither after the other. It has no links.
//
// [Mem.Clone] gives what a killed process leaves behind, [Mem.CrashClone] what
// a power loss may leave.
type Mem struct {
	mu    sync.Mutex
	root  *node
	last  uint64 // inode number given last
	boot  int
	locks map[*node]bool
	now   time.Time
}

// NewMem returns an empty file system whose root is the directory "/".
func NewMem() *Mem {
	m := &Mem{locks: map[*node]bool{}, boot: 1}
	m.root = m.newNode(fs.ModeDir | 0o700)
	return m
}

// node is a file or a directory.
type node struct {
	inode uint64
	mode  fs.FileMode
	links uint64
	mtime time.Time
	ctime time.Time

	data    []byte // what readers see
	durable []byte // what a power loss certainly leaves
	writes  []write

	entries map[string]*node
	synced  map[string]*node    // entries a power loss certainly leaves
	changed map[string]struct{} // names changed since
}

// write is a change of data that is not durable: data at off, or without data
// a change of the size to off.
type write struct {
	off  int64
	data []byte
}

func (w write) apply(file []byte) []byte {
	if w.data == nil {
		return resize(file, w.off)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(file)) {
		file = resize(file, end)
	}
	copy(file[w.off:], w.data)
	return file
}

func resize(file []byte, size int64) []byte {
	if size <= int64(len(file)) {
		return file[:size:size]
	}
	return append(file, make([]byte, size-int64(len(file)))...)
}

func (m *Mem) newNode(mode fs.FileMode) *node {
	m.last++
	n := &node{inode: m.last, mode: mode}
	if mode.IsDir() {
		n.entries, n.synced, n.changed = map[string]*node{}, map[string]*node{}, map[string]struct{}{}
	}
	m.touch(n)
	n.mtime = n.ctime
	return n
}

// touch moves n's change time; no two changes have the same one.
func (m *Mem) touch(n *node) {
	m.now = latest(time.Now(), m.now.Add(time.Nanosecond))
	n.ctime = m.now
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (m *Mem) set(dir *node, name string, child *node) {
	if old := dir.entries[name]; old != nil {
		old.links--
		m.touch(old)
	}
	if child == nil {
		delete(dir.entries, name)
	} else {
		dir.entries[name] = child
		child.links++
		m.touch(child)
	}
	dir.changed[name] = struct{}{}
}

// find returns the directory of name, its last element, and what is there.
func (m *Mem) find(op, name string) (dir *node, base string, child *node, err error) {
	name = filepath.Clean("/" + name)
	if name == "/" {
		return nil, "/", m.root, nil
	}
	parts := strings.Split(name[1:], "/")
	dir = m.root
	for _, part := range parts[:len(parts)-1] {
		next := dir.entries[part]
		switch {
		case next == nil:
			return nil, "", nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		case !next.mode.IsDir():
			return nil, "", nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		dir = next
	}
	base = parts[len(parts)-1]
	return dir, base, dir.entries[base], nil
}

// OpenFile implements FS.
func (m *Mem) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	fail := func(errno error) (File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: errno} }
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return fail(syscall.ENOENT)
	case n == nil:
		n = m.newNode(perm.Perm())
		m.set(dir, base, n)
	case flag&os.O_EXCL != 0:
		return fail(syscall.EEXIST)
	case n.mode.IsDir() && flag&(os.O_WRONLY|os.O_RDWR) != 0:
		return fail(syscall.EISDIR)
	}
	if flag&os.O_TRUNC != 0 {
		m.change(n, write{})
	}
	return &memFile{m: m, n: n, name: name}, nil
}

func (m *Mem) change(n *node, w write) {
	n.data = w.apply(n.data)
	n.writes = append(n.writes, w)
	m.touch(n)
	n.mtime = n.ctime
}

// OpenDir implements FS.
func (m *Mem) OpenDir(name string) (Dir, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case n == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case !n.mode.IsDir():
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	return &memDir{m: m, n: n, name: name}, nil
}

// Mkdir implements FS.
func (m *Mem) Mkdir(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, n, err := m.find("mkdir", name)
	if err != nil {
		return err
	}
	if n != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	m.set(dir, base, m.newNode(fs.ModeDir|perm.Perm()))
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(errno error) error { return &os.LinkError{Op: "rename", Old: from, New: to, Err: errno} }
	fromDir, fromBase, n, err := m.find("rename", from)
	if err != nil {
		return err
	}
	toDir, toBase, old, err := m.find("rename", to)
	switch {
	case err != nil:
		return err
	case n == nil:
		return fail(syscall.ENOENT)
	case old == n:
		return nil
	case old != nil && old.mode.IsDir():
		return fail(syscall.EEXIST)
	}
	m.set(toDir, toBase, n)
	m.set(fromDir, fromBase, nil)
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, n, err := m.find("remove", name)
	if err != nil {
		return err
	}
	switch {
	case n == nil:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	case len(n.entries) > 0:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	m.set(dir, base, nil)
	return nil
}

// Lstat implements FS.
func (m *Mem) Lstat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.find("lstat", name)
	if err != nil {
		return Info{}, err
	}
	if n == nil {
		return Info{}, &fs.PathError{Op: "lstat", Path: name, Err: syscall.ENOENT}
	}
	return n.info(), nil
}

func (n *node) info() Info {
	return Info{Size: int64(len(n.data)), Mode: n.mode, Inode: n.inode, Links: n.links, ModTime: n.mtime, ChangeTime: n.ctime}
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	dir, err := m.OpenDir(name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := dir.(*memDir).n
	if m.locks[n] {
		return nil, &HeldError{Name: name, PID: os.Getpid()}
	}
	m.locks[n] = true
	return memLock{m, n}, nil
}

type memLock struct {
	m *Mem
	n *node
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locks, l.n)
	return nil
}

// BootID implements FS. It changes with every CrashClone.
func (m *Mem) BootID() string { return fmt.Sprintf("mem-boot-%d", m.boot) }

type memDir struct {
	m    *Mem
	n    *node
	name string
}

func (d *memDir) Open(name string) (File, error) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	n := d.n.entries[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: join(d.name, name), Err: syscall.ENOENT}
	}
	return &memFile{m: d.m, n: n, name: name}, nil
}

func (d *memDir) ReadNames(fn func(names []string) error) error {
	d.m.mu.Lock()
	names := slices.Sorted(maps.Keys(d.n.entries))
	d.m.mu.Unlock()
	for batch := range slices.Chunk(names, 7) {
		if err := fn(batch); err != nil {
			return err
		}
	}
	return nil
}

func (d *memDir) Sync() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	for name := range d.n.changed {
		if child := d.n.entries[name]; child != nil {
			d.n.synced[name] = child
		} else {
			delete(d.n.synced, name)
		}
	}
	clear(d.n.changed)
	return nil
}

func (d *memDir) Close() error { return nil }

type memFile struct {
	m      *Mem
	n      *node
	name   string
	closed bool
}

func (f *memFile) use(op string, call func() error) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	return call()
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.use("read", func() error {
		if off < int64(len(f.n.data)) {
			n = copy(p, f.n.data[off:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.use("write", func() error {
		f.m.change(f.n, write{off, append(make([]byte, 0, len(p)), p...)})
		n = len(p)
		return nil
	})
	return n, err
}

func (f *memFile) Sync() error {
	return f.use("fsync", func() error {
		for _, w := range f.n.writes {
			f.n.durable = w.apply(f.n.durable)
		}
		f.n.writes = nil
		return nil
	})
}

func (f *memFile) Datasync() error { return f.Sync() }

// failSync does what a kernel does to data that it could not write: readers
// see it on, but it counts as written and no later sync writes it.
func (f *memFile) failSync() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.writes = nil
}

func (f *memFile) Truncate(size int64) error {
	return f.use("truncate", func() error { f.m.change(f.n, write{off: size}); return nil })
}

func (f *memFile) Chmod(mode fs.FileMode) error {
	return f.use("chmod", func() error { f.n.mode = mode.Perm(); f.m.touch(f.n); return nil })
}

func (f *memFile) SetModTime(t time.Time) error {
	return f.use("utimes", func() error { f.m.touch(f.n); f.n.mtime = t; return nil })
}

func (f *memFile) Stat() (info Info, err error) {
	err = f.use("stat", func() error { info = f.n.info(); return nil })
	return info, err
}

func (f *memFile) Flush(int64, int64) {}

func (f *memFile) File() *os.File { return nil }

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}
