//go:build !linux

package local

import (
	"errors"
	"os"
)

func clone(dst, src *os.File) error { return errors.ErrUnsupported }

func copyRange(dst *os.File, to int64, src *os.File, from int64, n int) (int64, error) {
	return 0, errors.ErrUnsupported
}
