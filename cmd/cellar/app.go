package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/cellarstore/cellar/metadata"
	"github.com/cellarstore/cellar/namespaces"
	"github.com/spf13/cobra"
)

// app is what all verbs share: the global flags and the three streams.
type app struct {
	in       io.Reader
	out, err io.Writer

	root      string
	namespace string
	policy    string

	// running is set once flags and arguments are accepted: errors before
	// that are the user's wording, errors after it are the work's.
	running bool
}

const rootLong = `cellar keeps content for many tenants in one folder: one pool of bytes, each
stored once under its digest, and a namespace for each tenant, which sees only
what it brought itself. Removing unlinks; "cellar gc" gives back the space of
what nobody holds or refers to any more.

  cellar tour                          see it at work, in a second
  D=$(cellar ingest notes.txt)         store a file; its digest is all you get
  cellar get $D                        and all you need
  cellar ls --filter 'size>=1MiB'      ask
  cellar why $D                        what keeps it from "cellar gc"

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done in part, or damage found;
4 not found; 5 conflicts with what is there, or was promised; 10 no store
here; 11 another process has the store; 12 out of space; 130 interrupted.`

// execute runs one command line and returns the exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.running {
		err = &usageError{err}
	}
	return a.report(ctx, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "cellar",
		Short:         "A content store for many tenants",
		Long:          rootLong,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.running = true
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	flags := root.PersistentFlags()
	flags.StringVar(&a.root, "root", "", "the store's folder (default $CELLAR_ROOT, else one in your home)")
	flags.StringVarP(&a.namespace, "namespace", "n", "", `the tenant (default $CELLAR_NAMESPACE, else "default")`)
	flags.StringVar(&a.policy, "policy", "isolated", `"isolated", or "shared": naming a digest is enough to take content over`)
	root.AddCommand(
		a.ingestCommand(), a.getCommand(), a.lsCommand(), a.infoCommand(), a.labelCommand(),
		a.rmCommand(), a.leaseCommand(), a.gcCommand(), a.whyCommand(), a.graphCommand(),
		a.nsCommand(), a.tourCommand(),
	)
	return root
}

// rootDir is the store's folder: the flag's, the environment's, or the user's.
func (a *app) rootDir() (string, error) {
	if a.root != "" {
		return a.root, nil
	}
	if dir := os.Getenv("CELLAR_ROOT"); dir != "" {
		return dir, nil
	}
	dir, err := userDataDir()
	if err != nil {
		return "", &usageError{fmt.Errorf("no folder for the store: %w", err)}
	}
	return filepath.Join(dir, "cellar"), nil
}

// namespaceName is the tenant: the flag's, the environment's, or the default.
func (a *app) namespaceName() string {
	if a.namespace != "" {
		return a.namespace
	}
	if name := os.Getenv("CELLAR_NAMESPACE"); name != "" {
		return name
	}
	return namespaces.Default
}

func (a *app) sharingPolicy() (metadata.Policy, error) {
	switch a.policy {
	case "isolated":
		return metadata.Isolated, nil
	case "shared":
		return metadata.Shared, nil
	}
	return 0, &usageError{fmt.Errorf(`--policy %q: want "isolated" or "shared"`, a.policy)}
}

// userDataDir is where programs keep a user's data on this system.
func userDataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	switch runtime.GOOS {
	case "windows", "darwin":
		return os.UserConfigDir()
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share"), err
}

// version is that of the module the binary was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// say writes a line for the user beside the result, on the error stream.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.err, format+"\n", args...)
}
