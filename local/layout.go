package local

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
)

const (
	blobsName  = "blobs"
	ingestName = "ingest"
	dataName   = "data"
	stateName  = "state"
	tempPrefix = ".place-"

	dirMode  = 0o700
	openMode = 0o600 // data that is being written
	blobMode = 0o400
)

// algorithms are those that content is hashed with, in the order of the
// digests as strings.
var algorithms = []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}

func (s *Store) blobsPath() string   { return filepath.Join(s.root, blobsName) }
func (s *Store) ingestsPath() string { return filepath.Join(s.root, ingestName) }

func (s *Store) algPath(alg digest.Algorithm) string {
	return filepath.Join(s.root, blobsName, string(alg))
}

// blobPath is where a valid digest has its content.
func (s *Store) blobPath(dgst digest.Digest) string {
	return s.root + "/" + blobsName + "/" + string(dgst.Algorithm()) + "/" + dgst.Encoded()
}

func (s *Store) ingestPath(ref string) string {
	return filepath.Join(s.root, ingestName, ingestKey(ref))
}

func (s *Store) tempPath() string {
	return filepath.Join(s.root, ingestName, tempPrefix+strconv.FormatUint(s.temps.Add(1), 10))
}

// ingestKey is the name of ref's folder. Refs are arbitrary, so that they are
// no names themselves.
func ingestKey(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return hex.EncodeToString(sum[:])
}

// isHex reports whether name is n characters of lower case hex.
func isHex(name string, n int) bool {
	if len(name) != n {
		return false
	}
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isBlobName reports whether a file called name can be content of alg.
func isBlobName(alg digest.Algorithm, name string) bool { return isHex(name, alg.Size()*2) }
