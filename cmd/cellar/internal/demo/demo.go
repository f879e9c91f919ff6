// Package demo holds the OCI image layout that the tour brings into a store: a
// snapshot of the project's own source, made by mklayout. It is data; it need
// not follow the source of today.
package demo

import (
	"embed"
	"io/fs"
)

//go:generate go run ../mklayout -src ../../../.. -out layout

//go:embed all:layout
var files embed.FS

// Layout is the layout's top folder.
func Layout() fs.FS {
	sub, err := fs.Sub(files, "layout")
	if err != nil {
		panic(err) // the name is a constant that is valid
	}
	return sub
}
