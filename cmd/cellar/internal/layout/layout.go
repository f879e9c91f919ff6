package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/cellarstore/cellar"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument is the size in bytes of the largest JSON document that is read
// into memory: index.json, an index, a manifest.
const maxDocument = 8 << 20

// Layout is an OCI image layout that is read from a file system.
type Layout struct {
	fsys fs.FS
	// Index is what index.json says.
	Index ocispec.Index
}

// Open reads the entry files of the layout in fsys. A folder without them is
// NotFound; files that are no layout of version 1 are InvalidArgument.
func Open(fsys fs.FS) (*Layout, error) {
	var marker ocispec.ImageLayout
	if err := readJSON(fsys, ocispec.ImageLayoutFile, &marker); err != nil {
		return nil, err
	}
	if marker.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("%s: version %s, want %s: %w", ocispec.ImageLayoutFile,
			cellar.Shorten(marker.Version), ocispec.ImageLayoutVersion, errdefs.ErrInvalidArgument)
	}
	l := &Layout{fsys: fsys}
	if err := readJSON(fsys, ocispec.ImageIndexFile, &l.Index); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the blob of desc and checks its size. A blob that is not there is
// NotFound, one of another size DataLoss.
func (l *Layout) open(desc ocispec.Descriptor) (fs.File, error) {
	name := path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	f, err := l.fsys.Open(name)
	if err != nil {
		return nil, classify(name, err)
	}
	if err := checkFile(f, desc.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return f, nil
}

// document returns the blob of desc after checking it against the digest.
func (l *Layout) document(desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("manifest %s of %d bytes is over the limit of %d: %w", desc.Digest, desc.Size, maxDocument, errdefs.ErrInvalidArgument)
	}
	f, err := l.open(desc)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, classify(desc.Digest.String(), err)
	}
	if got := desc.Digest.Algorithm().FromBytes(content); got != desc.Digest {
		return nil, fmt.Errorf("blob %s has the digest %s: %w", desc.Digest, got, errdefs.ErrDataLoss)
	}
	return content, nil
}

// checkFile says whether f is a regular file of the given size.
func checkFile(f fs.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return classify("stat", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	case info.Size() != size:
		return fmt.Errorf("%d bytes where the descriptor says %d: %w", info.Size(), size, errdefs.ErrDataLoss)
	}
	return nil
}

// checkDescriptor says whether desc can name a blob at all.
func checkDescriptor(desc ocispec.Descriptor) error {
	if err := cellar.ValidateDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size < 0 {
		return fmt.Errorf("descriptor of %s has the size %d: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	}
	return nil
}

// readJSON reads the document called name into v.
func readJSON(fsys fs.FS, name string, v any) error {
	f, err := fsys.Open(name)
	if err != nil {
		return classify(name, err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return classify(name, err)
	}
	if len(content) > maxDocument {
		return fmt.Errorf("%s is over the limit of %d bytes: %w", name, maxDocument, errdefs.ErrInvalidArgument)
	}
	return decode(name, content, v)
}

func decode(name string, content []byte, v any) error {
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("%s: %w: %w", name, errdefs.ErrInvalidArgument, err)
	}
	return nil
}

// classify gives an error of the file system its class.
func classify(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: %w", name, errdefs.ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: %w", name, errdefs.ErrPermissionDenied, err)
	}
	return fmt.Errorf("%s: %w: %w", name, errdefs.ErrInternal, err)
}
