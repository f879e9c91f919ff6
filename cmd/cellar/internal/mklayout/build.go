package main

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // the digests' algorithm
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// refName is the name that index.json gives to the image.
const refName = "cellar-source"

// build writes the layout of s into the folder out.
func build(s snapshot, out string) error {
	b := &builder{out: out}
	licence := b.layer(s.licence)
	sources := b.layer(s.sources)
	tests := b.layer(s.tests)
	index := b.document(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{
			b.image("sources", licence, sources),
			b.image("sources and tests", licence, sources, tests),
		},
	})
	index.Annotations = map[string]string{ocispec.AnnotationRefName: refName}
	b.file(ocispec.ImageLayoutFile, b.encode(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}))
	b.file(ocispec.ImageIndexFile, b.encode(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{index},
	}))
	return b.err
}

// builder writes files below out until one fails.
type builder struct {
	out string
	err error
}

// image adds a config and a manifest, and describes the manifest.
func (b *builder) image(title string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	config := ocispec.Image{
		Platform: platform,
		Config:   ocispec.ImageConfig{Labels: map[string]string{ocispec.AnnotationTitle: title}},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	}
	manifest := b.document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    b.document(ocispec.MediaTypeImageConfig, config),
		Layers:    layers,
	})
	manifest.Platform = &platform
	manifest.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	return manifest
}

// layer adds a tar of files: their names and bytes, and nothing that differs
// from one machine to another.
func (b *builder) layer(files []file) ocispec.Descriptor {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: 0o644, Format: tar.FormatUSTAR}
		b.keep(w.WriteHeader(header))
		_, err := w.Write(f.content)
		b.keep(err)
	}
	b.keep(w.Close())
	return b.blob(ocispec.MediaTypeImageLayer, buf.Bytes())
}

func (b *builder) document(mediaType string, v any) ocispec.Descriptor {
	return b.blob(mediaType, b.encode(v))
}

// blob adds content under its digest.
func (b *builder) blob(mediaType string, content []byte) ocispec.Descriptor {
	dgst := digest.FromBytes(content)
	b.file(filepath.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded()), content)
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(content))}
}

func (b *builder) file(name string, content []byte) {
	target := filepath.Join(b.out, name)
	b.keep(os.MkdirAll(filepath.Dir(target), 0o755))
	b.keep(os.WriteFile(target, content, 0o644))
}

// keep remembers the first error.
func (b *builder) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

// encode returns v as JSON.
func (b *builder) encode(v any) []byte {
	content, err := json.Marshal(v)
	b.keep(err)
	return content
}
