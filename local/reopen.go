package local

import (
	"context"
	"encoding"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar/internal/vfs"
)

// reopen goes on with an ingestion that an earlier writer left.
func (s *Store) reopen(ctx context.Context, path string, v saved, req request) (*writer, error) {
	w := newWriter(s, path, v.header, req)
	w.status = v.status(s.boot)
	if req.expected != "" {
		w.status.Expected = req.expected
	}
	if err := w.reopenFiles(ctx, v); err != nil {
		w.closeFiles()
		return nil, err
	}
	return w, nil
}

func (w *writer) reopenFiles(ctx context.Context, v saved) (err error) {
	if w.data, err = w.s.openData(w.dataPath()); err != nil {
		return err
	}
	if w.state, err = w.s.fs.OpenFile(w.statePath(), os.O_RDWR, 0); err != nil {
		return err
	}
	if v.data, err = w.data.Stat(); err != nil {
		return err
	}
	return w.resume(ctx, v)
}

// openData opens a data file for writing, also one that a Commit which then
// failed had made read-only.
func (s *Store) openData(name string) (vfs.File, error) {
	f, err := s.fs.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	ro, rerr := s.fs.OpenFile(name, os.O_RDONLY, 0)
	if rerr != nil {
		return nil, err
	}
	defer ro.Close()
	if ro.Chmod(openMode) != nil {
		return nil, err
	}
	return s.fs.OpenFile(name, os.O_RDWR, 0)
}

// resume finds out how much of the data holds and what its hash is.
func (w *writer) resume(ctx context.Context, v saved) error {
	good, err := w.goodSlots(v)
	if err != nil {
		return err
	}
	size, same := v.data.Size, v.sameBoot(w.s.boot)
	if !same {
		size = v.durable()
		if size < v.data.Size {
			if err := w.data.Truncate(size); err != nil {
				return err
			}
		}
	}
	var from int64
	w.hash, from = restore(good, w.alg)
	if err := hashRange(ctx, w.hash, w.data, from, size); err != nil {
		return err
	}
	w.status.Offset = size
	w.last = base(v, good, w.alg)
	w.seq = nextSeq(v)
	w.started = w.last.offset
	w.clean = w.last.clean
	return w.renewSlot(same)
}

// renewSlot writes the newest checkpoint again where it does not say what has
// changed with this opening: the boot, since all that was not durable is gone
// now, or the expected digest.
func (w *writer) renewSlot(sameBoot bool) error {
	if sameBoot && w.last.expected == w.status.Expected {
		return nil
	}
	c := *w.last
	c.boot, c.expected = w.s.boot, w.status.Expected
	return w.writeSlot(&c)
}

// goodSlots returns the checkpoints that are believed, newest first, as far as
// they are needed. Each
// belongs to this data file. After a clean Close nothing need be read, but if
// anybody touched the file since, none is believed. Otherwise the end of the
// data before a checkpoint is compared.
func (w *writer) goodSlots(v saved) ([]*checkpoint, error) {
	if len(v.slots) > 0 && v.slots[0].clean && !v.slots[0].untouched(v.data) {
		return nil, nil
	}
	var good []*checkpoint
	for i, c := range v.slots {
		if !c.fits(v.data) {
			continue
		}
		if i > 0 || !c.clean {
			sum, err := tailSum(w.data, c.offset)
			if err != nil {
				return nil, err
			}
			if sum != c.tail {
				continue
			}
		}
		good = append(good, c)
		if c.alg == w.alg {
			break
		}
	}
	return good, nil
}

// restore returns the hash of the newest checkpoint that has one of alg, and
// how far that has come; failing that a new hash.
func restore(good []*checkpoint, alg digest.Algorithm) (hash.Hash, int64) {
	for _, c := range good {
		h := alg.Hash()
		if c.alg == alg && h.(encoding.BinaryUnmarshaler).UnmarshalBinary(c.hash) == nil {
			return h, c.offset
		}
	}
	return alg.Hash(), 0
}

// base returns the newest believed checkpoint, or one of no data.
func base(v saved, good []*checkpoint, alg digest.Algorithm) *checkpoint {
	if len(good) > 0 {
		return good[0]
	}
	return &checkpoint{
		generation: v.generation,
		inode:      v.data.Inode,
		updated:    v.started,
		alg:        alg,
		hash:       hashState(alg.Hash()),
		expected:   v.expected,
	}
}

func nextSeq(v saved) uint64 {
	if len(v.slots) == 0 {
		return 1
	}
	return v.slots[0].seq + 1
}

// hashState saves the state of a hash, as those of the standard library can.
func hashState(h hash.Hash) []byte {
	p, err := h.(encoding.BinaryAppender).AppendBinary(nil)
	if err != nil {
		return nil
	}
	return p
}

// tailSum is the checksum of the end of the first size bytes of f.
func tailSum(f io.ReaderAt, size int64) (uint32, error) {
	p := make([]byte, min(size, tailSize))
	n, err := f.ReadAt(p, size-int64(len(p)))
	if err != nil && err != io.EOF {
		return 0, err
	}
	return crc32.Checksum(p[:n], castagnoli), nil
}

// hashChunk is how much is read at once to be hashed.
const hashChunk = 1 << 20

// hashRange adds the bytes of f from from to to.
func hashRange(ctx context.Context, h hash.Hash, f io.ReaderAt, from, to int64) error {
	if from >= to {
		return nil
	}
	buf := make([]byte, min(hashChunk, to-from))
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), to-from)]
		n, err := f.ReadAt(p, from)
		if n < len(p) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		h.Write(p)
		from += int64(n)
	}
	return nil
}
