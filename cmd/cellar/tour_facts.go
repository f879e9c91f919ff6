package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/cmd/cellar/internal/layout"
	"github.com/cellarstore/cellar/labels"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// amount is how much of something there is.
type amount struct {
	blobs int
	bytes int64
}

// pool is what the store's folder of bytes holds, seen from outside.
type pool struct {
	files []string // algorithm/hex, sorted
	bytes int64
}

func (p pool) amount() amount    { return amount{len(p.files), p.bytes} }
func (p pool) equal(q pool) bool { return slices.Equal(p.files, q.files) && p.bytes == q.bytes }
func (p pool) minus(q pool) amount {
	return amount{len(p.files) - len(q.files), p.bytes - q.bytes}
}

// blobs is the store's folder of bytes.
func (g *guide) blobs() fs.FS { return os.DirFS(path.Join(g.root, "blobs")) }

// disk lists the files of the pool.
func (g *guide) disk() (pool, error) {
	var p pool
	err := fs.WalkDir(g.blobs(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		p.files = append(p.files, name)
		p.bytes += info.Size()
		return nil
	})
	return p, err
}

// damaged counts the files whose bytes are not what their name says.
func (g *guide) damaged(p pool) (int, error) {
	damaged := 0
	for _, name := range p.files {
		content, err := fs.ReadFile(g.blobs(), name)
		if err != nil {
			return 0, err
		}
		alg, hex := path.Split(name)
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(path.Clean(alg)), hex)
		if dgst.Validate() != nil || dgst.Algorithm().FromBytes(content) != dgst {
			damaged++
		}
	}
	return damaged, nil
}

// usage sums up what a tenant sees.
func usage(ctx context.Context, store cellar.Manager) (amount, error) {
	var sum amount
	err := store.Walk(ctx, func(info cellar.Info) error {
		sum.blobs++
		sum.bytes += info.Size
		return nil
	})
	return sum, err
}

// digestsIn lists what a tenant sees, sorted.
func digestsIn(ctx context.Context, store cellar.Manager, filters ...string) ([]digest.Digest, error) {
	var found []digest.Digest
	err := store.Walk(ctx, func(info cellar.Info) error {
		found = append(found, info.Digest)
		return nil
	}, filters...)
	slices.Sort(found)
	return found, err
}

// references counts the collector's labels by their kind: "root", and "m",
// "config" and "l" for references.
func references(ctx context.Context, store cellar.Manager) (map[string]int, error) {
	counts := map[string]int{}
	err := store.Walk(ctx, func(info cellar.Info) error {
		for key := range info.Labels {
			if key == labels.GCRoot {
				counts["root"]++
			} else if suffix, ok := strings.CutPrefix(key, labels.GCRefContent+"."); ok {
				kind, _, _ := strings.Cut(suffix, ".")
				counts[kind]++
			}
		}
		return nil
	})
	return counts, err
}

// kind names a media type in a word.
func kind(mediaType string) string {
	switch mediaType {
	case ocispec.MediaTypeImageIndex:
		return "index"
	case ocispec.MediaTypeImageManifest:
		return "manifest"
	case ocispec.MediaTypeImageConfig:
		return "config"
	case ocispec.MediaTypeImageLayer:
		return "layer"
	}
	return "blob"
}

// kinds counts nodes by their kind, in words.
func kinds(nodes []layout.Node) string {
	counts := map[string]int{}
	for _, node := range nodes {
		counts[kind(node.MediaType)]++
	}
	return fmt.Sprintf("%d index, %d manifests, %d configs, %d layers", counts["index"], counts["manifest"], counts["config"], counts["layer"])
}
