package metadata

import (
	"bytes"
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// FindingCode names a kind of damage.
type FindingCode string

// What [DB.Check] finds.
const (
	// FoundPage is damage that bolt sees in its own structures. The database
	// can't be relied on.
	FoundPage FindingCode = "page"
	// FoundRecord is a record that can't be decoded. Writing or deleting the
	// content mends it.
	FoundRecord FindingCode = "record"
	// FoundMissing is a record whose bytes are not there. Writing the content
	// again mends it.
	FoundMissing FindingCode = "missing"
	// FoundSize is a record whose bytes have another length. Writing the
	// content again mends it.
	FoundSize FindingCode = "size"
	// FoundHolders is a digest for which the number of namespaces that hold it
	// is wrong: too low endangers its bytes, too high keeps them for ever.
	FoundHolders FindingCode = "holders"
	// FoundStaged is an entry of the staged blobs that can't be decoded, or
	// whose bytes are not those of its digest.
	FoundStaged FindingCode = "staged"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Code FindingCode
	// Namespace and Digest say what it is about, where it is about one.
	Namespace string
	Digest    digest.Digest
	// Problem is for people.
	Problem string
}

func (f Finding) String() string {
	text := string(f.Code)
	if f.Digest != "" {
		text += " " + f.Digest.String()
	}
	if f.Namespace != "" {
		text += fmt.Sprintf(" in %q", f.Namespace)
	}
	return text + ": " + f.Problem
}

// Check looks for damage and changes nothing: bolt's own structures, every
// record, whether its bytes are there in the right length, and how many
// namespaces hold each digest. The bytes themselves are not read. Writers go
// on meanwhile; what they change is not mistaken for damage. The error says why
// the check could not be made, not that it found something.
func (db *DB) Check(ctx context.Context) ([]Finding, error) {
	c := &checker{db: db, ctx: ctx}
	if err := db.read(ctx, c.pages); err != nil {
		return nil, err
	}
	if len(c.findings) > 0 {
		return c.findings, nil // what lies on bad pages says nothing
	}
	if err := db.read(ctx, c.records); err != nil {
		return nil, err
	}
	return c.findings, c.blobs()
}

type checker struct {
	db       *DB
	ctx      context.Context
	findings []Finding
	suspects []Finding // records whose bytes have to be looked at again
}

func (c *checker) add(f Finding) { c.findings = append(c.findings, f) }

func (c *checker) pages(tx *bolt.Tx) error {
	problems, err := checkPages(c.ctx, c.db.file, c.db.metaOf(tx))
	for _, problem := range problems {
		c.add(Finding{Code: FoundPage, Problem: problem})
	}
	return err
}

// holding is where the check has got to in the records of one namespace.
type holding struct {
	ns         string
	cursor     *bolt.Cursor
	key, value []byte
}

// records goes through the records of all namespaces at once, digest by
// digest, beside the numbers of holders, which have the same order.
func (c *checker) records(tx *bolt.Tx) error {
	var all []*holding
	err := tx.Bucket(bucketNamespaces).ForEach(func(name, value []byte) error {
		ns := string(name)
		if _, err := decodeNamespace(value); err != nil {
			c.add(Finding{Code: FoundRecord, Namespace: ns, Problem: err.Error()})
		}
		if b := contentBucket(tx, ns); b != nil {
			h := &holding{ns: ns, cursor: b.Cursor()}
			h.key, h.value = h.cursor.First()
			all = append(all, h)
		}
		return c.leases(tx, ns)
	})
	if err != nil {
		return err
	}
	holders := tx.Bucket(bucketHolders).Cursor()
	counted, _ := holders.First()
	for key := least(all, counted); key != nil; key = least(all, counted) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		c.holders(tx, key, c.recordsOf(all, key))
		if bytes.Equal(counted, key) {
			counted, _ = holders.Next()
		}
	}
	return c.staged(tx)
}

// least returns the smallest key that is still to be looked at.
func least(all []*holding, counted []byte) []byte {
	smallest := counted
	for _, h := range all {
		if h.key != nil && (smallest == nil || bytes.Compare(h.key, smallest) < 0) {
			smallest = h.key
		}
	}
	return smallest
}

// recordsOf checks the records of one digest and returns how many there are.
func (c *checker) recordsOf(all []*holding, key []byte) (count uint64) {
	dgst, err := parseDigestKey(key)
	for _, h := range all {
		if !bytes.Equal(h.key, key) {
			continue
		}
		count++
		if err != nil {
			c.add(Finding{Code: FoundRecord, Namespace: h.ns, Problem: err.Error()})
		} else {
			c.record(h.ns, dgst, h.value)
		}
		h.key, h.value = h.cursor.Next()
	}
	return count
}

func (c *checker) record(ns string, dgst digest.Digest, value []byte) {
	record, err := decodeContent(value)
	if err != nil {
		c.add(Finding{Code: FoundRecord, Namespace: ns, Digest: dgst, Problem: err.Error()})
		return
	}
	switch blob, err := c.db.blobs.Info(c.ctx, dgst); {
	case err != nil:
		c.suspects = append(c.suspects, Finding{Code: FoundMissing, Namespace: ns, Digest: dgst, Problem: err.Error()})
	case blob.Size != record.size:
		c.suspects = append(c.suspects, Finding{Code: FoundSize, Namespace: ns, Digest: dgst,
			Problem: fmt.Sprintf("has %d bytes, the record says %d", blob.Size, record.size)})
	}
}

func (c *checker) holders(tx *bolt.Tx, key []byte, records uint64) {
	h, err := holdersOf(tx, key)
	if err == nil && h.count == records {
		return
	}
	dgst, _ := parseDigestKey(key)
	problem := fmt.Sprintf("%d namespaces hold it, %d are counted", records, h.count)
	if err != nil {
		problem = err.Error()
	}
	c.add(Finding{Code: FoundHolders, Digest: dgst, Problem: problem})
}

func (c *checker) staged(tx *bolt.Tx) error {
	return tx.Bucket(bucketStaged).ForEach(func(key, value []byte) error {
		if dgst, _, _, err := checkStaged(key, value); err != nil {
			c.add(Finding{Code: FoundStaged, Digest: dgst, Problem: err.Error()})
		}
		return nil
	})
}

// blobs looks again at records whose bytes were not right: they count only if
// the record is still there.
func (c *checker) blobs() error {
	for _, f := range c.suspects {
		v := &view{db: c.db, ns: f.Namespace}
		if sound, err := v.holds(c.ctx, f.Digest); err != nil {
			return err
		} else if sound {
			continue
		}
		if _, err := v.lookup(c.ctx, f.Digest); errdefs.IsNotFound(err) {
			continue
		}
		c.add(f)
	}
	return nil
}
