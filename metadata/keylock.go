package metadata

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// digestLocks gives each digest a lock of its own. A commit holds it shared
// from before the bytes are put in place until its transaction has returned;
// whoever removes bytes holds it exclusively.
//
// Taking it shared waits for an exclusive holder, who never waits for anything
// but the file system. Taking it exclusively never waits: a digest that is in
// use is none to be removed. So the locks can't be part of a deadlock.
type digestLocks struct {
	mu   sync.Mutex
	held map[digest.Digest]*digestLock
}

type digestLock struct {
	shared int
	freed  chan struct{} // non-nil while held exclusively
}

// share takes the lock of dgst shared and returns what releases it.
func (l *digestLocks) share(ctx context.Context, dgst digest.Digest) (func(), error) {
	for {
		l.mu.Lock()
		lock := l.held[dgst]
		if lock == nil {
			lock = &digestLock{}
			if l.held == nil {
				l.held = map[digest.Digest]*digestLock{}
			}
			l.held[dgst] = lock
		}
		if lock.freed == nil {
			lock.shared++
			l.mu.Unlock()
			return func() { l.unshare(dgst, lock) }, nil
		}
		l.mu.Unlock()
		select {
		case <-lock.freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *digestLocks) unshare(dgst digest.Digest, lock *digestLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lock.shared--; lock.shared == 0 {
		delete(l.held, dgst)
	}
}

// tryExclude takes the lock of dgst exclusively, unless somebody holds it.
func (l *digestLocks) tryExclude(dgst digest.Digest) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[dgst] != nil {
		return nil, false
	}
	if l.held == nil {
		l.held = map[digest.Digest]*digestLock{}
	}
	lock := &digestLock{freed: make(chan struct{})}
	l.held[dgst] = lock
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, dgst)
		close(lock.freed)
	}, true
}
