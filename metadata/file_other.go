//go:build !linux

package metadata

import (
	"os"
	"time"
)

// lockFile leaves the locking to bolt.
func lockFile(*os.File, time.Duration) error { return nil }

// dropCache does nothing where there is no such hint.
func dropCache(*os.File) {}

// publish gives a finished file its name, unless that is taken.
func publish(temp, name string) error { return os.Link(temp, name) }

// lockHolder says which process holds a lock on the file at path.
func lockHolder(string) string { return "another process" }
