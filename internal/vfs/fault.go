package vfs

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Op is a kind of call.
type Op int

// The kinds of calls.
const (
	OpAny    Op = iota // every call that can fail
	OpOpen             // OpenFile of what must be there, Dir.Open
	OpCreate           // OpenFile with os.O_CREATE
	OpOpenDir
	OpMkdir
	OpRename
	OpRemove
	OpLstat
	OpLock
	OpReadNames
	OpSyncDir
	OpRead
	OpWrite
	OpSync
	OpDatasync
	OpTruncate
	OpChmod
	OpSetModTime
	OpStat
	OpClose
	opCount
)

var opNames = [...]string{
	"any", "open", "create", "opendir", "mkdir", "rename", "remove", "lstat", "lock", "readnames",
	"syncdir", "read", "write", "sync", "datasync", "truncate", "chmod", "setmodtime", "stat", "close",
}

func (op Op) String() string { return opNames[op] }

// Ops returns every kind of call, OpAny first.
func Ops() []Op {
	ops := make([]Op, opCount)
	for i := range ops {
		ops[i] = Op(i)
	}
	return ops
}

// Fault wraps a file system to count its calls and to make some fail. A call
// that fails does not reach the file system, except that a failing write
// writes half of its bytes, a failing close closes, and a failing sync of a file
// makes a [Mem] forget what it should have made durable, as kernels do.
type Fault struct {
	fs FS

	mu     sync.Mutex
	counts [opCount]int
	read   map[string]int64
	open   int
	rule   rule
	hook   func(op Op, name string) error
}

type rule struct {
	op      Op
	left    int // calls until the first that fails, 0 for no rule
	forever bool
	err     error
	hit     bool
}

// NewFault wraps fsys.
func NewFault(fsys FS) *Fault { return &Fault{fs: fsys, read: map[string]int64{}} }

// Fail makes the nth call of kind op from now on fail with err, once. It
// replaces what was set before.
func (f *Fault) Fail(op Op, n int, err error) { f.setRule(rule{op: op, left: n, err: err}) }

// FailFrom makes the nth call of kind op from now on and all later ones fail.
func (f *Fault) FailFrom(op Op, n int, err error) {
	f.setRule(rule{op: op, left: n, err: err, forever: true})
}

// Heal ends what Fail began and reports whether a call did fail.
func (f *Fault) Heal() (hit bool) { return f.setRule(rule{}).hit }

func (f *Fault) setRule(next rule) (last rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, f.rule = f.rule, next
	return last
}

// OnCall sets a function that is called before every call, and fails it if it
// returns an error. It is called without locks, also concurrently.
func (f *Fault) OnCall(hook func(op Op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Count returns how many calls of a kind there were.
func (f *Fault) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// Syncs returns how many calls made something durable.
func (f *Fault) Syncs() int { return f.Count(OpSync) + f.Count(OpDatasync) + f.Count(OpSyncDir) }

// BytesRead returns how much was read from files with that last element of
// their name.
func (f *Fault) BytesRead(base string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read[base]
}

// Handles returns how many files, directories and locks are open.
func (f *Fault) Handles() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// call counts a call and returns the error that it must fail with.
func (f *Fault) call(op Op, name string) error {
	f.mu.Lock()
	f.counts[op]++
	f.counts[OpAny]++
	hook := f.hook
	err := f.rule.match(op)
	f.mu.Unlock()
	if hook != nil && err == nil {
		err = hook(op, name)
	}
	if err != nil {
		return &fs.PathError{Op: op.String(), Path: name, Err: err}
	}
	return nil
}

func (r *rule) match(op Op) error {
	if r.left == 0 || r.op != OpAny && r.op != op {
		return nil
	}
	if r.left > 1 {
		r.left--
		return nil
	}
	if !r.forever {
		r.left = 0
	}
	r.hit = true
	return r.err
}

func (f *Fault) opened(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open += n
}

// OpenFile implements FS.
func (f *Fault) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	op := OpOpen
	if flag&os.O_CREATE != 0 {
		op = OpCreate
	}
	if err := f.call(op, name); err != nil {
		return nil, err
	}
	file, err := f.fs.OpenFile(name, flag, perm)
	return f.wrap(file, name, err)
}

func (f *Fault) wrap(file File, name string, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	f.opened(1)
	return &faultFile{f: f, file: file, name: name}, nil
}

// OpenDir implements FS.
func (f *Fault) OpenDir(name string) (Dir, error) {
	if err := f.call(OpOpenDir, name); err != nil {
		return nil, err
	}
	dir, err := f.fs.OpenDir(name)
	if err != nil {
		return nil, err
	}
	f.opened(1)
	return &faultDir{f: f, dir: dir, name: name}, nil
}

// Mkdir implements FS.
func (f *Fault) Mkdir(name string, perm fs.FileMode) error {
	if err := f.call(OpMkdir, name); err != nil {
		return err
	}
	return f.fs.Mkdir(name, perm)
}

// Rename implements FS.
func (f *Fault) Rename(from, to string) error {
	if err := f.call(OpRename, from); err != nil {
		return err
	}
	return f.fs.Rename(from, to)
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if err := f.call(OpRemove, name); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Lstat implements FS.
func (f *Fault) Lstat(name string) (Info, error) {
	if err := f.call(OpLstat, name); err != nil {
		return Info{}, err
	}
	return f.fs.Lstat(name)
}

// Lock implements FS.
func (f *Fault) Lock(name string) (io.Closer, error) {
	if err := f.call(OpLock, name); err != nil {
		return nil, err
	}
	lock, err := f.fs.Lock(name)
	if err != nil {
		return nil, err
	}
	f.opened(1)
	return &faultLock{f: f, lock: lock}, nil
}

// BootID implements FS.
func (f *Fault) BootID() string { return f.fs.BootID() }

type faultLock struct {
	f    *Fault
	lock io.Closer
	once sync.Once
}

func (l *faultLock) Close() error {
	l.once.Do(func() { l.f.opened(-1) })
	return l.lock.Close()
}

type faultDir struct {
	f    *Fault
	dir  Dir
	name string
	once sync.Once
}

func (d *faultDir) Open(name string) (File, error) {
	if err := d.f.call(OpOpen, filepath.Join(d.name, name)); err != nil {
		return nil, err
	}
	file, err := d.dir.Open(name)
	return d.f.wrap(file, filepath.Join(d.name, name), err)
}

func (d *faultDir) ReadNames(fn func(names []string) error) error {
	if err := d.f.call(OpReadNames, d.name); err != nil {
		return err
	}
	return d.dir.ReadNames(fn)
}

func (d *faultDir) Sync() error {
	if err := d.f.call(OpSyncDir, d.name); err != nil {
		return err
	}
	return d.dir.Sync()
}

func (d *faultDir) Close() error {
	d.once.Do(func() { d.f.opened(-1) })
	return d.dir.Close()
}

// forget tells a file in memory that a sync of it failed.
func forget(v any) {
	if v, ok := v.(interface{ failSync() }); ok {
		v.failSync()
	}
}

type faultFile struct {
	f    *Fault
	file File
	name string
	once sync.Once
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.f.call(OpRead, f.name); err != nil {
		return 0, err
	}
	n, err := f.file.ReadAt(p, off)
	f.f.mu.Lock()
	f.f.read[filepath.Base(f.name)] += int64(n)
	f.f.mu.Unlock()
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.f.call(OpWrite, f.name); err != nil {
		n, werr := f.file.WriteAt(p[:len(p)/2], off)
		if werr != nil {
			err = werr
		}
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.f.call(OpSync, f.name); err != nil {
		forget(f.file)
		return err
	}
	return f.file.Sync()
}

func (f *faultFile) Datasync() error {
	if err := f.f.call(OpDatasync, f.name); err != nil {
		forget(f.file)
		return err
	}
	return f.file.Datasync()
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.f.call(OpTruncate, f.name); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Chmod(mode fs.FileMode) error {
	if err := f.f.call(OpChmod, f.name); err != nil {
		return err
	}
	return f.file.Chmod(mode)
}

func (f *faultFile) SetModTime(t time.Time) error {
	if err := f.f.call(OpSetModTime, f.name); err != nil {
		return err
	}
	return f.file.SetModTime(t)
}

func (f *faultFile) Stat() (Info, error) {
	if err := f.f.call(OpStat, f.name); err != nil {
		return Info{}, err
	}
	return f.file.Stat()
}

func (f *faultFile) Flush(off, n int64) { f.file.Flush(off, n) }

func (f *faultFile) File() *os.File { return f.file.File() }

func (f *faultFile) Close() error {
	f.once.Do(func() { f.f.opened(-1) })
	err := f.f.call(OpClose, f.name)
	if cerr := f.file.Close(); cerr != nil {
		return cerr
	}
	return err
}
