package cellar_test

import (
	"fmt"
	"go/ast"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	maxFunction = 80  // lines of a function
	maxFile     = 500 // lines of a file that is no test
)

// tooLong lists the functions ("file.go: name") and files that may be longer,
// and how long. It may only shrink: an entry that is not needed fails.
var tooLong = map[string]int{}

func TestLengths(t *testing.T) {
	// Functions and files stay short enough to be read at once.
	used := map[string]bool{}
	check := func(name string, lines, limit int) {
		if lines <= limit {
			return
		}
		used[name] = true
		if allowed := tooLong[name]; lines > allowed {
			t.Errorf("%s has %d lines, over the limit of %d", name, lines, max(limit, allowed))
		}
	}
	for _, file := range goFiles(t, true) {
		if !strings.HasSuffix(file.name, "_test.go") {
			check(file.name, file.lines, maxFile)
		}
		for _, decl := range file.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				lines := file.set.Position(fn.End()).Line - file.set.Position(fn.Pos()).Line + 1
				check(file.name+": "+functionName(fn), lines, maxFunction)
			}
		}
	}
	for name := range tooLong {
		require.True(t, used[name], "%s is short enough now: take it off the list", name)
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	// Every exported name says what it is; where users see it, methods of
	// interfaces do as well.
	found := 0
	for _, file := range goFiles(t, false) {
		if strings.HasSuffix(file.name, "_test.go") {
			continue
		}
		for _, decl := range file.syntax.Decls {
			names, bare := exported(decl, !strings.HasPrefix(file.name, "internal/"))
			found += names
			for _, name := range bare {
				t.Errorf("%s: %s has no comment", file.name, name)
			}
		}
	}
	require.Greater(t, found, 100, "the files were not found")
}

func TestEveryPackageIsDescribed(t *testing.T) {
	// Each package has one comment that says what it is for.
	described := map[string]int{}
	for _, file := range goFiles(t, true) {
		if strings.HasSuffix(file.name, "_test.go") {
			continue
		}
		dir := path.Dir(file.name)
		described[dir] += 0
		if file.syntax.Doc != nil {
			described[dir]++
		}
	}
	for dir, n := range described {
		if n != 1 {
			t.Errorf("package %s has %d package comments", dir, n)
		}
	}
}

// exported counts the exported names that decl declares, with methods those of
// interfaces too, and returns those that have no comment. Methods that only
// make a type an error or printable need none.
func exported(decl ast.Decl, methods bool) (names int, bare []string) {
	note := func(name string, docs ...*ast.CommentGroup) {
		names++
		for _, doc := range docs {
			if doc != nil {
				return
			}
		}
		bare = append(bare, name)
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		customary := d.Recv != nil && (d.Name.Name == "Error" || d.Name.Name == "String")
		if d.Name.IsExported() && ast.IsExported(receiver(d, d.Name.Name)) && !customary {
			note(functionName(d), d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() {
						note(name.Name, s.Doc, s.Comment, d.Doc)
					}
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					note(s.Name.Name, s.Doc, d.Doc)
					if methods {
						noteMethods(s, note)
					}
				}
			}
		}
	}
	return names, bare
}

// noteMethods notes the exported methods of an interface.
func noteMethods(s *ast.TypeSpec, note func(string, ...*ast.CommentGroup)) {
	iface, ok := s.Type.(*ast.InterfaceType)
	if !ok {
		return
	}
	for _, method := range iface.Methods.List {
		for _, name := range method.Names {
			if name.IsExported() {
				note(fmt.Sprintf("%s.%s", s.Name, name), method.Doc)
			}
		}
	}
}

// functionName returns the name of a function, behind its receiver's if it has
// one.
func functionName(fn *ast.FuncDecl) string {
	if name := receiver(fn, ""); name != "" {
		return name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// receiver returns the name of the type that fn is a method of, or otherwise.
func receiver(fn *ast.FuncDecl, otherwise string) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return otherwise
	}
	expr := fn.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return otherwise
		}
	}
}
