package storetest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/cellarstore/cellar/leases"
)

// ingestExpiry is how long an ingestion that nobody has open is kept.
const ingestExpiry = 24 * time.Hour

// Removed tells what a collection took away.
type Removed struct {
	// Records, Leases and Ingests count records that nothing kept, leases that
	// had expired, and ingestions that were left for too long.
	Records, Leases, Ingests int
}

// keeper is a way for content to be kept.
type keeper string

const (
	root          keeper = "root"
	reference     keeper = "reference"
	backReference keeper = "back reference"
	absentParent  keeper = "back reference to what is not there"
	lease         keeper = "lease"
	flatLease     keeper = "flat lease"
	grace         keeper = "grace"
	toldExists    keeper = "answer that it exists"
	takeOver      keeper = "ingestion that took it over"
)

var keepers = []keeper{root, reference, backReference, absentParent, lease, flatLease, grace, toldExists, takeOver}

// Collect removes what nothing keeps: leases and ingestions that are over, then
// records that are not reached, then bytes that nobody has a record of. Content
// is new for as long as period after it was written or found to be there.
func (m *Model) Collect(ctx context.Context, period time.Duration) (Removed, error) {
	var n Removed
	if err := ctx.Err(); err != nil {
		return n, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outcomes = map[string]bool{}
	for _, t := range m.tenants {
		n.Ingests += t.dropIngests()
		n.Leases += t.dropLeases()
	}
	for _, t := range m.tenants {
		n.Records += t.dropContent(period)
	}
	m.sweep()
	for what, count := range map[string]int{"collected a record": n.Records, "collected a lease": n.Leases, "collected an ingestion": n.Ingests} {
		if count > 0 {
			m.outcomes[what] = true
		}
	}
	return n, nil
}

// sweep removes the bytes that no record speaks of and that no ingestion has
// taken over.
func (m *Model) sweep() {
	held, taken := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, t := range m.tenants {
		for dgst := range t.content {
			held[dgst] = true
		}
		for _, ing := range t.ingests {
			taken[ing.claimed()] = true
		}
	}
	maps.DeleteFunc(m.pool, func(dgst digest.Digest, _ string) bool {
		if !held[dgst] && taken[dgst] {
			m.outcomes["kept bytes that an ingestion took over"] = true
		}
		return !held[dgst] && !taken[dgst]
	})
}

// dropIngests removes the ingestions that nobody has open, that no lease holds
// and that were left for too long.
func (t *tenant) dropIngests() int {
	before := len(t.ingests)
	maps.DeleteFunc(t.ingests, func(ref string, ing *ingestion) bool {
		over := ing.writer == nil && t.m.now().After(ing.expires)
		if over && t.holds(ingestResource(ref)) {
			t.m.outcomes["kept an ingestion by lease"] = true
			return false
		}
		return over
	})
	return before - len(t.ingests)
}

func (t *tenant) dropLeases() int {
	before := len(t.leases)
	maps.DeleteFunc(t.leases, func(_ string, l *modelLease) bool { return l.Expired(t.m.now()) })
	return before - len(t.leases)
}

func (t *tenant) dropContent(period time.Duration) int {
	before := len(t.content)
	kept := t.kept(period, "")
	for _, k := range keepers {
		if len(t.kept(period, k)) < len(kept) {
			t.m.outcomes["kept by "+string(k)] = true
		}
	}
	t.noteEdges(kept)
	maps.DeleteFunc(t.content, func(dgst digest.Digest, _ cellar.Info) bool { return !kept[dgst] })
	return before - len(t.content)
}

// kept returns the content that must stay: the least set that has what is kept
// from outside, all that its members refer to, and all that has a back
// reference to something reached. What is reached need not be there. without is
// a way to be kept that is not looked at.
func (t *tenant) kept(period time.Duration, without keeper) map[digest.Digest]bool {
	reached, alone := t.seeds(period, without)
	for grown := true; grown; {
		grown = false
		reach := func(dgst digest.Digest, why keeper) {
			if why != without && !reached[dgst] {
				reached[dgst], grown = true, true
			}
		}
		for dgst, info := range t.content {
			for _, e := range edgesOf(info) {
				_, there := t.content[e.Target]
				switch {
				case !e.Back && reached[dgst]:
					reach(e.Target, reference)
				case e.Back && reached[e.Target] && (there || without != absentParent):
					reach(dgst, backReference)
				}
			}
		}
	}
	maps.Copy(reached, alone)
	maps.DeleteFunc(reached, func(dgst digest.Digest, _ bool) bool {
		_, there := t.content[dgst]
		return !there
	})
	return reached
}

// seeds returns what is kept from outside, and what of that is kept alone: with
// nothing that it refers to.
func (t *tenant) seeds(period time.Duration, without keeper) (reached, alone map[digest.Digest]bool) {
	reached, alone = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	seed := func(dgst digest.Digest, why keeper) {
		switch {
		case dgst == "" || why == without:
		case why == flatLease:
			alone[dgst] = true
		default:
			reached[dgst] = true
		}
	}
	now := t.m.now()
	for dgst, info := range t.content {
		if now.Before(info.CreatedAt.Add(period)) {
			seed(dgst, grace)
		}
		for key := range info.Labels {
			if labels.KindOf(key) == labels.Root {
				seed(dgst, root)
			}
		}
	}
	for dgst, at := range t.told {
		if now.Before(at.Add(period)) {
			seed(dgst, toldExists)
		}
	}
	for _, ing := range t.ingests {
		seed(ing.claimed(), takeOver)
	}
	t.seedLeased(seed)
	return reached, alone
}

func (t *tenant) seedLeased(seed func(digest.Digest, keeper)) {
	for id := range t.leases {
		l, why := t.lease(id), lease
		if l == nil {
			continue
		}
		if l.flat() {
			why = flatLease
		}
		for r := range l.holds {
			if r.Type == leases.Content {
				seed(digest.Digest(r.ID), why)
			}
		}
	}
}

// edgesOf returns the references that content makes. Those to what is no digest
// are none.
func edgesOf(info cellar.Info) (edges []labels.Reference[digest.Digest]) {
	for key, value := range info.Labels {
		if ref, ok := labels.ParseReference(key, value); ok && cellar.ValidateDigest(digest.Digest(value)) == nil {
			edges = append(edges, labels.Reference[digest.Digest]{Back: ref.Back, Target: digest.Digest(value)})
		}
	}
	return edges
}

// noteEdges notes what shapes of graphs this collection had to do with.
func (t *tenant) noteEdges(kept map[digest.Digest]bool) {
	for dgst, info := range t.content {
		if !kept[dgst] {
			if t.inCycle(dgst) {
				t.m.outcomes["collected a cycle"] = true
			}
			continue
		}
		for _, e := range edgesOf(info) {
			_, there := t.content[e.Target]
			switch {
			case !there:
				t.m.outcomes["kept with a dangling reference"] = true
			case !e.Back && !kept[e.Target]:
				t.m.outcomes["kept without what it refers to"] = true
			}
		}
	}
}

// inCycle reports whether content refers to itself through at least one other.
func (t *tenant) inCycle(start digest.Digest) bool {
	gray := []digest.Digest{start}
	for seen := map[digest.Digest]bool{}; len(gray) > 0; {
		dgst := gray[len(gray)-1]
		gray = gray[:len(gray)-1]
		for _, e := range edgesOf(t.content[dgst]) {
			switch {
			case e.Back || seen[e.Target]:
			case e.Target == start && dgst != start:
				return true
			default:
				seen[e.Target] = true
				gray = append(gray, e.Target)
			}
		}
	}
	return false
}

// Outcomes tells what the last collection came upon, in words.
func (m *Model) Outcomes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.outcomes))
}

// outcomesOfCollections are those that histories are to reach.
func outcomesOfCollections() []string {
	all := []string{
		"collected a record", "collected a lease", "collected an ingestion", "collected a cycle",
		"kept an ingestion by lease", "kept with a dangling reference", "kept without what it refers to",
		"kept bytes that an ingestion took over",
	}
	for _, k := range keepers {
		if k != takeOver { // it is rare that nothing else keeps a record
			all = append(all, "kept by "+string(k))
		}
	}
	return all
}
