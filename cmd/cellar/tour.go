package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

const tourLong = `Shows in a second what cellar is for: two tenants bring the same image, a
snapshot of this project's own source, into a new store; bytes are kept once;
neither can read what it did not bring; one deletes, a collection gives back
what nobody holds, and what stays is verified byte for byte.

Every line that begins with "ok" was checked; the command fails if one of them
does not hold. The store is made in a temporary folder and removed, or in the
folder given by --root, which must be empty, and left to look around in.`

func (a *app) tourCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tour",
		Short: "Show in a second, on a real image, what cellar does",
		Long:  tourLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.policy != "isolated" {
				return &usageError{errors.New("the tour shows isolated tenants, it takes no other --policy")}
			}
			return a.tour(cmd.Context())
		},
	}
}

// tour runs the tour in a folder of its own, or in the one that --root names.
func (a *app) tour(ctx context.Context) error {
	if a.root != "" {
		if err := checkEmpty(a.root); err != nil {
			return err
		}
		return newTour(a.out, a.root, true).run(ctx)
	}
	dir, err := os.MkdirTemp("", "cellar-tour-")
	if err != nil {
		return fmt.Errorf("folder for the tour: %w", err)
	}
	return errors.Join(newTour(a.out, dir, false).run(ctx), os.RemoveAll(dir))
}

// checkEmpty says whether dir can hold a new store without a thought for what
// is in it: the tour collects, and must not do so in a store that is in use.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("folder for the tour: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty, the tour wants a folder of its own: %w", dir, errdefs.ErrAlreadyExists)
	}
	return nil
}
