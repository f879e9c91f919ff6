package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/metadata"
	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is also the commands that the scripts run, so that they are
// processes of their own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cellar":  func() { os.Exit(run(os.Args[1:])) },
		"hold":    func() { os.Exit(helper(hold)) },
		"partial": func() { os.Exit(helper(partial)) },
	})
}

// What a user types and sees, and the exit codes: one script for each subject.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CELLAR_ROOT", filepath.Join(env.WorkDir, "store"))
			env.Setenv("CELLAR_NAMESPACE", "")
			env.Setenv("BELL", "\a")
			env.Setenv("TMPDIR", env.Getenv("TMPDIR"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   cmdExits,
			"mkfile":  cmdMkfile,
			"waitfor": cmdWaitfor,
			"scribble": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(scribble(ts.MkAbs(args[0])))
			},
		},
	})
}

// cmdExits runs a command that must end with the given code: exits CODE
// COMMAND [ARG...].
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// cmdMkfile writes a file of that many bytes, the same ones for each size:
// mkfile NAME SIZE.
func cmdMkfile(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := make([]byte, size)
	_, err = rand.NewChaCha8([32]byte{}).Read(content)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o600))
}

// cmdWaitfor waits until a file is there: waitfor NAME.
func cmdWaitfor(ts *testscript.TestScript, _ bool, args []string) {
	for range 1000 {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s did not come", args[0])
}

// scribble changes the first byte of a file, as a failing disk does.
func scribble(name string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	content[0] ^= 0xff
	return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, content, 0o600), os.Chmod(name, 0o400))
}

// helper runs one of the other processes that the scripts need.
func helper(do func(ctx context.Context, s *session, args []string) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s, err := openSession(os.Getenv("CELLAR_ROOT"), "default", metadata.Options{})
	if err == nil {
		err = errors.Join(do(ctx, s, os.Args[1:]), s.close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hold has the store open until it is interrupted: hold READY. The file READY
// says that it is.
func hold(ctx context.Context, _ *session, args []string) error {
	if err := os.WriteFile(args[0], nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// partial writes the first half of a file under a ref, and then waits for its
// end: partial REF FILE READY.
func partial(ctx context.Context, s *session, args []string) error {
	content, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	w, err := s.store.Writer(ctx, cellar.WithRef(args[0]))
	if err != nil {
		return err
	}
	if _, err := w.Write(content[:len(content)/2]); err != nil {
		return err
	}
	return errors.Join(hold(ctx, s, args[2:]), w.Close())
}
