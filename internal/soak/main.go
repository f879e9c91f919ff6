// Command soak runs a store under a mixed load while it collects in a tight
// loop, and then proves that nothing live was lost and nothing dead was kept.
//
//	go run -race ./internal/soak -for 60s
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
)

func main() {
	log.SetFlags(0)
	s := soak{}
	root := flag.String("root", "", "folder of the store, made anew; a temporary one by default")
	flag.DurationVar(&s.length, "for", time.Minute, "how long to run")
	flag.DurationVar(&s.grace, "grace", 3*time.Second, "the grace period")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "seed of all that is random")
	flag.Parse()
	dir, err := os.MkdirTemp(*root, "soak-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := s.run(dir); err != nil {
		log.Printf("FAIL after %v with seed %d: %v", s.length, s.seed, err)
		os.RemoveAll(dir) //nolint:errcheck // the failure is what counts
		os.Exit(1)
	}
}

// soak is one run.
type soak struct {
	length, grace time.Duration
	seed          uint64

	blobs  *local.Store
	db     *metadata.DB
	spaces []*space
	ledger ledger

	commits, reads, deletions, collections, collected atomic.Int64
}

// space is one namespace.
type space struct {
	name   string
	store  cellar.Store
	leases leases.Manager
}

// The load: how many of each kind of worker there are.
const (
	spaces        = 3
	leasedWriters = 8
	bareWriters   = 4
	readers       = 2
	deleters      = 2
	expirers      = 1
)

func (s *soak) run(dir string) (err error) {
	if err := s.open(dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.length)
	defer cancel()
	if err := s.load(ctx); err != nil {
		return err
	}
	if err := s.settle(context.Background()); err != nil {
		return err
	}
	log.Printf("ok: %d commits, %d reads, %d deletions, %d collections that removed %d records; %d records live, all verified; seed %d",
		s.commits.Load(), s.reads.Load(), s.deletions.Load(), s.collections.Load(), s.collected.Load(), s.ledger.size(), s.seed)
	if err := s.db.Close(); err != nil {
		return err
	}
	return s.blobs.Close()
}

func (s *soak) open(dir string) (err error) {
	if s.blobs, err = local.Open(dir, local.Options{}); err != nil {
		return err
	}
	s.db, err = metadata.Open(filepath.Join(dir, "metadata.db"), s.blobs, metadata.Options{Grace: s.grace})
	if err != nil {
		return err
	}
	for i := range spaces {
		sp := &space{name: fmt.Sprintf("tenant-%d", i)}
		if sp.store, err = s.db.Namespace(sp.name); err != nil {
			return err
		}
		if sp.leases, err = s.db.NamespaceLeases(sp.name); err != nil {
			return err
		}
		s.spaces = append(s.spaces, sp)
	}
	return nil
}

// load runs all workers until ctx ends or one of them fails.
func (s *soak) load(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	started := uint64(0)
	start := func(n int, work func(context.Context, *rand.Rand) error) {
		for range n {
			started++
			r := rand.New(rand.NewPCG(s.seed, started))
			workers.Go(func() {
				for ctx.Err() == nil {
					if err := work(ctx, r); err != nil && ctx.Err() == nil {
						stop(err)
					}
				}
			})
		}
	}
	start(leasedWriters, s.writeLeased)
	start(bareWriters, s.writeBare)
	start(readers, s.read)
	start(deleters, s.delete)
	start(expirers, s.expire)
	start(1, s.collect)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil && cause != context.DeadlineExceeded {
		return cause
	}
	return nil
}

func (s *soak) collect(ctx context.Context, _ *rand.Rand) error {
	stats, err := s.db.GarbageCollect(ctx)
	s.collections.Add(1)
	s.collected.Add(int64(stats.Records))
	return err
}

// settle waits until nothing but what the ledger has may be kept, collects, and
// compares the store with the ledger.
func (s *soak) settle(ctx context.Context) error {
	time.Sleep(s.grace + leaseTTL + time.Second)
	for range 2 {
		if _, err := s.db.GarbageCollect(ctx); err != nil {
			return err
		}
	}
	if findings, err := s.db.Check(ctx); err != nil || len(findings) > 0 {
		return fmt.Errorf("check: %v %w", findings, err)
	}
	return s.audit(ctx)
}
