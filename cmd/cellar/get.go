package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cellarstore/cellar"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func (a *app) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get DIGEST",
		Short: "Write content to the standard output or a file",
		Long: `Writes the content of DIGEST, or of the one digest that begins so. The bytes
are hashed on their way: damage ends the command with exit code 3, and a file
given with -o then stays as it was.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeDigests,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
				return a.get(ctx, s, args[0], output)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write, whole or not at all")
	return cmd
}

func (a *app) get(ctx context.Context, s *session, arg, output string) error {
	dgst, err := s.resolve(ctx, arg)
	if err != nil {
		return err
	}
	ra, err := s.store.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return err
	}
	if output == "" || output == "-" {
		err = copyVerified(ctx, a.out, ra, dgst)
	} else {
		err = writeFile(output, func(w io.Writer) error { return copyVerified(ctx, w, ra, dgst) })
	}
	return errors.Join(err, ra.Close())
}

// copyVerified copies all of ra to w. Bytes of another digest than dgst are
// DataLoss; they have been written by then.
func copyVerified(ctx context.Context, w io.Writer, ra cellar.ReaderAt, dgst digest.Digest) error {
	verifier := dgst.Verifier()
	src := &contextReader{ctx, cellar.NewReader(ra)}
	if _, err := io.Copy(io.MultiWriter(w, verifier), src); err != nil {
		return fmt.Errorf("content %s: %w", dgst, err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("content %s has another digest by now, its bytes are damaged: %w", dgst, errdefs.ErrDataLoss)
	}
	return nil
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// writeFile lets fill write the file called name: under another name beside
// it first, so that it is there whole or as it was.
func writeFile(name string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".cellar-get-*")
	if err != nil {
		return fmt.Errorf("output %s: %w", name, err)
	}
	err = errors.Join(fill(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
