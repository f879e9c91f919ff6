package cellar_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
)

// Two tenants store the same greeting: the bytes are kept once, each tenant
// sees what it wrote itself, and they go when both have deleted it.
func Example() {
	ctx, dir := context.Background(), must(os.MkdirTemp("", "cellar"))
	defer os.RemoveAll(dir)

	blobs := must(local.Open(dir, local.Options{}))
	defer blobs.Close()
	db := must(metadata.Open(filepath.Join(dir, "metadata.db"), blobs, metadata.Options{}))
	defer db.Close()
	alice, bob := must(db.Namespace("alice")), must(db.Namespace("bob"))

	hello := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	check(cellar.WriteBlob(ctx, alice, "greeting", strings.NewReader("hello"), hello))
	fmt.Printf("alice reads %s\n", must(cellar.ReadBlob(ctx, alice, hello)))
	fmt.Println("bob has it:", must(cellar.Exists(ctx, bob, hello)))

	check(cellar.WriteBlob(ctx, bob, "greeting", strings.NewReader("hello"), hello))
	for _, tenant := range []cellar.Store{alice, bob} {
		check(tenant.Delete(ctx, hello.Digest))
		fmt.Println("bytes reclaimed:", must(db.GarbageCollect(ctx)).Bytes)
	}

	// Output:
	// alice reads hello
	// bob has it: false
	// bytes reclaimed: 0
	// bytes reclaimed: 5
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
