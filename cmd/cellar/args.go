package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// minPrefix is how many characters of a digest's hex part stand for the whole.
const minPrefix = 4

// resolve returns the digest that arg names: a whole one, or the beginning of
// one that the namespace holds, with or without the algorithm. A beginning
// that fits several, or is too short, is InvalidArgument; one that fits none
// NotFound.
func (s *session) resolve(ctx context.Context, arg string) (digest.Digest, error) {
	return s.resolveIn(ctx, arg, []string{s.name})
}

// resolveIn is resolve for content that one of several namespaces holds.
func (s *session) resolveIn(ctx context.Context, arg string, names []string) (digest.Digest, error) {
	prefix, err := digestPrefix(arg)
	if err != nil || digest.Digest(prefix).Validate() == nil {
		return digest.Digest(prefix), err
	}
	found := map[digest.Digest]bool{}
	for _, name := range names {
		if err := s.matching(ctx, name, prefix, found); err != nil {
			return "", err
		}
	}
	if len(found) == 0 {
		return "", noContent(arg, names)
	}
	return theOne(arg, slices.Sorted(maps.Keys(found)))
}

// digestPrefix returns arg, a digest or the beginning of one, with the
// algorithm before it.
func digestPrefix(arg string) (string, error) {
	if digest.Digest(arg).Validate() == nil {
		return arg, nil
	}
	alg, hex, ok := strings.Cut(arg, ":")
	if !ok {
		alg, hex = digest.Canonical.String(), arg
	}
	if len(hex) < minPrefix || strings.Trim(hex, "0123456789abcdef") != "" || strings.Trim(alg, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return "", fmt.Errorf("%s is neither a digest nor the first %d or more characters of one: %w", cellar.Shorten(arg), minPrefix, errdefs.ErrInvalidArgument)
	}
	return alg + ":" + hex, nil
}

// matching adds the digests in a namespace that begin with prefix to found.
func (s *session) matching(ctx context.Context, name, prefix string, found map[digest.Digest]bool) error {
	store, err := s.Namespace(name)
	if err != nil {
		return err
	}
	return store.Walk(ctx, func(info cellar.Info) error {
		found[info.Digest] = true
		return nil
	}, `digest~="^`+prefix+`"`)
}

// theOne returns the digest that was found for arg, if it is the only one.
func theOne(arg string, found []digest.Digest) (digest.Digest, error) {
	if len(found) > 1 {
		return "", fmt.Errorf("%s fits %d digests, %s and %s among them: %w", cellar.Shorten(arg), len(found), found[0], found[1], errdefs.ErrInvalidArgument)
	}
	return found[0], nil
}

func noContent(arg string, names []string) error {
	where := "any namespace"
	if len(names) == 1 {
		where = strconv.Quote(names[0])
	}
	return fmt.Errorf("content %s in %s: %w", cellar.Shorten(arg), where, errdefs.ErrNotFound)
}

// completeDigests offers the digests that begin with what was typed.
func (a *app) completeDigests(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var found []string
	err := a.with(cmd.Context(), mustExist, func(ctx context.Context, s *session) error {
		return s.store.Walk(ctx, func(info cellar.Info) error {
			if strings.HasPrefix(info.Digest.String(), typed) {
				found = append(found, info.Digest.String())
			}
			return nil
		})
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// firstArg makes a completion offer nothing after the first argument.
func firstArg(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// parseLabels reads KEY=VALUE arguments. KEY- stands for a removal and becomes
// an empty value, where removals are allowed.
func parseLabels(args []string, removals bool) (map[string]string, error) {
	parsed := map[string]string{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok && removals {
			key, ok = strings.CutSuffix(arg, "-")
		}
		if !ok || key == "" {
			return nil, &usageError{fmt.Errorf("label %s: want KEY=VALUE%s", cellar.Shorten(arg), orRemoval(removals))}
		}
		if _, twice := parsed[key]; twice {
			return nil, &usageError{fmt.Errorf("label %s is given twice", cellar.Shorten(key))}
		}
		parsed[key] = value
	}
	return parsed, nil
}

func orRemoval(removals bool) string {
	if removals {
		return ", or KEY- to remove it"
	}
	return ""
}

// labelPaths returns the field paths of the labels in set, sorted.
func labelPaths(set map[string]string) []string {
	paths := sortedKeys(set)
	for i, key := range paths {
		paths[i] = "labels." + key
	}
	return paths
}

// formatLabels writes labels as KEY=VALUE with commas between, sorted, the
// user's own before those that tools set.
func formatLabels(set map[string]string) string {
	keys := sortedKeys(set)
	sort.SliceStable(keys, func(i, j int) bool { return !labels.Reserved(keys[i]) && labels.Reserved(keys[j]) })
	for i, key := range keys {
		keys[i] = key + "=" + set[key]
	}
	return strings.Join(keys, ",")
}
