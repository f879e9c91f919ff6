package metadata_test

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/namespaces"
)

// Short names for the classes of errors.
var (
	errInvalid      = errdefs.ErrInvalidArgument
	errNotFound     = errdefs.ErrNotFound
	errExists       = errdefs.ErrAlreadyExists
	errPrecondition = errdefs.ErrFailedPrecondition
	errAborted      = errdefs.ErrAborted
	errUnavailable  = errdefs.ErrUnavailable
	errExhausted    = errdefs.ErrResourceExhausted
	errDataLoss     = errdefs.ErrDataLoss
	errInternal     = errdefs.ErrInternal
)

var classes = []error{
	errInvalid, errNotFound, errExists, errPrecondition, errAborted, errUnavailable, errExhausted, errDataLoss,
	errdefs.ErrPermissionDenied, errInternal, context.Canceled, context.DeadlineExceeded,
}

// requireClass checks that err belongs to class and to no other.
func requireClass(t testing.TB, err, class error) {
	t.Helper()
	require.Equal(t, []error{class}, classesOf(err), "error: %v", err)
}

func classesOf(err error) []error {
	var found []error
	for _, class := range classes {
		if errors.Is(err, class) {
			found = append(found, class)
		}
	}
	return found
}

// withContent deletes a namespace with what it holds.
func withContent() namespaces.DeleteOpt { return namespaces.WithContent() }
