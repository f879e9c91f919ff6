package metadata_test

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// What containerd leaves in its raw store by mistake shows in traces. Cellar
// does not, and the player makes up for it, so that all that follows in a trace
// can be compared.

// leftover is the file of an ingestion.
type leftover struct {
	data  string
	total int64
}

// fill writes data into an ingestion. One that is begun with another size than
// it had before is empty then; in containerd its file has the old bytes behind
// the new ones, which nobody wants and every later answer shows. They are
// written here too.
func (p *player) fill(cw cellar.Writer, op traceOp, before cellar.Status, data string) error {
	key, st := op.NS+"/"+op.Ref, p.status(cw)
	old := p.left[key].data
	if before.Total > 0 && st.Total != before.Total && len(old) > len(data) {
		p.Logf("bytes of another size stay in %s", key)
		data += old[len(data):]
	}
	p.left[key] = leftover{old[:min(int(st.Offset), len(old))] + data, st.Total}
	if data == "" {
		return nil
	}
	_, err := cw.Write([]byte(data))
	return err
}

// bringBack restores the bytes of an ingestion that was dropped together with
// its namespace, or was aborted, or committed, after it had taken content over.
// Here they are gone; in containerd the next ingestion of that ref has them,
// unless a collection came before.
func (p *player) bringBack(ctx context.Context, op traceOp) {
	key := op.NS + "/" + op.Ref
	left, ok := p.left[key]
	if _, err := p.ns(op.NS).Status(ctx, op.Ref); !ok || err == nil {
		return
	}
	if op.Want.Offset == nil {
		return
	}
	size := int64(len(left.data))
	switch whole := op.Declare && *op.Want.Offset == int64(len(p.blob(op.Blob).Data)); {
	case whole && p.shownNext(op) != (traceIngest{size, left.total}), !whole && *op.Want.Offset != size, size == 0:
		return
	}
	p.Logf("bytes of %s come back", key)
	cw, err := p.ns(op.NS).Writer(ctx, cellar.WithRef(op.Ref), withSize(left.total))
	if err != nil {
		return // nor does containerd open one
	}
	p.world.write(cw, []byte(left.data))
	require.NoError(p, cw.Close())
}

// shownNext is what the next state of the trace says of the ingestion of op,
// nothing if other operations on it come before.
func (p *player) shownNext(op traceOp) traceIngest {
	for _, next := range p.ops[p.next:] {
		if next.Want.State != nil {
			shown, ok := next.Want.State.Namespaces[op.NS].Ingests[op.Ref]
			if !ok {
				break
			}
			return shown
		}
		if next.NS == op.NS && next.Ref == op.Ref {
			break
		}
	}
	return traceIngest{-1, -1}
}
