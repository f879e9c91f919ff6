package metadata

import (
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/filters"
)

const (
	// walkPage is how many matches are gathered before they are handed out.
	walkPage = 256
	// walkScan is how many records one read transaction looks at, so that it
	// is short however few of them match.
	walkScan = 4096
)

// Walk implements [cellar.Manager]. It reads a page of records at a time and
// hands it out when the read transaction is over.
func (v *view) Walk(ctx context.Context, fn cellar.WalkFunc, fs ...string) error {
	filter, err := v.db.parseFilters(fs)
	if err != nil {
		return err
	}
	w := walk{v: v, filter: filter}
	for !w.done {
		if err := v.db.read(ctx, w.nextPage); err != nil {
			return err
		}
		for _, info := range w.page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseFilters parses filters whose ages are told by the database's clock.
func (db *DB) parseFilters(fs []string) (filters.Filter, error) {
	return filters.Parser{Now: db.opts.Now}.ParseAll(fs...)
}

// walk is where a Walk has got to.
type walk struct {
	v      *view
	filter filters.Filter
	last   []byte // the last key looked at, nil before the first
	page   []cellar.Info
	done   bool
}

// nextPage looks at further records until the page is full or it has looked at
// enough.
func (w *walk) nextPage(tx *bolt.Tx) error {
	w.page = w.page[:0]
	b := contentBucket(tx, w.v.ns)
	if b == nil {
		w.done = true
		return nil
	}
	cursor := b.Cursor()
	key, value := seekAfter(cursor, w.last)
	for scanned := 0; key != nil && len(w.page) < walkPage && scanned < walkScan; scanned++ {
		if err := w.look(key, value); err != nil {
			return err
		}
		w.last = append(w.last[:0], key...)
		key, value = cursor.Next()
	}
	w.done = key == nil
	return nil
}

func (w *walk) look(key, value []byte) error {
	dgst, err := parseDigestKey(key)
	if err != nil {
		return fmt.Errorf("content in %q: %w", w.v.ns, err)
	}
	record, err := decodeContent(value)
	if err != nil {
		return fmt.Errorf("record of %s in %q: %w", dgst, w.v.ns, err)
	}
	w.page = append(w.page, record.info(dgst))
	if last := len(w.page) - 1; !w.filter.Match(&w.page[last]) {
		w.page = w.page[:last]
	}
	return nil
}
