package metadata

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// usedContent remembers who was told that content exists. Whoever got that
// answer relies on it as if the content had just been written, and has the same
// grace. It is kept in memory: the answer waits for no flush, and a crash ends
// the caller's work as well.
type usedContent struct {
	mu sync.Mutex
	at map[string]map[digestKey]time.Time
	// limit is the number of entries at which those that are over are dropped.
	count, limit int
}

// usedLimit is how many answers are remembered before the old ones are looked
// through.
const usedLimit = 1 << 14

func (u *usedContent) note(ns string, key digestKey, now time.Time, grace time.Duration) {
	if grace <= 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at, u.limit = map[string]map[digestKey]time.Time{}, usedLimit
	}
	if u.count >= u.limit {
		u.pruneLocked(now, grace)
		u.limit = max(usedLimit, 2*u.count)
	}
	if u.at[ns] == nil {
		u.at[ns] = map[digestKey]time.Time{}
	}
	if _, again := u.at[ns][key]; !again {
		u.count++
	}
	u.at[ns][key] = now
}

func (u *usedContent) pruneLocked(now time.Time, grace time.Duration) {
	for ns, keys := range u.at {
		for key, at := range keys {
			if !now.Before(at.Add(grace)) {
				delete(keys, key)
				u.count--
			}
		}
		if len(keys) == 0 {
			delete(u.at, ns)
		}
	}
}

// in returns the content of a namespace that is in use, and when the first of
// that no longer is.
func (u *usedContent) in(ns string, now time.Time, grace time.Duration) (keys []digestKey, next time.Time) {
	if grace <= 0 {
		return nil, time.Time{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, at := range u.at[ns] {
		if end := at.Add(grace); now.Before(end) {
			keys = append(keys, key)
			next = earliest(next, end)
		}
	}
	return keys, next
}

// rely answers whether the namespace has dgst, in such a way that the caller
// may rely on it: it is durable, it is kept for the grace period, and no
// collection is about to remove it. The answer is noted before the last look,
// so that a collection which is not over by then knows of it.
func (v *view) rely(ctx context.Context, dgst digest.Digest) (bool, error) {
	key, err := keyOf(dgst)
	if err != nil {
		return false, err
	}
	if sound, err := v.holds(ctx, dgst); err != nil || !sound {
		return false, err
	}
	v.use(key)
	if v.db.barrier.note(v.ns, key) && transactionFrom(ctx, v.db) == nil {
		// A collection runs. Its next transaction will see the note; one that
		// is under way may not have.
		if err := v.db.awaitTransaction(ctx); err != nil {
			return false, err
		}
	}
	return v.holds(ctx, dgst)
}

// use gives content that a caller was told of the grace of new content.
func (v *view) use(key digestKey) {
	grace := v.db.opts.Grace
	if grace <= 0 {
		return
	}
	now := v.db.now()
	v.db.used.note(v.ns, key, now, grace)
	v.db.expiry.advance(now.Add(grace))
}
