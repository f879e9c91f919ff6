package schedule_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/gc"
	"github.com/cellarstore/cellar/gc/schedule"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
)

// open opens a store that keeps new content no longer than what refers to it.
func open() (db *metadata.DB, shut func()) {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	blobs, err := local.Open(root, local.Options{})
	if err != nil {
		log.Fatal(err)
	}
	db, err = metadata.Open(filepath.Join(root, "metadata.db"), blobs, metadata.Options{Grace: -1})
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		_ = db.Close()
		_ = blobs.Close()
		_ = os.RemoveAll(root)
	}
}

func ExampleRun() {
	db, shut := open()
	defer shut()

	ctx, cancel := context.WithCancel(context.Background())
	collections := make(chan gc.Stats)
	ended := make(chan error)
	go func() {
		ended <- schedule.Run(ctx, db, schedule.Policy{
			Budget:       0.05, // no more than three seconds a minute
			MinInterval:  10 * time.Second,
			StartupDelay: time.Millisecond,
			OnCollected: func(stats gc.Stats, err error) {
				if err != nil {
					log.Print(err) // it will be tried again
				}
				collections <- stats
			},
		})
	}()
	fmt.Println((<-collections).Blobs, "blobs of an earlier crash")

	cancel()
	fmt.Println(<-ended)
	// Output:
	// 0 blobs of an earlier crash
	// context canceled
}

func ExampleScheduler_Collect() {
	db, shut := open()
	defer shut()

	ctx, cancel := context.WithCancel(context.Background())
	scheduler := schedule.New(db, schedule.Policy{})
	ended := make(chan error)
	go func() { ended <- scheduler.Run(ctx) }()

	store, err := db.Namespace("tenant-a")
	if err != nil {
		log.Fatal(err)
	}
	const text = "nothing refers to this"
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	if err := cellar.WriteBlob(ctx, store, "upload", strings.NewReader(text), desc); err != nil {
		log.Fatal(err)
	}
	stats, err := scheduler.Collect(ctx)
	fmt.Println(stats.Records, "record and", stats.Bytes, "bytes removed:", err)

	cancel()
	<-ended // before the store is closed
	// Output:
	// 1 record and 22 bytes removed: <nil>
}
