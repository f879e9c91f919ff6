package metadata

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// leaseRecord is what is kept of a lease beside its resources: version,
// created, expires as a varint of seconds since 1970 and a uvarint of
// nanoseconds (an expiry may lie further away than 8 bytes of nanoseconds
// reach), labels, CRC.
//
// The labels have an expiry only as the text that a caller gave; what is shown
// is made from expires.
type leaseRecord struct {
	created time.Time
	expires time.Time
	labels  map[string]string
}

func (r *leaseRecord) encode() []byte {
	b := make([]byte, 0, 32+labelsSize(r.labels))
	b = appendTime(append(b, recordVersion), r.created)
	b = binary.AppendVarint(b, r.expires.Unix())
	b = binary.AppendUvarint(b, uint64(r.expires.Nanosecond()))
	return seal(appendLabels(b, r.labels))
}

func decodeLease(b []byte) (leaseRecord, error) {
	d, err := unseal(b)
	if err != nil {
		return leaseRecord{}, err
	}
	r := leaseRecord{created: d.time()}
	seconds, nanoseconds := d.varint(), d.size()
	r.expires = time.Unix(seconds, nanoseconds).UTC()
	r.labels = d.labels()
	return r, d.finish()
}

// expired reports whether the lease keeps nothing any more, and goes with the
// next collection.
func (r *leaseRecord) expired(now time.Time) bool {
	return leases.Lease{ExpiresAt: r.expires}.Expired(now)
}

// gone reports whether the lease is none any more to callers, which is so from
// the moment it expires. One that was created with a label whose time was over
// already never had such a moment: as in containerd it is there until the next
// collection, though it keeps nothing from that.
func (r *leaseRecord) gone(now time.Time) bool {
	_, labelled := r.labels[labels.GCExpire]
	overdue := labelled && r.expires.Before(r.created)
	return r.expired(now) && !overdue
}

// lease is the record as a caller sees it, who may keep it.
func (r *leaseRecord) lease(id string) leases.Lease {
	l := leases.Lease{ID: id, CreatedAt: r.created, ExpiresAt: r.expires, Labels: maps.Clone(r.labels)}
	if _, given := l.Labels[labels.GCExpire]; given || r.expires.IsZero() {
		return l
	}
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}
	l.Labels[labels.GCExpire] = labels.FormatExpiry(r.expires)
	return l
}

// renew makes expires the only expiry that the record speaks of.
func (r *leaseRecord) renew(expires time.Time) {
	r.expires = expires.UTC().Round(0)
	r.labels = maps.Clone(r.labels)
	if delete(r.labels, labels.GCExpire); len(r.labels) == 0 {
		r.labels = nil
	}
}

// leaseOf reads the record of a lease. One that has expired is not there.
func leaseOf(tx *bolt.Tx, ns, id string, now time.Time) (leaseRecord, error) {
	var value []byte
	if b := namedBucket(tx, leasesPrefix, ns); b != nil {
		value = b.Get([]byte(id))
	}
	if value == nil {
		return leaseRecord{}, errNoLease(ns, id)
	}
	record, err := decodeLease(value)
	if err != nil {
		return leaseRecord{}, fmt.Errorf("record of lease %q in %q: %w", id, ns, err)
	}
	if record.gone(now) {
		return leaseRecord{}, errNoLease(ns, id)
	}
	return record, nil
}

func errNoLease(ns, id string) error {
	if len(id) > leases.MaxIDLength {
		id = id[:leases.MaxIDLength]
	}
	return fmt.Errorf("lease %q in %q: %w", id, ns, errdefs.ErrNotFound)
}

// The first byte of the key of a resource is its type, in the order of the
// types' names. A digest key follows for content, the id for images and
// ingestions, and for snapshots name, zero byte and id.
const (
	resourceContent  = 1
	resourceImage    = 2
	resourceIngest   = 3
	resourceSnapshot = 4
)

// resourceKey returns the key of a resource that comes from a caller.
func resourceKey(r leases.Resource) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	switch r.Type {
	case leases.Content:
		key, err := keyOf(digest.Digest(r.ID))
		return contentResource(key), err
	case leases.Images:
		return append([]byte{resourceImage}, r.ID...), nil
	case leases.Ingests:
		return ingestResource(r.ID), nil
	}
	name := strings.TrimPrefix(r.Type, leases.Snapshots+"/")
	return append([]byte{resourceSnapshot}, name+"\x00"+r.ID...), nil
}

func contentResource(key digestKey) []byte { return append([]byte{resourceContent}, key.bytes()...) }

func ingestResource(ref string) []byte { return append([]byte{resourceIngest}, ref...) }

// parseResource returns the resource of a key that was read from the database.
func parseResource(key []byte) (leases.Resource, error) {
	if len(key) < 2 {
		return leases.Resource{}, errResource(key)
	}
	rest := string(key[1:])
	switch key[0] {
	case resourceContent:
		dgst, err := parseDigestKey(key[1:])
		return leases.Resource{Type: leases.Content, ID: dgst.String()}, err
	case resourceImage:
		return leases.Resource{Type: leases.Images, ID: rest}, nil
	case resourceIngest:
		return leases.Resource{Type: leases.Ingests, ID: rest}, nil
	case resourceSnapshot:
		if name, id, ok := strings.Cut(rest, "\x00"); ok {
			return leases.Resource{Type: leases.Snapshots + "/" + name, ID: id}, nil
		}
	}
	return leases.Resource{}, errResource(key)
}

func errResource(key []byte) error {
	return fmt.Errorf("lease resource %.64x: %w", key, errdefs.ErrDataLoss)
}

// leasedBucket has the resources of a lease, nil if it holds nothing.
func leasedBucket(tx *bolt.Tx, ns, id string) *bolt.Bucket {
	all := namedBucket(tx, leasedPrefix, ns)
	if all == nil || id == "" {
		return nil
	}
	return all.Bucket([]byte(id))
}

// addLeased makes a lease hold the resource of key.
func addLeased(tx *bolt.Tx, ns, id string, key []byte) error {
	all, err := tx.CreateBucketIfNotExists([]byte(leasedPrefix + ns))
	if err != nil {
		return err
	}
	held, err := all.CreateBucketIfNotExists([]byte(id))
	if err != nil {
		return err
	}
	return held.Put(key, nil)
}

// dropLeased makes a lease hold the resource of key no longer. Neither has to
// be there.
func dropLeased(tx *bolt.Tx, ns, id string, key []byte) error {
	held := leasedBucket(tx, ns, id)
	if held == nil {
		return nil
	}
	return held.Delete(key)
}

// dropLease removes all that there is of a lease.
func dropLease(tx *bolt.Tx, ns, id string) error {
	if leasedBucket(tx, ns, id) != nil {
		if err := namedBucket(tx, leasedPrefix, ns).DeleteBucket([]byte(id)); err != nil {
			return err
		}
	}
	b := namedBucket(tx, leasesPrefix, ns)
	if b == nil {
		return nil
	}
	return b.Delete([]byte(id))
}

// liveLeases calls fn for every lease of ns that has not expired. One whose
// record is damaged is taken for such, so that nothing it may hold is lost.
func liveLeases(tx *bolt.Tx, ns string, now time.Time, fn func(id string, flat bool) error) error {
	b := namedBucket(tx, leasesPrefix, ns)
	if b == nil {
		return nil
	}
	return b.ForEach(func(id, value []byte) error {
		record, err := decodeLease(value)
		if err == nil && record.expired(now) {
			return nil
		}
		_, flat := record.labels[labels.GCFlat]
		return fn(string(id), flat)
	})
}

// leasedKeys calls yield for what a lease holds of one type, with the key that
// follows the type.
func leasedKeys(tx *bolt.Tx, ns, id string, kind byte, yield func(key []byte)) {
	held := leasedBucket(tx, ns, id)
	if held == nil {
		return
	}
	cursor := held.Cursor()
	for key, _ := cursor.Seek([]byte{kind}); len(key) > 0 && key[0] == kind; key, _ = cursor.Next() {
		yield(key[1:])
	}
}

// leasedContent calls yield with the digest key of everything that a live lease
// of ns holds, once for each lease that does, and whether that lease keeps it
// by itself, without what it refers to. The content need not be there. The key
// is valid during the call.
func leasedContent(tx *bolt.Tx, ns string, now time.Time, yield func(key []byte, flat bool)) error {
	return liveLeases(tx, ns, now, func(id string, flat bool) error {
		leasedKeys(tx, ns, id, resourceContent, func(key []byte) { yield(key, flat) })
		return nil
	})
}

// leasedIngests returns the refs that a live lease of ns holds. A writer that is
// opened under a lease has its ref recorded in the background: ingestions that
// are to be removed for not being in here must have been listed, without a
// writer, before a flush of the queue that came before tx.
func leasedIngests(tx *bolt.Tx, ns string, now time.Time) (map[string]bool, error) {
	refs := map[string]bool{}
	err := liveLeases(tx, ns, now, func(id string, _ bool) error {
		leasedKeys(tx, ns, id, resourceIngest, func(ref []byte) { refs[string(ref)] = true })
		return nil
	})
	return refs, err
}

// What one transaction does to leases that are over: how many it looks at, and
// how many it deletes.
const (
	leaseScan = 4096
	leaseDrop = 128
)

// dropExpiredLeases deletes leases of ns that have expired, some of those whose
// ids come after a given one, from the first if that is nil. It returns how many
// it has deleted, and where to go on, nil if that is not necessary.
func dropExpiredLeases(tx *bolt.Tx, ns string, now time.Time, after []byte) (dropped int, next []byte, err error) {
	b := namedBucket(tx, leasesPrefix, ns)
	if b == nil {
		return 0, nil, nil
	}
	var over []string
	cursor := b.Cursor()
	id, value := seekAfter(cursor, after)
	for scanned := 0; id != nil; id, value = cursor.Next() {
		if record, err := decodeLease(value); err == nil && record.expired(now) {
			over = append(over, string(id))
		}
		if scanned++; scanned == leaseScan || len(over) == leaseDrop {
			next = append([]byte(nil), id...)
			break
		}
	}
	for _, id := range over {
		if err := dropLease(tx, ns, id); err != nil {
			return 0, nil, err
		}
	}
	return len(over), next, nil
}

// leaseExpiry returns when the first lease of ns expires that has not yet, zero
// if none does, and whether there are some that have.
func leaseExpiry(tx *bolt.Tx, ns string, now time.Time) (next time.Time, over bool, err error) {
	b := namedBucket(tx, leasesPrefix, ns)
	if b == nil {
		return time.Time{}, false, nil
	}
	err = b.ForEach(func(_, value []byte) error {
		switch record, err := decodeLease(value); {
		case err != nil: // never expires
		case record.expired(now):
			over = true
		default:
			next = earliest(next, record.expires)
		}
		return nil
	})
	return next, over, err
}
