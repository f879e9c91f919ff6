package fserr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
)

func TestWrapGivesTheClassAndKeepsTheCause(t *testing.T) {
	// Every errno has the class that the contract names, and stays reachable.
	for errno, class := range map[error]error{
		syscall.ENOENT: errdefs.ErrNotFound,
		syscall.EEXIST: errdefs.ErrAlreadyExists,
		syscall.ENOSPC: errdefs.ErrResourceExhausted,
		syscall.EDQUOT: errdefs.ErrResourceExhausted,
		syscall.EMFILE: errdefs.ErrResourceExhausted,
		syscall.ENFILE: errdefs.ErrResourceExhausted,
		syscall.EFBIG:  errdefs.ErrResourceExhausted,
		syscall.EROFS:  errdefs.ErrPermissionDenied,
		syscall.EACCES: errdefs.ErrPermissionDenied,
		syscall.EPERM:  errdefs.ErrPermissionDenied,
		syscall.EIO:    errdefs.ErrDataLoss,
		syscall.ESTALE: errdefs.ErrDataLoss,
		syscall.EINVAL: errdefs.ErrInternal,
		syscall.EXDEV:  errdefs.ErrInternal,
		fs.ErrClosed:   errdefs.ErrFailedPrecondition,
		os.ErrNotExist: errdefs.ErrNotFound,
		os.ErrExist:    errdefs.ErrAlreadyExists,
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			cause := &fs.PathError{Op: "open", Path: "some/file", Err: errno}
			err := Wrap(cause, "blob %d", 7)
			require.ErrorIs(t, err, class)
			require.ErrorIs(t, err, errno)
			require.Equal(t, class, Class(cause))
			require.Equal(t, fmt.Sprintf("blob 7: %v: %v", class, cause), err.Error())
		})
	}
}

func TestWrapLeavesClassesAlone(t *testing.T) {
	// What has a class, or is a context's error, gets no second class.
	for _, cause := range []error{
		context.Canceled,
		context.DeadlineExceeded,
		errdefs.ErrAborted,
		fmt.Errorf("inner: %w: %w", errdefs.ErrDataLoss, syscall.ENOSPC),
	} {
		err := Wrap(cause, "outer")
		require.ErrorIs(t, err, cause)
		require.Equal(t, "outer: "+cause.Error(), err.Error())
	}
	require.NoError(t, Wrap(nil, "nothing"))
}

func TestWrapOfRealErrors(t *testing.T) {
	// Errors as package os makes them are told apart.
	_, err := os.Open(filepath.Join(t.TempDir(), "absent"))
	require.True(t, errdefs.IsNotFound(Wrap(err, "open")))
	require.True(t, errors.Is(Wrap(err, "open"), fs.ErrNotExist))

	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = f.Write([]byte("x"))
	require.True(t, errdefs.IsFailedPrecondition(Wrap(err, "write")))
}
