package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
)

// The exit codes, which scripts rely on. The help names them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitPartial     = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitNoStore     = 10
	exitLocked      = 11
	exitExhausted   = 12
	exitInterrupted = 130
)

// usageError is a command line that can't be carried out as it is written.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// noStoreError says that there is no store to read from.
type noStoreError struct{ root string }

func (e *noStoreError) Error() string { return "no store in " + e.root }

// heldError says that another process has the store open.
type heldError struct{ err error }

func (e *heldError) Error() string { return e.err.Error() }
func (e *heldError) Unwrap() error { return e.err }

// openError says that the store can't be opened or made, for another reason.
type openError struct{ err error }

func (e *openError) Error() string { return e.err.Error() }
func (e *openError) Unwrap() error { return e.err }

// leaseError says that there is no such lease, or that it does not hold that.
type leaseError struct{ err error }

func (e *leaseError) Error() string { return e.err.Error() }
func (e *leaseError) Unwrap() error { return e.err }

// partialError says that some of several things were done.
type partialError struct {
	failed, total int
	err           error // the first failure
}

func (e *partialError) Error() string {
	return fmt.Sprintf("%d of %d failed", e.failed, e.total)
}
func (e *partialError) Unwrap() error { return e.err }

// many is the error of doing several things of which some failed: nil if none
// did, and the only one as it is. Each of several failures is told as well.
func (a *app) many(total int, failures []error) error {
	if total > 1 {
		for _, err := range failures {
			a.say("%v", err)
		}
	}
	switch {
	case len(failures) == 0:
		return nil
	case total == 1:
		return failures[0]
	case len(failures) == total:
		return fmt.Errorf("all %d failed, the first one: %w", total, failures[0])
	}
	return &partialError{failed: len(failures), total: total, err: failures[0]}
}

// report tells the user of err and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := a.explain(ctx, err)
	a.say("cellar: %v", err)
	if hint != "" {
		a.say("hint: %s", hint)
	}
	return code
}

// explain returns the exit code for err and what the user can do about it.
func (a *app) explain(ctx context.Context, err error) (code int, hint string) {
	var usage *usageError
	var noStore *noStoreError
	var held *heldError
	var unopened *openError
	var partial *partialError
	var input *inputError
	var lease *leaseError
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, "nothing is half-done; the same command again goes on"
	case errors.As(err, &usage):
		return exitUsage, `"cellar help" and "cellar VERB --help" show what is possible`
	case errors.As(err, &noStore):
		return exitNoStore, `the first "cellar ingest" makes one; --root or $CELLAR_ROOT name another folder`
	case errors.As(err, &held):
		return exitLocked, "one process at a time has a store; wait for that one, or end it"
	case errors.As(err, &unopened):
		return openCode(err), "--root or $CELLAR_ROOT name another folder"
	case errors.As(err, &partial):
		return exitPartial, ""
	case errors.As(err, &input):
		return inputCode(err), ""
	case errors.As(err, &lease):
		return exitNotFound, fmt.Sprintf(`"cellar -n %s lease ls" lists the leases, with ID what one holds`, a.namespaceName())
	}
	return a.explainClass(err)
}

// openCode is the code for a store that can't be opened. A folder that is not
// there, say, is not what "not found" means to a script that asks for content.
func openCode(err error) int {
	switch {
	case errdefs.IsResourceExhausted(err):
		return exitExhausted
	case errdefs.IsDataLoss(err):
		return exitPartial
	}
	return exitFailure
}

func inputCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitFailure
}

// explainClass does explain's work by the error's class.
func (a *app) explainClass(err error) (code int, hint string) {
	switch {
	case errdefs.IsNotFound(err):
		return exitNotFound, fmt.Sprintf(`"cellar -n %s ls" lists what this namespace holds`, a.namespaceName())
	case errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err), errdefs.IsAborted(err), errdefs.IsConflict(err):
		return exitConflict, ""
	case errdefs.IsInvalidArgument(err):
		return exitUsage, ""
	case errdefs.IsResourceExhausted(err):
		return exitExhausted, `"cellar rm" and then "cellar gc" give space back`
	case errdefs.IsDataLoss(err):
		return exitPartial, "ingesting the same content again heals it"
	case errdefs.IsPermissionDenied(err):
		return exitFailure, "the store's folder must be yours to write"
	}
	return exitFailure, ""
}
