package metadata

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// A content record is
//
//	byte     1, the version of the encoding
//	uvarint  size
//	8 bytes  created, nanoseconds since 1970, big endian
//	varint   updated minus created, nanoseconds
//	labels   (see labelcodec.go)
//	4 bytes  CRC-32C of all that comes before, big endian
//
// bbolt has no checksums of its own on these pages; the CRC is what tells a
// damaged record from a right one.

const recordVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type contentRecord struct {
	size    int64
	created time.Time
	updated time.Time
	labels  map[string]string
}

func (r *contentRecord) encode() []byte {
	b := make([]byte, 0, 32+labelsSize(r.labels))
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(r.size))
	b = appendTime(b, r.created)
	b = binary.AppendVarint(b, int64(r.updated.Sub(r.created)))
	b = appendLabels(b, r.labels)
	return seal(b)
}

// decodeContent reads a record. Nothing in the result points into b.
func decodeContent(b []byte) (contentRecord, error) {
	d, err := unseal(b)
	if err != nil {
		return contentRecord{}, err
	}
	r := contentRecord{size: d.size()}
	r.created = d.time()
	r.updated = r.created.Add(time.Duration(d.varint()))
	r.labels = d.labels()
	return r, d.finish()
}

// namespaceRecord is what is kept of a namespace: version, created as above,
// labels, CRC.
type namespaceRecord struct {
	created time.Time
	labels  map[string]string
}

func (r *namespaceRecord) encode() []byte {
	b := make([]byte, 0, 16+labelsSize(r.labels))
	b = append(b, recordVersion)
	b = appendTime(b, r.created)
	return seal(appendLabels(b, r.labels))
}

func decodeNamespace(b []byte) (namespaceRecord, error) {
	d, err := unseal(b)
	if err != nil {
		return namespaceRecord{}, err
	}
	r := namespaceRecord{created: d.time()}
	r.labels = d.labels()
	return r, d.finish()
}

// ingestRecord is what is kept of an ingestion beside its bytes: version,
// flags (1: open), started, updated, expires (8 bytes each, as above), uvarint
// total, expected and borrowed as uvarint length and string, CRC.
type ingestRecord struct {
	// open is whether a writer had the ingestion when the record was written.
	// Then the raw store knows better when it was last written to.
	open     bool
	started  time.Time
	updated  time.Time
	expires  time.Time
	total    int64
	expected digest.Digest
	// borrowed is the digest of the content that the ingestion took over, empty
	// if it has bytes of its own.
	borrowed digest.Digest
}

func (r *ingestRecord) encode() []byte {
	b := make([]byte, 0, 48+len(r.expected)+len(r.borrowed))
	b = append(b, recordVersion, flags(r.open))
	for _, t := range []time.Time{r.started, r.updated, r.expires} {
		b = appendTime(b, t)
	}
	b = binary.AppendUvarint(b, uint64(r.total))
	b = appendString(appendString(b, string(r.expected)), string(r.borrowed))
	return seal(b)
}

func flags(open bool) byte {
	if open {
		return 1
	}
	return 0
}

func decodeIngest(b []byte) (ingestRecord, error) {
	d, err := unseal(b)
	if err != nil {
		return ingestRecord{}, err
	}
	r := ingestRecord{open: d.byte() == 1, started: d.time(), updated: d.time(), expires: d.time(), total: d.size()}
	r.expected, r.borrowed = digest.Digest(d.bytes()), digest.Digest(d.bytes())
	return r, d.finish()
}

func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unseal checks version and CRC and returns a decoder of what lies between.
func unseal(b []byte) (decoder, error) {
	if len(b) < 1+4 {
		return decoder{}, fmt.Errorf("record of %d bytes: %w", len(b), errdefs.ErrDataLoss)
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return decoder{}, fmt.Errorf("record checksum differs: %w", errdefs.ErrDataLoss)
	}
	if body[0] != recordVersion {
		return decoder{}, fmt.Errorf("record of version %d, this program knows %d: %w", body[0], recordVersion, errdefs.ErrDataLoss)
	}
	return decoder{b: body[1:]}, nil
}

func labelsSize(labels map[string]string) int {
	n := 1
	for k, v := range labels {
		n += 4 + len(k) + len(v)
	}
	return n
}

// appendTime writes nanoseconds since 1970, and 0 for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	var ns int64
	if !t.IsZero() {
		ns = t.UnixNano()
	}
	return binary.BigEndian.AppendUint64(b, uint64(ns))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder takes a record apart. After the first thing that does not fit, all
// further reads give zeros and finish returns DataLoss.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) finish() error {
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("record does not decode: %w", errdefs.ErrDataLoss)
	}
	return nil
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) advance(n int) {
	if n <= 0 {
		d.fail()
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.advance(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.advance(n)
	return v
}

// size is a uvarint that must fit into an int64.
func (d *decoder) size() int64 {
	v := d.uvarint()
	if v > math.MaxInt64 {
		d.fail()
		return 0
	}
	return int64(v)
}

// time reads what appendTime wrote.
func (d *decoder) time() time.Time {
	if len(d.b) < 8 {
		d.fail()
		return time.Time{}
	}
	ns := int64(binary.BigEndian.Uint64(d.b))
	d.b = d.b[8:]
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// bytes returns the next string without copying it.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}
