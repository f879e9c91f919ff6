package metadata_test

import (
	"fmt"
	"os"
)

// childEnv makes the test binary run as a child process of a test: its value
// names what to do.
const childEnv = "CELLAR_METADATA_CHILD"

// children are what a child process can do. They end the process, or are ended.
var children = map[string]func(){}

func childMain(name string) {
	run := children[name]
	if run == nil {
		fmt.Fprintf(os.Stderr, "no child %q\n", name)
		os.Exit(2)
	}
	run()
	os.Exit(0)
}
