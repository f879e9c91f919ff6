package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/cellarstore/cellar/internal/fserr"
)

// openBolt opens the database file, making it first where there is none.
func (db *DB) openBolt() error {
	info, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = db.create()
	}
	if err != nil {
		return fserr.Wrap(err, "metadata %s", db.path)
	}
	if info != nil && !info.Mode().IsRegular() {
		return fmt.Errorf("metadata %s is not a regular file: %w", db.path, errdefs.ErrFailedPrecondition)
	}
	err = db.guard(func() error {
		db.bolt, err = bolt.Open(db.path, 0o600, db.boltOptions())
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("metadata %s is held by %s: %w: %w", db.path, lockHolder(db.path), errdefs.ErrUnavailable, err)
	case err != nil:
		if db.file != nil {
			_ = db.file.Close() // bolt does not if it panics
		}
		return db.translate(err)
	}
	db.bolt.AllocSize = allocSize
	if err := db.guard(func() error { return db.bolt.View(db.checkSchema) }); err != nil {
		_ = db.closeBolt()
		return err
	}
	return nil
}

// allocSize is by how much the file grows at a time: each growth costs a sync,
// and what is not used yet is space that the file takes.
const allocSize = 4 << 20

// initialMmapSize is 4 GiB where there are addresses enough, else as bolt likes.
const initialMmapSize = (1 << 32) * (strconv.IntSize / 64)

func (db *DB) boltOptions() *bolt.Options {
	return &bolt.Options{
		Timeout:        db.opts.LockTimeout,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true, // a long free list would be written with every commit
		NoStatistics:   true,
		// Mapping more than the file has costs addresses alone. Mapping anew, as
		// the file grows beyond it, has to wait for every reader.
		InitialMmapSize: initialMmapSize,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag&^os.O_CREATE, mode)
			if err != nil {
				return nil, err
			}
			db.file = f
			// bolt takes the lock again, which is no second one.
			if err := lockFile(f, db.opts.LockTimeout); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			if err := inspectFile(f); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		},
	}
}

// create makes an empty database so that its name never stands for anything
// but a whole one: under another name first, then linked, then the directory
// synced. bolt itself writes a new file in place, and can't open what a crash
// leaves of that.
func (db *DB) create() (err error) {
	dir := filepath.Dir(db.path)
	temp, err := os.CreateTemp(dir, filepath.Base(db.path)+".new-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeIfThere(temp.Name())) }()
	if err := temp.Close(); err != nil {
		return err
	}
	fresh, err := bolt.Open(temp.Name(), 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	if err := errors.Join(fresh.Update(writeSchema), fresh.Sync(), fresh.Close()); err != nil {
		return err
	}
	if err := publish(temp.Name(), db.path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err // ErrExist: somebody else made one meanwhile, which is as good
	}
	return syncDir(dir)
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSchema(tx *bolt.Tx) error {
	for _, name := range fixedBuckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyVersion, binary.AppendUvarint(nil, schemaVersion))
}

// checkSchema tells databases of ours from others, and older from newer.
func (db *DB) checkSchema(tx *bolt.Tx) error {
	db.durable.Store(uint64(tx.ID())) // the file was flushed before it was read
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return fmt.Errorf("%s is a bolt database, but not one of cellar's: %w", db.path, errdefs.ErrFailedPrecondition)
	}
	version, n := binary.Uvarint(meta.Get(keyVersion))
	switch {
	case n <= 0 || version == 0:
		return fmt.Errorf("metadata %s has no schema version: %w", db.path, errdefs.ErrDataLoss)
	case version > schemaVersion:
		return fmt.Errorf("metadata %s has schema version %d, this program knows up to %d; open it with a newer one: %w",
			db.path, version, schemaVersion, errdefs.ErrFailedPrecondition)
	}
	for _, name := range fixedBuckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("metadata %s lacks the bucket %q: %w", db.path, name, errdefs.ErrDataLoss)
		}
	}
	return nil
}

// inspectFile makes sure that what will be read is what the medium has, and
// that bolt can read it: that the file is long enough to be mapped, and what
// bolt reads when it opens it is sound.
//
// A failed flush can leave pages in the cache that the medium lacks. So the
// file is flushed and its clean pages are dropped before bolt reads it.
//
// After a clean close bolt reads no more than a list, and so does this: what is
// wrong with other pages shows when they are used, as an error. Only a branch
// page that leads back to itself, which takes a write that went to a wrong
// place, is not found out then.
func inspectFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	dropCache(f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := newestMeta(f, info.Size())
	if err != nil {
		return errDamaged(err.Error())
	}
	if need := m.pageSize * int64(m.pages); info.Size() < need {
		return errDamaged(fmt.Sprintf("it has %d bytes and should have %d", info.Size(), need))
	}
	var problems []string
	if m.freelist == noFreelist {
		problems, _ = checkPages(context.Background(), f, m)
	} else {
		problems = checkFreelist(f, m)
	}
	if len(problems) > 0 {
		return errDamaged(problems[0])
	}
	return nil
}

func errDamaged(problem string) error {
	return fmt.Errorf("damaged: %s: %w", problem, errdefs.ErrDataLoss)
}

// The fields of bolt's meta page that tell how long the file must be, as
// offsets from the start of the page: a page header of 16 bytes, then magic,
// version, page size, flags (4 bytes each), root page, root sequence, free list
// page, number of pages, transaction id, checksum (8 bytes each).
const (
	metaMagic    = 0xED0CDAED
	metaAt       = pageHeader
	metaPageSize = metaAt + 8
	metaRoot     = metaAt + 16
	metaFreelist = metaAt + 32
	metaPages    = metaAt + 40
	metaTxid     = metaAt + 48
	metaChecksum = metaAt + 56
	metaEnd      = metaChecksum + 8
)

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize int64
	pages    uint64
	root     uint64
	freelist uint64
	txid     uint64
}

// newestMeta returns the valid meta page of f that bolt will go by.
func newestMeta(f io.ReaderAt, size int64) (newest boltMeta, err error) {
	found := false
	consider := func(offset int64) {
		if m, ok := readMeta(f, offset); ok && (!found || m.txid >= newest.txid) {
			found, newest = true, m
		}
	}
	consider(0)
	for pageSize := int64(1 << 10); pageSize <= maxPageSize && pageSize < size; pageSize <<= 1 {
		consider(pageSize)
	}
	if !found {
		return boltMeta{}, errors.New("neither of its meta pages is valid")
	}
	return newest, nil
}

const maxPageSize = 1 << 24

func readMeta(f io.ReaderAt, offset int64) (m boltMeta, ok bool) {
	var page [metaEnd]byte
	if n, _ := f.ReadAt(page[:], offset); n != len(page) {
		return boltMeta{}, false
	}
	sum := fnv.New64a()
	_, _ = sum.Write(page[metaAt:metaChecksum])
	if order.Uint32(page[metaAt:]) != metaMagic || order.Uint64(page[metaChecksum:]) != sum.Sum64() {
		return boltMeta{}, false
	}
	m = boltMeta{
		pageSize: int64(order.Uint32(page[metaPageSize:])),
		root:     order.Uint64(page[metaRoot:]),
		freelist: order.Uint64(page[metaFreelist:]),
		pages:    order.Uint64(page[metaPages:]),
		txid:     order.Uint64(page[metaTxid:]),
	}
	return m, m.pageSize > pageHeader && m.pageSize <= maxPageSize && m.pages < 1<<40
}
