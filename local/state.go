package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
)

// The state file: a header at 0 and two slots for checkpoints, written in turn,
// so that one which is torn leaves the other. Each is a record of its own:
//
//	magic  4 bytes
//	version, length of the payload: uint16, big endian as all numbers
//	payload
//	CRC-32C of all before
//
// docs/format.md tells the payloads.
const (
	slotSize   = 4 << 10
	headerSize = 8 << 10
	stateSize  = headerSize + 2*slotSize

	stateVersion = 1
)

var (
	headerMagic = [4]byte{'C', 'i', 'n', 'g'}
	slotMagic   = [4]byte{'C', 'c', 'k', 'p'}

	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errRecord = errors.New("no valid record")
	errNewer  = errors.New("record of a newer version")
)

// header says what an ingestion is.
type header struct {
	generation [16]byte // random; new whenever the data starts afresh
	started    time.Time
	total      int64
	boot       string
	alg        digest.Algorithm
	expected   digest.Digest
	ref        string
}

// checkpoint says how far the data was durable and what its hash was.
type checkpoint struct {
	seq        uint64
	generation [16]byte
	key        [sha256.Size]byte // SHA-256 of the ref
	inode      uint64            // of the data file
	offset     int64
	// clean says that the writer was closed: then size and both times of the
	// data file are what they were, unless somebody touched it.
	clean   bool
	mtime   int64
	ctime   int64
	updated time.Time
	boot    string
	tail    uint32 // CRC-32C of the last tailSize bytes before offset
	alg     digest.Algorithm
	hash    []byte
	// expected is the digest that the writer of the checkpoint was opened with.
	expected digest.Digest
}

// tailSize is how much of the data before a checkpoint is read again to see
// that it is the same.
const tailSize = 4 << 10

func slotOffset(seq uint64) int64 { return headerSize + int64(seq%2)*slotSize }

func (h *header) encode() []byte {
	var e encoder
	e.bytes(h.generation[:])
	e.time(h.started)
	e.int(h.total)
	e.text(h.boot)
	e.text(string(h.alg))
	e.text(string(h.expected))
	e.text(h.ref)
	return e.record(headerMagic)
}

func decodeHeader(p []byte) (*header, error) {
	d, err := newDecoder(p, headerMagic)
	if err != nil {
		return nil, err
	}
	h := &header{}
	d.bytes(h.generation[:])
	h.started = d.time()
	h.total = d.int()
	h.boot = d.text()
	h.alg = digest.Algorithm(d.text())
	h.expected = digest.Digest(d.text())
	h.ref = d.text()
	switch {
	case d.err != nil || len(d.p) != 0:
		return nil, errRecord
	case cellar.ValidateRef(h.ref) != nil, h.total < 0, !h.alg.Available():
		return nil, errRecord
	case h.expected != "" && cellar.ValidateDigest(h.expected) != nil:
		return nil, errRecord
	}
	return h, nil
}

func (c *checkpoint) encode() []byte {
	var e encoder
	e.int(int64(c.seq))
	e.bytes(c.generation[:])
	e.bytes(c.key[:])
	e.int(int64(c.inode))
	e.int(c.offset)
	e.flag(c.clean)
	e.int(c.mtime)
	e.int(c.ctime)
	e.time(c.updated)
	e.int(int64(c.tail))
	e.text(c.boot)
	e.text(string(c.alg))
	e.text(string(c.hash))
	e.text(string(c.expected))
	return e.record(slotMagic)
}

func decodeCheckpoint(p []byte) (*checkpoint, error) {
	d, err := newDecoder(p, slotMagic)
	if err != nil {
		return nil, err
	}
	c := &checkpoint{}
	c.seq = uint64(d.int())
	d.bytes(c.generation[:])
	d.bytes(c.key[:])
	c.inode = uint64(d.int())
	c.offset = d.int()
	c.clean = d.flag()
	c.mtime = d.int()
	c.ctime = d.int()
	c.updated = d.time()
	tail := d.int()
	c.tail = uint32(tail)
	c.boot = d.text()
	c.alg = digest.Algorithm(d.text())
	c.hash = []byte(d.text())
	c.expected = digest.Digest(d.text())
	if c.expected != "" && cellar.ValidateDigest(c.expected) != nil {
		return nil, errRecord
	}
	if d.err != nil || len(d.p) != 0 || c.offset < 0 || tail != int64(c.tail) || !c.alg.Available() {
		return nil, errRecord
	}
	return c, nil
}

// encoder builds the payload of a record.
type encoder struct{ p []byte }

func (e *encoder) bytes(p []byte) { e.p = append(e.p, p...) }
func (e *encoder) int(n int64)    { e.p = binary.BigEndian.AppendUint64(e.p, uint64(n)) }
func (e *encoder) time(t time.Time) {
	e.int(t.Unix())
	e.p = binary.BigEndian.AppendUint32(e.p, uint32(t.Nanosecond()))
}

func (e *encoder) flag(set bool) {
	b := byte(0)
	if set {
		b = 1
	}
	e.p = append(e.p, b)
}

func (e *encoder) text(s string) {
	e.p = binary.BigEndian.AppendUint16(e.p, uint16(len(s)))
	e.p = append(e.p, s...)
}

func (e *encoder) record(magic [4]byte) []byte {
	p := append([]byte{}, magic[:]...)
	p = binary.BigEndian.AppendUint16(p, stateVersion)
	p = binary.BigEndian.AppendUint16(p, uint16(len(e.p)))
	p = append(p, e.p...)
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// decoder takes a payload apart. After the first error all values are zero.
type decoder struct {
	p   []byte
	err error
}

// newDecoder checks the frame of the record at the beginning of p.
func newDecoder(p []byte, magic [4]byte) (*decoder, error) {
	const frame = 4 + 2 + 2
	if len(p) < frame || !bytes.Equal(p[:4], magic[:]) {
		return nil, errRecord
	}
	version, size := binary.BigEndian.Uint16(p[4:]), int(binary.BigEndian.Uint16(p[6:]))
	if len(p) < frame+size+4 {
		return nil, errRecord
	}
	if binary.BigEndian.Uint32(p[frame+size:]) != crc32.Checksum(p[:frame+size], castagnoli) {
		return nil, errRecord
	}
	if version > stateVersion {
		return nil, fmt.Errorf("%w: %d, this program knows %d", errNewer, version, stateVersion)
	}
	return &decoder{p: p[frame : frame+size]}, nil
}

func (d *decoder) next(n int) []byte {
	if d.err != nil || len(d.p) < n {
		d.err = errRecord
		return make([]byte, n)
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) bytes(p []byte) { copy(p, d.next(len(p))) }
func (d *decoder) int() int64     { return int64(binary.BigEndian.Uint64(d.next(8))) }
func (d *decoder) flag() bool     { return d.next(1)[0] != 0 }

func (d *decoder) time() time.Time {
	sec := d.int()
	return time.Unix(sec, int64(binary.BigEndian.Uint32(d.next(4)))).UTC()
}

func (d *decoder) text() string {
	return string(d.next(int(binary.BigEndian.Uint16(d.next(2)))))
}

// state is what a state file says.
type state struct {
	*header
	slots []*checkpoint // those that are valid and belong to the header, newest first
}

// decodeState reads a whole state file. Without a valid header there is an
// error; slots that are not valid, or of another generation or ref, are left
// out.
func decodeState(p []byte) (*state, error) {
	h, err := decodeHeader(p)
	if err != nil {
		return nil, err
	}
	st := &state{header: h}
	key := sha256.Sum256([]byte(h.ref))
	for i := range int64(2) {
		at := headerSize + i*slotSize
		if int64(len(p)) <= at {
			break
		}
		c, err := decodeCheckpoint(p[at:min(int64(len(p)), at+slotSize)])
		if err == nil && c.generation == h.generation && c.key == key {
			st.slots = append(st.slots, c)
		}
	}
	if len(st.slots) == 2 && st.slots[0].seq < st.slots[1].seq {
		st.slots[0], st.slots[1] = st.slots[1], st.slots[0]
	}
	return st, nil
}

// readState reads a state file.
func readState(f io.ReaderAt) (*state, error) {
	p := make([]byte, stateSize)
	n, err := f.ReadAt(p, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return decodeState(p[:n])
}
