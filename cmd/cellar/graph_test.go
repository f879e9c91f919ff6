package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/metadata"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func digestOf(i int) digest.Digest { return digest.FromString(strconv.Itoa(i)) }

// draw returns what the verb prints in a session, and how long that took.
func draw(t *testing.T, s *session, format string) (string, time.Duration) {
	t.Helper()
	var out bytes.Buffer
	started := time.Now()
	require.NoError(t, (&app{out: &out}).graph(t.Context(), s, nil, graphFlags{format: format}))
	return out.String(), time.Since(started)
}

// records is a store of nothing but records.
type records struct {
	cellar.Store
	infos []cellar.Info
}

func (r *records) Walk(_ context.Context, fn cellar.WalkFunc, _ ...string) error {
	for _, info := range r.infos {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// noLeases is a manager that has none.
type noLeases struct{ leases.Manager }

func (noLeases) List(context.Context, ...string) ([]leases.Lease, error) { return nil, nil }

var shortName = regexp.MustCompile(`sha256:[0-9a-f]{12}`)

func TestLargeGraphs(t *testing.T) {
	// Graphs of 5,000 records, wide ones, deep ones, and ones where all refer to
	// many, print each record once, each reference once, and within a second.
	const size = 5000
	root := map[string]string{labels.GCRoot: "x"}
	shapes := map[string]func(i int) map[string]string{
		"wide": func(i int) map[string]string {
			if i == size-1 {
				return root
			}
			return map[string]string{labels.GCBackRefContent: string(digestOf(size - 1))}
		},
		"chain": func(i int) map[string]string {
			refs := map[string]string{labels.GCRefContent: string(digestOf(i + 1))}
			if i == 0 {
				refs[labels.GCRoot] = "x"
			}
			return refs
		},
		"circle": func(i int) map[string]string {
			return map[string]string{labels.GCRefContent: string(digestOf((i + 1) % size))}
		},
		"mesh": func(i int) map[string]string {
			refs := map[string]string{labels.GCRoot: "x"}
			for n := range 3 {
				refs[labels.GCRefContent+"."+strconv.Itoa(n)] = string(digestOf((i*7 + n*n) % size))
			}
			return refs
		},
	}
	for name, labelsOf := range shapes {
		t.Run(name, func(t *testing.T) {
			store := &records{}
			for i := range size {
				store.infos = append(store.infos, cellar.Info{Digest: digestOf(i), Size: 1, Labels: labelsOf(i)})
			}
			s := &session{name: "default", store: store, leases: noLeases{}}
			edges := map[string]int{"wide": size - 1, "chain": size, "circle": size, "mesh": 3 * size}[name]
			for format, arrow := range map[string]string{"tree": "─ ", "dot": " -> ", "mermaid": " -->", "json": `"from": `} {
				out, took := draw(t, s, format)
				require.Equal(t, edges, strings.Count(out, arrow), format)
				require.Less(t, took, time.Second, format)
				require.Less(t, len(out), 20<<20, "a deep tree must not grow to the right for ever")
				if format == "json" {
					continue
				}
				drawn := map[string]bool{}
				for _, name := range shortName.FindAllString(out, -1) {
					drawn[name] = true
				}
				require.GreaterOrEqual(t, len(drawn), size, "each record is drawn in %s", format)
			}
		})
	}
}

func TestGraphWithAnyNames(t *testing.T) {
	// Whatever leases and labels are called, the drawings can be parsed, and
	// different things have different names.
	nasty := []string{
		`"`, `\`, `\"`, `"\`, `a"]; evil [label="x`, "new\nline", "\x00", "\xff\xfe", "tab\t", "\x1b[31m", "#quot;", "`md`",
		"<b>&amp;</b>", "|x|", "--> n0", "%% no", "end", "端口", "lease x", "missing x", `\N\l`, "\u202eoverride", "}", "{{x}}", "(([",
	}
	s, err := openSession(filepath.Join(t.TempDir(), "store"), "default", metadata.Options{})
	require.NoError(t, err)
	defer s.close()
	refs := map[string]string{}
	for _, name := range nasty {
		refs[labels.GCRefContent+"."+name] = name
	}
	content := ocispec.Descriptor{Digest: digestOf(0), Size: 1}
	require.NoError(t, cellar.WriteBlob(t.Context(), s.store, "ref", strings.NewReader("0"), content, cellar.WithLabels(refs)))
	for _, name := range nasty {
		_, err := s.leases.Create(t.Context(), leases.WithID(name))
		require.NoError(t, err)
		require.NoError(t, s.leases.AddResource(t.Context(), name, leases.Resource{Type: leases.Content, ID: string(digestOf(0))}))
	}

	const quoted = `"(?:[^"\\\x00-\x1f]|\\.)*"`
	dot := regexp.MustCompile(`^(?:digraph ` + quoted + ` \{|\t(?:rankdir=LR|node \[shape=box\]);|\t(` + quoted + `) \[label=` + quoted +
		`(?:, (?:shape|style)=[a-z]+)?\];|\t` + quoted + ` -> ` + quoted + `(?: \[label=` + quoted + `\])?;|\})$`)
	require.Equal(t, 1+2*len(nasty), differentNames(t, s, "dot", dot))

	const text = `"(?:[^"#&\\<>` + "`" + `\x00-\x1f]|#[0-9]+;|<br>)*"`
	mermaid := regexp.MustCompile(`^(?:flowchart LR|  (l[0-9]+)\(\[` + text + `\]\)|  (n[0-9]+)\[` + text + `\]|  [ln][0-9]+ -->(?:\|` + text + `\|)? n[0-9]+)$`)
	require.Equal(t, 1+2*len(nasty), differentNames(t, s, "mermaid", mermaid))

	tree, _ := draw(t, s, "tree")
	require.Equal(t, 1+3*len(nasty), strings.Count(tree, "\n"), "no name breaks a line")
	require.NotContains(t, tree, "\x1b")

	var report graphReport
	out, _ := draw(t, s, "json")
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Len(t, report.Leases, len(nasty))
	require.Len(t, report.References, len(nasty))
}

// differentNames returns how many nodes the drawing defines.
func differentNames(t *testing.T, s *session, format string, grammar *regexp.Regexp) int {
	t.Helper()
	out, _ := draw(t, s, format)
	names := map[string]bool{}
	for line := range strings.Lines(out) {
		found := grammar.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		require.NotNil(t, found, "not a statement of %s: %q", format, line)
		if name := strings.Join(found[1:], ""); name != "" {
			require.False(t, names[name], "%s is there twice", name)
			names[name] = true
		}
	}
	return len(names)
}

func TestVisible(t *testing.T) {
	// What a terminal shows as it is stays as it is; all else is quoted.
	for in, want := range map[string]string{
		"": "", "a b": "a b", `"`: `"`, `\n`: `\n`, "端": "端",
		"\n": `"\n"`, "\xff": `"\xff"`, "a\x1b[1m": `"a\x1b[1m"`, "\u202e": `"\u202e"`,
	} {
		require.Equal(t, want, visible(in))
	}
}

func TestEdgeOrder(t *testing.T) {
	// Numbers at the end of a label are ordered by value.
	sorted := []string{"a", "l.0", "l.2", "l.10", "m.1"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := compareEdges(edge{label: a, to: &node{}}, edge{label: b, to: &node{}})
			require.Equal(t, i < j, got < 0, fmt.Sprint(a, b))
		}
	}
}
