package metadata

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar/labels"
)

// What [DB.Check] finds of leases.
const (
	// FoundLease is a lease whose record can't be decoded, or that holds what
	// can't be; it protects what else it holds until it is deleted. Or it is what
	// a lease held of which there is no record.
	FoundLease FindingCode = "lease"
	// FoundExpiry is a lease whose label containerd.io/gc.expire is not a time,
	// so that it never ends. Renewing it mends that.
	FoundExpiry FindingCode = "expiry"
)

// leases checks the leases of a namespace and what they hold.
func (c *checker) leases(tx *bolt.Tx, ns string) error {
	records := namedBucket(tx, leasesPrefix, ns)
	if records != nil {
		err := records.ForEach(func(id, value []byte) error {
			c.lease(ns, string(id), value)
			return nil
		})
		if err != nil {
			return err
		}
	}
	held := namedBucket(tx, leasedPrefix, ns)
	if held == nil {
		return nil
	}
	return held.ForEachBucket(func(id []byte) error {
		if records == nil || records.Get(id) == nil {
			c.add(Finding{Code: FoundLease, Namespace: ns, Problem: fmt.Sprintf("resources of %q, which is not there", id)})
		}
		return held.Bucket(id).ForEach(func(key, _ []byte) error {
			if _, err := parseResource(key); err != nil {
				c.add(Finding{Code: FoundLease, Namespace: ns, Problem: fmt.Sprintf("%q: %v", id, err)})
			}
			return c.ctx.Err()
		})
	})
}

func (c *checker) lease(ns, id string, value []byte) {
	record, err := decodeLease(value)
	if err != nil {
		c.add(Finding{Code: FoundLease, Namespace: ns, Problem: fmt.Sprintf("record of %q: %v", id, err)})
		return
	}
	given, labelled := record.labels[labels.GCExpire]
	if labelled && record.expires.IsZero() {
		c.add(Finding{Code: FoundExpiry, Namespace: ns, Problem: fmt.Sprintf("%q expires at %q, which is no time", id, given)})
	}
}
