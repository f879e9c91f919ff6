package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// clone lets dst share the blocks of src; both are whole files.
func clone(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// copyRange lets the kernel copy up to n bytes. At the end of src it returns
// 0. ErrUnsupported says that these files can't be copied so.
func copyRange(dst *os.File, to int64, src *os.File, from int64, n int) (int64, error) {
	for {
		m, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, n, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return 0, errors.ErrUnsupported
		}
		return int64(m), err
	}
}
