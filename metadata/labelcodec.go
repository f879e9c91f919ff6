package metadata

import (
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Labels are a uvarint count, then for each label, in the order of the keys,
// key and value, each as
//
//	uvarint  twice the number of bytes that follow, plus 1 if they are packed
//	bytes
//
// The first byte of a packed key stands for one of keyPrefixes. A packed value
// is a digest key. Most labels of a container store are digests under a few
// keys, and take less than half the space so.

// keyPrefixes are the beginnings of keys that have a code, their index. The
// list may grow at its end; what is in it stays. The first that fits is used,
// so longer ones come before those that they begin with.
var keyPrefixes = [...]string{
	1: "containerd.io/gc.ref.content.",
	2: "containerd.io/distribution.source.",
	3: "containerd.io/",
	4: "org.opencontainers.image.",
}

func appendLabels(b []byte, labels map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(labels)))
	var few [16]string
	keys := slices.AppendSeq(few[:0], maps.Keys(labels))
	slices.Sort(keys)
	for _, k := range keys {
		b = appendLabelValue(appendLabelKey(b, k), labels[k])
	}
	return b
}

func appendLabelKey(b []byte, key string) []byte {
	for code := 1; code < len(keyPrefixes); code++ {
		if rest, ok := strings.CutPrefix(key, keyPrefixes[code]); ok {
			b = binary.AppendUvarint(b, uint64(1+len(rest))<<1|1)
			return append(append(b, byte(code)), rest...)
		}
	}
	return append(binary.AppendUvarint(b, uint64(len(key))<<1), key...)
}

func appendLabelValue(b []byte, value string) []byte {
	if key, err := newDigestKey(digest.Digest(value)); err == nil {
		b = binary.AppendUvarint(b, uint64(key.len)<<1|1)
		return append(b, key.bytes()...)
	}
	return append(binary.AppendUvarint(b, uint64(len(value))<<1), value...)
}

// labels decodes all labels out of one string, so that they cost a map and
// that string however many there are.
func (d *decoder) labels() map[string]string {
	n := d.uvarint()
	if d.bad || n == 0 {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	var buf [512]byte
	var end [32]int
	text := labelText{buf: buf[:0], end: end[:0]}
	for range n {
		text.key(d)
		text.value(d)
	}
	if d.bad {
		return nil
	}
	return text.labels(int(n))
}

// labelText gathers the unpacked keys and values of a record one behind the
// other.
type labelText struct {
	buf []byte
	end []int // where each ends
}

// packed returns the next string as it is stored, and whether it is packed.
func (d *decoder) packed() ([]byte, bool) {
	n := d.uvarint()
	if d.bad || n>>1 > uint64(len(d.b)) {
		d.fail()
		return nil, false
	}
	s := d.b[:n>>1]
	d.b = d.b[n>>1:]
	return s, n&1 == 1
}

func (t *labelText) key(d *decoder) {
	s, packed := d.packed()
	if packed {
		if len(s) == 0 || s[0] == 0 || int(s[0]) >= len(keyPrefixes) {
			d.fail()
			return
		}
		t.buf = append(t.buf, keyPrefixes[s[0]]...)
		s = s[1:]
	}
	t.add(s)
}

func (t *labelText) value(d *decoder) {
	s, packed := d.packed()
	if !packed {
		t.add(s)
		return
	}
	alg, ok := algorithmOf(s)
	if !ok {
		d.fail()
		return
	}
	t.buf = append(append(t.buf, alg...), ':')
	t.buf = hex.AppendEncode(t.buf, s[1:])
	t.add(nil)
}

func (t *labelText) add(s []byte) {
	t.buf = append(t.buf, s...)
	t.end = append(t.end, len(t.buf))
}

// labels makes the map, whose strings share one copy of the text.
func (t *labelText) labels(n int) map[string]string {
	labels := make(map[string]string, n)
	text := string(t.buf)
	from := 0
	for i := 0; i < len(t.end); i += 2 {
		labels[text[from:t.end[i]]] = text[t.end[i]:t.end[i+1]]
		from = t.end[i+1]
	}
	return labels
}
