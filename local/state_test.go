package local

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// reversion gives a record another version and a checksum that fits.
func reversion(p []byte, version uint16) []byte {
	binary.BigEndian.PutUint16(p[4:], version)
	end := len(p) - 4
	binary.BigEndian.PutUint32(p[end:], crc32.Checksum(p[:end], castagnoli))
	return p
}

func TestStateRoundTrip(t *testing.T) {
	// Header and checkpoint come back as they were, whatever their values.
	rapid.Check(t, func(t *rapid.T) {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			return time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC()
		})
		alg := rapid.SampledFrom(algorithms)
		h := &header{
			generation: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "generation")),
			started:    moment.Draw(t, "started"),
			total:      rapid.Int64Range(0, 1<<62).Draw(t, "total"),
			boot:       rapid.StringN(0, 40, 100).Draw(t, "boot"),
			alg:        alg.Draw(t, "alg"),
			expected:   digest.FromString("x"),
			ref:        rapid.StringN(1, 1000, 4096).Draw(t, "ref"),
		}
		got, err := decodeHeader(h.encode())
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.LessOrEqual(t, len(h.encode()), headerSize)

		c := &checkpoint{
			seq:        rapid.Uint64().Draw(t, "seq"),
			generation: h.generation,
			key:        [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")),
			inode:      rapid.Uint64().Draw(t, "inode"),
			offset:     rapid.Int64Range(0, 1<<62).Draw(t, "offset"),
			clean:      rapid.Bool().Draw(t, "clean"),
			mtime:      rapid.Int64().Draw(t, "mtime"),
			ctime:      rapid.Int64().Draw(t, "ctime"),
			updated:    moment.Draw(t, "updated"),
			boot:       h.boot,
			tail:       rapid.Uint32().Draw(t, "tail"),
			alg:        alg.Draw(t, "alg"),
			hash:       rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "hash"),
			expected:   digest.SHA512.FromString("x"),
		}
		back, err := decodeCheckpoint(c.encode())
		require.NoError(t, err)
		require.Equal(t, c, back)
		require.LessOrEqual(t, len(c.encode()), slotSize)
	})
}

func TestStateFrame(t *testing.T) {
	// Every byte of a record counts: any one changed, or the end missing, and it
	// is not read.
	c := &checkpoint{alg: digest.SHA256, hash: []byte("state"), boot: "boot"}
	p := c.encode()
	for i := range p {
		q := append([]byte{}, p...)
		q[i] ^= 1
		_, err := decodeCheckpoint(q)
		require.Error(t, err, "byte %d", i)
		_, err = decodeCheckpoint(p[:i])
		require.ErrorIs(t, err, errRecord, "cut at %d", i)
	}
	_, err := decodeCheckpoint(reversion(append([]byte{}, p...), 9))
	require.ErrorIs(t, err, errNewer)
}

func FuzzState(f *testing.F) {
	// No bytes make the decoder panic, and what it accepts it writes the same.
	h := &header{alg: digest.SHA256, ref: "ref", boot: "boot"}
	c := &checkpoint{alg: digest.SHA512, hash: []byte("state")}
	whole := make([]byte, stateSize)
	copy(whole, h.encode())
	copy(whole[headerSize:], c.encode())
	f.Add(whole)
	f.Add(h.encode())
	f.Add(c.encode())
	f.Add([]byte("Cing\x00\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, _ = decodeState(p)
		// A checksum that fits lets the fuzzer reach the payload.
		if len(p) > 12 {
			q := append([]byte{}, p...)
			binary.BigEndian.PutUint16(q[6:], uint16(len(q)-12))
			copy(q, headerMagic[:])
			_, _ = decodeState(reversion(q, stateVersion))
			copy(q, slotMagic[:])
			if c, err := decodeCheckpoint(reversion(q, stateVersion)); err == nil {
				back, err := decodeCheckpoint(c.encode())
				require.NoError(t, err)
				require.Equal(t, c, back)
			}
		}
	})
}
