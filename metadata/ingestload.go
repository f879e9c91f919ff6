package metadata

import (
	"context"

	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
)

// loadIngests makes the table when the database is opened.
func (db *DB) loadIngests(ctx context.Context) error {
	records, err := db.ingestRecords(ctx)
	if err != nil {
		return err
	}
	stored, err := db.blobs.ListStatuses(ctx)
	if err != nil {
		return err
	}
	entries := map[ingestKey]*ingest{}
	byRawRef := map[string]ingestKey{}
	for key := range records {
		byRawRef[key.rawRef()] = key
	}
	for _, status := range stored {
		key, ok := byRawRef[status.Ref]
		if !ok {
			if key, ok = parseRawRef(status.Ref); !ok {
				continue // not ours; a collection removes it when it is old
			}
		}
		entries[key] = db.resumed(key, records[key], status)
	}
	db.ingests.entries = entries
	for key, record := range records {
		if record.borrowed == "" {
			continue // without bytes nothing was left but a record
		}
		e := entries[key]
		if e == nil {
			e = &ingest{key: key, record: *record}
			e.record.borrowed = ""
			entries[key] = e
		}
		db.ingests.borrow(e, record.borrowed)
	}
	return nil
}

// resumed is the entry of an ingestion that the raw store has.
func (db *DB) resumed(key ingestKey, record *ingestRecord, status cellar.Status) *ingest {
	e := &ingest{key: key, stored: true, offset: status.Offset}
	if record == nil {
		e.record = ingestRecord{open: true, started: status.StartedAt, total: max(status.Total, 0), expected: status.Expected}
	} else {
		e.record = *record
		e.record.borrowed = ""
	}
	if e.record.open {
		e.record.updated = status.UpdatedAt
		if record == nil || !record.expires.IsZero() { // otherwise it is only leased
			e.record.expires = db.now().Add(db.opts.IngestExpiry)
		}
	}
	return e
}

// ingestRecords reads all stored records. A damaged one is left out: its
// ingestion goes on with what the raw store knows.
func (db *DB) ingestRecords(ctx context.Context) (map[ingestKey]*ingestRecord, error) {
	records := map[ingestKey]*ingestRecord{}
	err := db.read(ctx, func(tx *bolt.Tx) error {
		return tx.Bucket(bucketNamespaces).ForEach(func(name, _ []byte) error {
			b := ingestsBucket(tx, string(name))
			if b == nil {
				return nil
			}
			return b.ForEach(func(ref, value []byte) error {
				key := ingestKey{string(name), string(ref)}
				record, err := decodeIngest(value)
				if err != nil {
					db.log.Warn("ingest record", "namespace", key.ns, "ref", key.ref, "error", err)
					return nil
				}
				records[key] = &record
				return nil
			})
		})
	})
	return records, err
}
