// Package fserr gives errors of the operating system their class of errdefs.
// It is the one place where that is decided.
package fserr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/containerd/errdefs"
)

// Wrap says what was being done and classifies err: the result reads
// "format: class: err", is of the class that [Class] tells, and keeps err as
// its cause. An error that has a class already, or is a context's, only gets
// the text. Wrap of nil is nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	text := fmt.Sprintf(format, args...)
	if classed(err) {
		return fmt.Errorf("%s: %w", text, err)
	}
	return fmt.Errorf("%s: %w: %w", text, Class(err), err)
}

// Class returns the error of errdefs that stands for the class of err, which
// is Internal where nothing better is known. For an error that has a class
// already, or is a context's, it returns err itself.
func Class(err error) error {
	if classed(err) {
		return err
	}
	for _, row := range classes {
		for _, cause := range row.causes {
			if errors.Is(err, cause) {
				return row.class
			}
		}
	}
	return errdefs.ErrInternal
}

// classes is searched in this order. The errnos come before the errors of
// package fs because EROFS and EPERM are told apart only there.
var classes = []struct {
	class  error
	causes []error
}{
	{errdefs.ErrResourceExhausted, []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EFBIG, syscall.ENOMEM, syscall.EMLINK,
	}},
	{errdefs.ErrDataLoss, []error{syscall.EIO, syscall.ESTALE}},
	{errdefs.ErrPermissionDenied, []error{syscall.EROFS, syscall.EACCES, syscall.EPERM, fs.ErrPermission}},
	{errdefs.ErrNotFound, []error{syscall.ENOENT, fs.ErrNotExist}},
	{errdefs.ErrAlreadyExists, []error{syscall.EEXIST, fs.ErrExist}},
	{errdefs.ErrFailedPrecondition, []error{fs.ErrClosed}},
}

// classed reports whether err carries a class or is a context's error. The
// answer looks at the errors of errdefs alone and not at methods such as
// those of syscall.Errno, which no class is meant by.
func classed(err error) bool {
	for _, class := range known {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

var known = []error{
	context.Canceled, context.DeadlineExceeded,
	errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition,
	errdefs.ErrUnavailable, errdefs.ErrDataLoss, errdefs.ErrResourceExhausted, errdefs.ErrPermissionDenied,
	errdefs.ErrAborted, errdefs.ErrInternal, errdefs.ErrUnknown, errdefs.ErrConflict, errdefs.ErrOutOfRange,
	errdefs.ErrNotImplemented, errdefs.ErrUnauthenticated, errdefs.ErrNotModified,
}
