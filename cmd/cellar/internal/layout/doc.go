// Package layout brings OCI image layouts into a store.
//
// [Open] reads a layout's entry files, [Layout.Plan] follows its descriptors
// without touching a store, and [Import] writes what the plan lists. Whatever
// is damaged, missing or malformed shows in the plan, before the first byte is
// written, except for the bytes of leaves: those are checked as they are
// written, by the store's own commit.
package layout
