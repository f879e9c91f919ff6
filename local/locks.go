package local

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar/internal/vfs"
)

// keyLocks is a lock for each digest that somebody works on.
type keyLocks struct {
	mu   sync.Mutex
	held map[digest.Digest]chan struct{} // closed when given back
}

// lock waits for the lock of dgst, or for the end of ctx. The result gives it
// back.
func (k *keyLocks) lock(ctx context.Context, dgst digest.Digest) (unlock func(), err error) {
	for {
		k.mu.Lock()
		freed := k.held[dgst]
		if freed == nil {
			if k.held == nil {
				k.held = map[digest.Digest]chan struct{}{}
			}
			freed = make(chan struct{})
			k.held[dgst] = freed
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, dgst)
				k.mu.Unlock()
				close(freed)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// syncGroup shares a sync among those who wait for it: one that begins after a
// call of do began serves that call. Nobody waits for company.
type syncGroup struct {
	sync func() error

	mu   sync.Mutex
	next *syncBatch // gathers those that the next sync serves
	lead sync.Mutex // held by who syncs
}

type syncBatch struct {
	done bool // guarded by lead
	err  error
}

func (g *syncGroup) do() error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &syncBatch{}
	}
	batch := g.next
	g.mu.Unlock()

	g.lead.Lock()
	defer g.lead.Unlock()
	if batch.done {
		return batch.err
	}
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	batch.err = g.sync()
	batch.done = true
	return batch.err
}

// trustTable remembers the files that this process made durable content, by
// what changes when anybody touches them.
type trustTable struct {
	mu    sync.Mutex
	files map[digest.Digest]stamp
}

type stamp struct {
	inode uint64
	size  int64
	ctime int64
}

func stampOf(info vfs.Info) stamp {
	return stamp{inode: info.Inode, size: info.Size, ctime: info.ChangeTime.UnixNano()}
}

// maxTrusted bounds the table. What falls out is merely written again when it
// comes again.
const maxTrusted = 1 << 14

func (t *trustTable) add(dgst digest.Digest, info vfs.Info) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.files == nil {
		t.files = map[digest.Digest]stamp{}
	}
	for victim := range t.files {
		if len(t.files) < maxTrusted {
			break
		}
		delete(t.files, victim)
	}
	t.files[dgst] = stampOf(info)
}

func (t *trustTable) drop(dgst digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.files, dgst)
}

func (t *trustTable) has(dgst digest.Digest, info vfs.Info) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.files[dgst]
	return ok && known == stampOf(info)
}

// journal holds the digests that Committed has not told yet.
type journal struct {
	mu  sync.Mutex
	new map[digest.Digest]struct{}
}

func (j *journal) add(dgst digest.Digest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.new == nil {
		j.new = map[digest.Digest]struct{}{}
	}
	j.new[dgst] = struct{}{}
}

func (j *journal) drop(dgst digest.Digest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.new, dgst)
}

// take returns what was added since the last call.
func (j *journal) take() []digest.Digest {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []digest.Digest
	for dgst := range j.new {
		out = append(out, dgst)
	}
	j.new = nil
	return out
}
