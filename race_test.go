//go:build race

package cellar_test

// Under the race detector sync.Pool drops what it is given now and then, and so
// regexp allocates.
func init() { raceDetector = true }
