package vfs

import (
	"syscall"
	"unsafe"
)

// futimens sets the times of an open file: utimensat without a path, which
// package syscall does not offer.
func futimens(fd int, ts *[2]syscall.Timespec) error {
	_, _, errno := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
