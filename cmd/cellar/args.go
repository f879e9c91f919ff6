package main

import (
	"context"
	"fmt"
	"sort"
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
	if digest.Digest(arg).Validate() == nil {
		return digest.Digest(arg), nil
	}
	alg, hex, ok := strings.Cut(arg, ":")
	if !ok {
		alg, hex = digest.Canonical.String(), arg
	}
	if len(hex) < minPrefix || strings.Trim(hex, "0123456789abcdef") != "" || strings.Trim(alg, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return "", fmt.Errorf("%s is neither a digest nor the first %d or more characters of one: %w", cellar.Shorten(arg), minPrefix, errdefs.ErrInvalidArgument)
	}
	found, err := s.matching(ctx, alg+":"+hex)
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("content %s in %q: %w", cellar.Shorten(arg), s.name, errdefs.ErrNotFound)
	case len(found) > 1:
		return "", fmt.Errorf("%s fits %d digests, %s and %s among them: %w", cellar.Shorten(arg), len(found), found[0], found[1], errdefs.ErrInvalidArgument)
	}
	return found[0], nil
}

// matching returns the digests that begin with prefix.
func (s *session) matching(ctx context.Context, prefix string) ([]digest.Digest, error) {
	var found []digest.Digest
	err := s.store.Walk(ctx, func(info cellar.Info) error {
		found = append(found, info.Digest)
		return nil
	}, `digest~="^`+prefix+`"`)
	return found, err
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
