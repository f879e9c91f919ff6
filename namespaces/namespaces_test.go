package namespaces_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/namespaces"
)

func TestContext(t *testing.T) {
	// A context carries the last name it was given, and no other.
	ctx := t.Context()
	_, ok := namespaces.Namespace(ctx)
	require.False(t, ok)

	ctx = namespaces.WithNamespace(ctx, "a")
	inner := namespaces.WithNamespace(ctx, "b")
	name, ok := namespaces.Namespace(inner)
	require.True(t, ok)
	require.Equal(t, "b", name)
	name, ok = namespaces.Namespace(ctx)
	require.True(t, ok)
	require.Equal(t, "a", name)

	_, ok = namespaces.Namespace(namespaces.WithNamespace(ctx, ""))
	require.False(t, ok, "an empty name hides the one outside")
}

func TestNamespaceRequired(t *testing.T) {
	// No name and a bad name are told apart.
	with := namespaces.WithNamespace
	for _, tc := range []struct {
		name string
		ctx  context.Context
		want string
		err  error
	}{
		{"none", t.Context(), "", errdefs.ErrFailedPrecondition},
		{"empty", with(t.Context(), ""), "", errdefs.ErrFailedPrecondition},
		{"bad", with(t.Context(), "a/b"), "", errdefs.ErrInvalidArgument},
		{"good", with(t.Context(), namespaces.Default), "default", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name, err := namespaces.NamespaceRequired(tc.ctx)
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.want, name)
		})
	}
}

func TestValidate(t *testing.T) {
	// Names are words of letters and digits, joined by single marks, to 76 bytes.
	for _, name := range []string{"a", "0", "default", "k8s.io", "a-b_c.d", "A9", "version", strings.Repeat("a", 76)} {
		require.NoError(t, namespaces.Validate(name), "name %q", name)
	}
	for _, name := range []string{
		"", ".", "-", "_", ".a", "a.", "a..b", "a-.b", "a__b", "-a", "a-", "a b", " a", "a\n", "a\x00", "a/b", "..",
		"é", "日本", "a\xff", strings.Repeat("a", 77), strings.Repeat("a.", 1<<20),
	} {
		err := namespaces.Validate(name)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "name %.40q", name)
		require.Less(t, len(err.Error()), 400)
	}
	require.ErrorContains(t, namespaces.Validate("a..b"), `"." cannot stand at offset 2`)
	require.ErrorContains(t, namespaces.Validate("a-"), `"-" cannot stand at offset 1`)
}

func FuzzValidate(f *testing.F) {
	grammar := regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)
	for _, seed := range []string{"", "a", "a.b", "a..b", "-a", "a-", "a\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want := len(name) <= 76 && grammar.MatchString(name)
		require.Equal(t, want, namespaces.Validate(name) == nil, "name %q", name)
	})
}

func TestDeleteOptions(t *testing.T) {
	// Content goes only when that is asked for.
	require.False(t, namespaces.NewDeleteOptions().Content)
	require.True(t, namespaces.NewDeleteOptions(namespaces.WithContent()).Content)
}

func TestInfoField(t *testing.T) {
	// Filters see the name and every label, whatever dots are in its key.
	info := namespaces.Info{Name: "a", Labels: map[string]string{"x": "1", "a.b": "2"}}
	for _, tc := range []struct {
		path []string
		want string
		ok   bool
	}{
		{[]string{"name"}, "a", true},
		{[]string{"labels", "x"}, "1", true},
		{[]string{"labels", "a.b"}, "2", true},
		{[]string{"labels", "a", "b"}, "2", true},
		{[]string{"labels", "y"}, "", false},
		{[]string{"labels"}, "", false},
		{[]string{"Name"}, "", false},
		{nil, "", false},
	} {
		value, ok := info.Field(tc.path)
		require.Equal(t, tc.ok, ok, "path %q", tc.path)
		require.Equal(t, tc.want, value, "path %q", tc.path)
	}
}
