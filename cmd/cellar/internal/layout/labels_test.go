package layout_test

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	"github.com/cellarstore/cellar/cmd/cellar/internal/layout"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// Labels are numbered by kind, and types of both formats, known or not, have one.
func TestLabelsByMediaType(t *testing.T) {
	fsys := fstest.MapFS{ocispec.ImageLayoutFile: {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	add := func(mediaType string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		fsys[blobName(desc)] = &fstest.MapFile{Data: content}
		return desc
	}
	encoded := func(v any) []byte {
		content, err := json.Marshal(v)
		require.NoError(t, err)
		return content
	}
	config := add("application/vnd.docker.container.image.v1+json", []byte("config"))
	gzipped := add("application/vnd.docker.image.rootfs.diff.tar.gzip", []byte("gzip"))
	unknown := add("application/x-chart", []byte("chart"))
	zstd := add(ocispec.MediaTypeImageLayerZstd, []byte("zstd"))
	second := add(ocispec.MediaTypeImageConfig, []byte("second config"))
	empty := add("", nil)
	manifest := add("application/vnd.docker.distribution.manifest.v2+json", encoded(ocispec.Manifest{
		Config: config,
		Layers: []ocispec.Descriptor{gzipped, unknown, zstd, second, empty, gzipped},
	}))
	list := add("application/vnd.docker.distribution.manifest.list.v2+json", encoded(ocispec.Index{
		Manifests: []ocispec.Descriptor{manifest, unknown},
	}))
	fsys[ocispec.ImageIndexFile] = &fstest.MapFile{Data: encoded(ocispec.Index{Manifests: []ocispec.Descriptor{list, list}})}

	_, plan := open(t, fsys)
	labels := map[digest.Digest]map[string]string{}
	for _, node := range plan.Nodes {
		labels[node.Digest] = node.Labels
	}
	require.Len(t, labels, 8)
	require.Equal(t, map[string]string{
		"containerd.io/gc.ref.content.config":  config.Digest.String(),
		"containerd.io/gc.ref.content.l.0":     gzipped.Digest.String(),
		"containerd.io/gc.ref.content.0":       unknown.Digest.String(),
		"containerd.io/gc.ref.content.l.1":     zstd.Digest.String(),
		"containerd.io/gc.ref.content.config1": second.Digest.String(),
		"containerd.io/gc.ref.content.1":       empty.Digest.String(),
		"containerd.io/gc.ref.content.l.2":     gzipped.Digest.String(),
	}, labels[manifest.Digest])
	require.Equal(t, map[string]string{
		"containerd.io/gc.root":            "true",
		"containerd.io/gc.ref.content.m.0": manifest.Digest.String(),
		"containerd.io/gc.ref.content.0":   unknown.Digest.String(),
	}, labels[list.Digest])
}

// Whatever index.json says, there is a plan or an error with a class, and
// nothing that is planned has a malformed digest.
func FuzzPlan(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + emptyDigest + `","size":0}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:../..","size":-1},null]}`))
	f.Add([]byte(`{"manifests":{}}`))
	f.Fuzz(func(t *testing.T, index []byte) {
		l, err := layout.Open(fstest.MapFS{
			ocispec.ImageLayoutFile:                        {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
			ocispec.ImageIndexFile:                         {Data: index},
			"blobs/sha256/" + emptyDigest[len("sha256:"):]: {},
		})
		var plan *layout.Plan
		if err == nil {
			plan, err = l.Plan(t.Context())
		}
		if err != nil {
			require.True(t, errdefs.IsInvalidArgument(err) || errdefs.IsDataLoss(err), "%v", err)
			return
		}
		for _, node := range plan.Nodes {
			require.NoError(t, node.Digest.Validate())
		}
	})
}
