package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's Go is the body of the example that the tests run, line by line.
func TestReadmeIsTheExample(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	require.NotNil(t, block, "a Go block")
	require.Equal(t, exampleBody(t, "../../example_test.go"), string(block[1]))
	statements := slices.DeleteFunc(strings.Split(string(block[1]), "\n"), func(line string) bool { return line == "" })
	require.LessOrEqual(t, len(statements), 16, "lines of Go in the README")
}

// exampleBody returns the body of func Example without its indentation and
// without the output that it must have.
func exampleBody(t *testing.T, file string) string {
	t.Helper()
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, source, parser.ParseComments)
	require.NoError(t, err)
	for _, decl := range parsed.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Name.Name == "Example" {
			body := string(source[fset.Position(fn.Body.Lbrace).Offset+1 : fset.Position(fn.Body.Rbrace).Offset])
			body, _, _ = strings.Cut(body, "\t// Output:")
			return strings.TrimSpace(strings.ReplaceAll("\n"+strings.Trim(body, "\n"), "\n\t", "\n")) + "\n"
		}
	}
	require.Fail(t, "no func Example in "+file)
	return ""
}
