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
	// swept has the digests whose bytes a collection has removed and that
	// nobody has taken since. Only those may leave the collection's queue.
	swept map[digest.Digest]struct{}
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
			delete(l.swept, dgst)
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

// inUse reports whether anybody holds the lock of dgst.
func (l *digestLocks) inUse(dgst digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[dgst] != nil
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

// markSwept notes that the bytes of dgst are gone. The caller holds its lock
// exclusively.
func (l *digestLocks) markSwept(dgst digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.swept == nil {
		l.swept = map[digest.Digest]struct{}{}
	}
	l.swept[dgst] = struct{}{}
}

// isSwept reports whether nobody has taken dgst since its bytes were removed.
func (l *digestLocks) isSwept(dgst digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, swept := l.swept[dgst]
	return swept
}

func (l *digestLocks) forgetSwept(dgsts []digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, dgst := range dgsts {
		delete(l.swept, dgst)
	}
}
