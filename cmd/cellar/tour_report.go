package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// narrator prints the steps of a tour and counts what it checked.
type narrator struct {
	out     io.Writer
	started time.Time
	steps   int
	checks  int
	failed  int
	lines   []string // of the step that runs
}

func newNarrator(out io.Writer) *narrator {
	return &narrator{out: out, started: time.Now()}
}

// head prints the lines above the steps.
func (n *narrator) head(lines ...string) {
	for _, line := range lines {
		fmt.Fprintln(n.out, line)
	}
}

// step runs do and prints its title, time and lines.
func (n *narrator) step(ctx context.Context, title string, do func(context.Context) error) error {
	n.steps++
	n.lines = nil
	start := time.Now()
	err := do(ctx)
	fmt.Fprintf(n.out, "\n%2d  %-60s %10s\n", n.steps, title, milliseconds(time.Since(start)))
	for _, line := range n.lines {
		fmt.Fprintln(n.out, line)
	}
	return err
}

// fact adds a line that only tells.
func (n *narrator) fact(format string, args ...any) {
	n.lines = append(n.lines, "         "+fmt.Sprintf(format, args...))
}

// check adds a line that claims something, and whether it holds.
func (n *narrator) check(holds bool, format string, args ...any) {
	mark := "ok"
	n.checks++
	if !holds {
		n.failed++
		mark = "FAIL"
	}
	n.lines = append(n.lines, fmt.Sprintf("    %-4s %s", mark, fmt.Sprintf(format, args...)))
}

// note prints a line after the steps.
func (n *narrator) note(format string, args ...any) {
	fmt.Fprintf(n.out, "\n"+format+"\n", args...)
}

// close prints the last line, and returns an error if a check failed.
func (n *narrator) close(format string, args ...any) error {
	if n.failed > 0 {
		n.note("%d of %d checks FAILED.", n.failed, n.checks)
		return fmt.Errorf("tour: %d of %d checks failed: %w", n.failed, n.checks, errTour)
	}
	n.note("All %d checks hold in %s:\n%s", n.checks, milliseconds(time.Since(n.started)), fmt.Sprintf(format, args...))
	return nil
}

// errTour says that the store does not do what the tour tells.
var errTour = errors.New("the store does not keep its promises")

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
