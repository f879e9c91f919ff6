package metadata

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// schemaVersion is written into every database. A database of a higher
// version is refused; one of a lower version would be migrated here.
const schemaVersion = 1

// The buckets of the database. Those of records lie at the top level, so that
// finding one takes one descent for its bucket and one for its key.
//
//	meta                       version -> uvarint
//	namespaces   <name>        -> namespace record
//	lenders      <name>        -> nothing; the namespaces that lend their content
//	content/<ns> <digest key>  -> content record
//	ingests/<ns> <ref>         -> ingest record
//	leases/<ns>  <id>          -> lease record
//	leased/<ns>  <id>          -> bucket of what the lease holds; it is there if it
//	                              ever held anything
//	             <resource>    -> nothing; see resourceKey
//	holders      <digest key>  -> how many namespaces hold the digest, and its size
//	unheld       <digest key>  -> nothing; blobs that lost their last holder
//	staged       <digest key>  -> uvarint sequence, then the bytes of the blob
//
// A digest key is one byte for the algorithm and then the raw hash.
var (
	bucketMeta       = []byte("meta")
	bucketNamespaces = []byte("namespaces")
	bucketLenders    = []byte("lenders")
	bucketHolders    = []byte("holders")
	bucketUnheld     = []byte("unheld")
	bucketStaged     = []byte("staged")

	keyVersion = []byte("version")
)

var fixedBuckets = [][]byte{bucketMeta, bucketNamespaces, bucketLenders, bucketHolders, bucketUnheld, bucketStaged}

const (
	contentPrefix = "content/"
	ingestsPrefix = "ingests/"
	leasesPrefix  = "leases/"
	leasedPrefix  = "leased/"
)

func contentBucket(tx *bolt.Tx, ns string) *bolt.Bucket {
	return namedBucket(tx, contentPrefix, ns)
}

func ingestsBucket(tx *bolt.Tx, ns string) *bolt.Bucket {
	return namedBucket(tx, ingestsPrefix, ns)
}

func namedBucket(tx *bolt.Tx, prefix, ns string) *bolt.Bucket {
	var buf [96]byte
	return tx.Bucket(append(append(buf[:0], prefix...), ns...))
}

// algorithms in the order of their codes, which is the order of their names:
// keys sort as the digests' strings do.
var algorithms = [...]digest.Algorithm{1: digest.SHA256, 2: digest.SHA384, 3: digest.SHA512}

// maxKeySize is the length of the key of a sha512 digest.
const maxKeySize = 1 + 64

// digestKey is the key of a digest, by value so that making one costs no
// allocation.
type digestKey struct {
	buf [maxKeySize]byte
	len uint8
}

// bytes returns the key. It is valid as long as k is.
func (k *digestKey) bytes() []byte { return k.buf[:k.len] }

// set makes k the key that b is.
func (k *digestKey) set(b []byte) {
	k.len = uint8(copy(k.buf[:], b))
}

// newDigestKey returns the key of a valid digest.
func newDigestKey(dgst digest.Digest) (digestKey, error) {
	alg, enc, _ := strings.Cut(string(dgst), ":")
	for code := 1; code < len(algorithms); code++ {
		if alg != string(algorithms[code]) || len(enc) != 2*algorithms[code].Size() {
			continue
		}
		k := digestKey{len: uint8(1 + len(enc)/2)}
		k.buf[0] = byte(code)
		if !decodeHex(k.buf[1:], enc) {
			break
		}
		return k, nil
	}
	return digestKey{}, fmt.Errorf("digest %s has no key: %w", cellar.Shorten(dgst.String()), errdefs.ErrInvalidArgument)
}

// decodeHex decodes lower-case hexadecimal: upper case would be a second name
// for the same digest.
func decodeHex(dst []byte, enc string) bool {
	for i := 0; i < len(enc); i += 2 {
		hi, lo := nibble(enc[i]), nibble(enc[i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i/2] = hi<<4 | lo
	}
	return true
}

// nibble returns the value of a hexadecimal digit, 255 if c is none.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// parseDigestKey returns the digest of a key that was read from the database.
func parseDigestKey(key []byte) (digest.Digest, error) {
	alg, ok := algorithmOf(key)
	if !ok {
		return "", fmt.Errorf("digest key %x: %w", key, errdefs.ErrDataLoss)
	}
	var buf [len("sha512:") + 128]byte
	out := append(append(buf[:0], alg...), ':')
	return digest.Digest(hex.AppendEncode(out, key[1:])), nil
}

// algorithmOf returns the algorithm of a digest key, and whether it is one.
func algorithmOf(key []byte) (digest.Algorithm, bool) {
	if len(key) == 0 || key[0] == 0 || int(key[0]) >= len(algorithms) {
		return "", false
	}
	alg := algorithms[key[0]]
	return alg, len(key) == 1+alg.Size()
}
