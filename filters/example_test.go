package filters_test

import (
	"fmt"

	"github.com/cellarstore/cellar/filters"
)

func ExampleParse() {
	_, err := filters.Parse("labels.app=web")
	fmt.Println(err)
	// Output:
	// filter: there is no operator "=" at byte 10 (equal is ==, and a value that begins with = ! or ~ is quoted with "): invalid argument
	// 	labels.app=web
	// 	          ^
}

func ExampleEq() {
	app := filters.Eq("labels.app", `web "2"`)
	large := filters.Ge("size", 10<<20)
	fmt.Println(filters.And(app, large))
	// Output:
	// labels.app=="web \"2\"",size>=10485760
}
