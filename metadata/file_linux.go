package metadata

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// lockFile takes the lock of a database as bolt does, waiting for it no longer
// than timeout.
func lockFile(f *os.File, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockInterval) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		case time.Now().After(deadline):
			return bolterrors.ErrTimeout
		}
	}
}

const lockInterval = 10 * time.Millisecond

// dropCache asks the kernel to forget the clean pages of f. It is a hint: if
// it is refused nothing is lost but a precaution.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// publish gives a finished file its name, unless that is taken.
func publish(temp, name string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return os.Link(temp, name) // a file system without that flag
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: name, Err: err}
	}
	return nil
}

// lockHolder says which process holds a lock on the file at path.
func lockHolder(path string) string {
	const unknown = "another process"
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer locks.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 708 08:01:131 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) > 5 && fields[1] == "FLOCK" && fields[5] == file {
			return processName(fields[4])
		}
	}
	return unknown
}

func processName(pid string) string {
	if pid == fmt.Sprint(os.Getpid()) {
		return "this process (pid " + pid + ")"
	}
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "pid " + pid
	}
	return fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(name)))
}
