package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
)

// Each class of error has its exit code, however deep it lies.
func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{errdefs.ErrInternal, 1},
		{errdefs.ErrPermissionDenied, 1},
		{&inputError{"f", fs.ErrPermission}, 1},
		{&usageError{errors.New("flag")}, 2},
		{errdefs.ErrInvalidArgument, 2},
		{&partialError{failed: 1, total: 2, err: errdefs.ErrNotFound}, 3},
		{errdefs.ErrDataLoss, 3},
		{errdefs.ErrNotFound, 4},
		{&inputError{"f", fs.ErrNotExist}, 4},
		{errdefs.ErrAlreadyExists, 5},
		{errdefs.ErrFailedPrecondition, 5},
		{errdefs.ErrAborted, 5},
		{&noStoreError{"root"}, 10},
		{&heldError{errdefs.ErrUnavailable}, 11},
		{&openError{errdefs.ErrNotFound}, 1},
		{&openError{errdefs.ErrPermissionDenied}, 1},
		{&openError{errdefs.ErrDataLoss}, 3},
		{&openError{errdefs.ErrResourceExhausted}, 12},
		{errdefs.ErrResourceExhausted, 12},
	} {
		a := &app{err: io.Discard}
		err := tc.err
		if err != nil {
			err = errors.Join(fmt.Errorf("while testing: %w", err), nil)
		}
		require.Equal(t, tc.code, a.report(t.Context(), err), "%v", tc.err)
	}
}

// An ingest that is interrupted while its input says nothing ends at once, with
// code 130, and leaves nothing that nobody could continue.
func TestInterruptedIngest(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	silent, writer := io.Pipe()
	defer writer.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	a := &app{in: silent, out: &out, err: &errs}
	code := make(chan int)
	go func() { code <- a.execute(ctx, []string{"--root", root, "ingest", "-"}) }()

	_, err := writer.Write([]byte("half of"))
	require.NoError(t, err)
	interrupt()
	select {
	case got := <-code:
		require.Equal(t, exitInterrupted, got, errs.String())
	case <-time.After(time.Minute):
		t.Fatal("the command did not end")
	}
	require.Empty(t, out.String())

	s, err := (&app{root: root, policy: "isolated"}).open(mustExist)
	require.NoError(t, err)
	left, err := s.store.ListStatuses(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, s.close())
}

// A check that does not hold is printed as such and fails the tour.
func TestNarratorFails(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(&out)
	require.NoError(t, n.step(t.Context(), "A step", func(context.Context) error {
		n.check(true, "this holds")
		n.check(1 > 2, "one is more than two")
		return nil
	}))
	require.ErrorIs(t, n.close("all is well"), errTour)
	require.Contains(t, out.String(), "    ok   this holds\n    FAIL one is more than two\n")
	require.Contains(t, out.String(), "1 of 2 checks FAILED")
	require.NotContains(t, out.String(), "all is well")
}

// A step that can't go on ends the tour with its error and prints what it had.
func TestTourStopsAtError(t *testing.T) {
	var out bytes.Buffer
	g := newTour(&out, filepath.Join(t.TempDir(), "tour"), true)
	broken := errors.New("broken")
	err := g.step(t.Context(), "A step", func(context.Context) error {
		g.fact("came this far")
		return broken
	})
	require.ErrorIs(t, g.abandon("A step", err), broken)
	require.Contains(t, out.String(), "came this far")
}
