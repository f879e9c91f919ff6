package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
)

// The test binary runs as a child process of a test where these are set: what
// to do, and in which folder.
const (
	childEnv    = "CELLAR_METADATA_CHILD"
	childDirEnv = "CELLAR_METADATA_CHILD_DIR"
)

// childMain does what a child process is for and ends it.
func childMain(name string) {
	switch name {
	case "file size limit":
		childFileSizeLimit()
	case "work":
		childWork()
	case "collect":
		childCollect()
	case "hold":
		childHold()
	default:
		orExit(fmt.Errorf("no child %q", name))
	}
	os.Exit(0)
}

// orExit ends a child process whose work has failed.
func orExit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child returns a command that runs this binary as a child process.
func child(ctx context.Context, name, dir string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name, childDirEnv+"="+dir)
	return cmd
}

// runChild runs a child process that must end well.
func runChild(t *testing.T, name, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := child(ctx, name, dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// childWorld is a database on the real file system in a child process.
type childWorld struct {
	blobs *local.Store
	db    *metadata.DB
}

// openChild opens the database of the folder that the child is to work in.
func openChild() *childWorld {
	dir := os.Getenv(childDirEnv)
	blobs, err := local.Open(filepath.Join(dir, "store"), local.Options{})
	orExit(err)
	db, err := metadata.Open(filepath.Join(dir, "metadata.db"), blobs, metadata.Options{})
	orExit(err)
	return &childWorld{blobs, db}
}

func (w *childWorld) close() error { return errors.Join(w.db.Close(), w.blobs.Close()) }
