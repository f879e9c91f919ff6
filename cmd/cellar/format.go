package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// addFormatFlag gives cmd the flag --format, whose first choice is the default.
func addFormatFlag(cmd *cobra.Command, format *string, choices ...string) {
	cmd.Flags().StringVar(format, "format", choices[0], "how to print: "+orList(choices))
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
}

func checkFormat(format string, choices ...string) error {
	if slices.Contains(choices, format) {
		return nil
	}
	return &usageError{fmt.Errorf("--format %q: want %s", format, orList(choices))}
}

func orList(choices []string) string {
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// visible returns s as it is if a terminal shows all of it and obeys none of
// it, and as a quoted Go string otherwise. Ids, refs and labels are arbitrary
// bytes.
func visible(s string) string {
	hidden := func(r rune) bool { return !strconv.IsPrint(r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, hidden) {
		return s
	}
	return strconv.Quote(s)
}
