package local

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/internal/vfs"
)

// left returns a store in which a writer of ref "r" was left with data in three
// writes, a checkpoint after each; the last one clean if closed.
func left(t *testing.T, data []byte, closed bool) *rig {
	r := newRig(t)
	w := r.open("r")
	for _, p := range [][]byte{data[:10000], data[10000:20000], data[20000:]} {
		r.write(w, p)
	}
	if closed {
		require.NoError(t, w.Close())
	}
	return r
}

func TestW_F1_ResumeAfterCloseReadsNothing(t *testing.T) {
	// After a clean Close not one byte of the data is read again, whether the
	// process went on, was killed, or the power failed.
	data := pattern(1, 30000)
	for name, again := range map[string]func(*rig) *rig{
		"same process": func(r *rig) *rig { return r },
		"killed":       (*rig).killed,
		"power loss":   (*rig).crashed,
	} {
		t.Run(name, func(t *testing.T) {
			r := again(left(t, data, true))
			before := r.fault.BytesRead(dataName)
			w := r.open("r")
			require.Equal(t, int64(30000), w.offset())
			require.Equal(t, digest.FromBytes(data), w.Digest())
			require.Equal(t, before, r.fault.BytesRead(dataName))
			require.NoError(t, w.Commit(bg, 30000, digest.FromBytes(data)))
			r.requireContent(digest.FromBytes(data), data)
		})
	}
}

func TestW_F1_ResumeAfterKillReadsWhatFollowsTheCheckpoint(t *testing.T) {
	// Killed without Close, only the bytes after the last checkpoint are hashed
	// again, and one block before it compared.
	data := pattern(1, 27000)
	r := left(t, data, false).killed() // checkpoints at 10000 and 20000
	w := r.open("r")
	require.Equal(t, int64(27000), w.offset())
	require.Equal(t, digest.FromBytes(data), w.Digest())
	require.Equal(t, int64(7000+tailSize), r.fault.BytesRead(dataName))
	require.NoError(t, w.Commit(bg, 0, digest.FromBytes(data)))
	r.requireContent(digest.FromBytes(data), data)
}

func TestResumeAfterKillOfASecondWriter(t *testing.T) {
	// A writer that went on after a clean Close and was killed costs no more
	// than its own bytes.
	data := pattern(1, 30_000)
	r := left(t, data, true)
	w := r.open("r")
	r.write(w, []byte("more"))
	r = r.killed()
	w = r.open("r")
	require.Equal(t, digest.FromBytes(append(data, "more"...)), w.Digest())
	require.Equal(t, int64(4+tailSize), r.fault.BytesRead(dataName))
}

func TestResumeAfterPowerLossDropsWhatNoCheckpointCovers(t *testing.T) {
	// After another boot the data ends with the last checkpoint, even if the
	// file kept its length: what follows was never durable.
	data := pattern(1, 27000)
	for name, keep := range map[string]float64{"nothing else kept": 0, "all kept": 1} {
		t.Run(name, func(t *testing.T) {
			r := openRig(t, left(t, data, false).mem.CrashClone(nil, keep))
			st, err := r.Status(bg, "r")
			require.NoError(t, err)
			require.Equal(t, int64(20000), st.Offset)
			w := r.open("r")
			require.Equal(t, int64(20000), w.offset())
			require.Equal(t, digest.FromBytes(data[:20000]), w.Digest())
			r.write(w, data[20000:])
			require.NoError(t, w.Commit(bg, 0, digest.FromBytes(data)))
			r.requireContent(digest.FromBytes(data), data)
		})
	}
	t.Run("without a checkpoint nothing is left", func(t *testing.T) {
		r := newRig(t)
		w := r.open("r")
		r.write(w, []byte("short"))
		r = openRig(t, r.mem.CrashClone(nil, 1))
		w = r.open("r")
		require.Zero(t, w.offset())
		require.Equal(t, digest.FromString(""), w.Digest())
	})
	t.Run("what is written after the reopening is of this boot", func(t *testing.T) {
		r := openRig(t, left(t, data, false).mem.CrashClone(nil, 1))
		w := r.open("r")
		r.write(w, data[20000:20100])
		r = r.killed()
		w = r.open("r")
		require.Equal(t, int64(20100), w.offset())
		require.Equal(t, digest.FromBytes(data[:20100]), w.Digest())
	})
}

// forge replaces both slots of ref "r" by one made of the newest, changed, with
// the hash state of other bytes: who believes it has the wrong digest.
func forge(r *rig, change func(c *checkpoint)) {
	name := filepath.Join(r.ingestPath("r"), stateName)
	st, err := decodeState(r.readFile(name))
	require.NoError(r.t, err)
	h := digest.SHA256.Hash()
	h.Write(pattern(9, int(st.slots[0].offset)))
	c := *st.slots[0]
	c.hash = hashState(h)
	change(&c)
	c.seq = 100
	r.overwrite(name, make([]byte, slotSize), slotOffset(101))
	r.overwrite(name, c.encode(), slotOffset(100))
}

func TestCheckpointsThatAreNotBelieved(t *testing.T) {
	// One thing that is wrong with a checkpoint, and it is not believed: the
	// data is hashed again. The first row proves that the forged one would be
	// believed were it right.
	data := pattern(1, 27000)
	right, wrong := digest.FromBytes(data), true
	for name, row := range map[string]struct {
		change   func(c *checkpoint)
		believed bool
	}{
		"nothing wrong but the hash": {func(c *checkpoint) {}, wrong},
		"another generation":         {func(c *checkpoint) { c.generation[0]++ }, false},
		"another ref":                {func(c *checkpoint) { c.key[31]++ }, false},
		"another data file":          {func(c *checkpoint) { c.inode++ }, false},
		"more data than there is":    {func(c *checkpoint) { c.offset = 27001 }, false},
		"a negative offset":          {func(c *checkpoint) { c.offset = -1 }, false},
		"another end of the data":    {func(c *checkpoint) { c.tail++ }, false},
		"another algorithm":          {func(c *checkpoint) { c.alg = digest.SHA512 }, false},
		"no algorithm":               {func(c *checkpoint) { c.alg = "md4" }, false},
		"no hash state":              {func(c *checkpoint) { c.hash = nil }, false},
		"clean, but touched since":   {func(c *checkpoint) { c.clean = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := left(t, data, false)
			forge(r, row.change)
			r = r.killed()
			w := r.open("r")
			require.Equal(t, int64(27000), w.offset())
			require.Equal(t, row.believed, w.Digest() != right)
			if row.believed {
				return
			}
			require.GreaterOrEqual(t, r.fault.BytesRead(dataName), int64(27000))
			require.NoError(t, w.Commit(bg, 27000, right))
			r.requireContent(right, data)
		})
	}
}

func TestTornCheckpointLeavesTheOlderOne(t *testing.T) {
	// A slot that is torn or garbled anywhere is not believed; the other one is.
	data := pattern(1, 27000)
	for _, at := range []int64{0, 4, 6, 7, 20, 60, 100, 200} {
		r := left(t, data, false)
		name := filepath.Join(r.ingestPath("r"), stateName)
		st, err := decodeState(r.readFile(name))
		require.NoError(t, err)
		require.Len(t, st.slots, 2)
		p := r.readFile(name)[slotOffset(st.slots[0].seq)+at]
		r.overwrite(name, []byte{p ^ 0x40}, slotOffset(st.slots[0].seq)+at)
		r = r.killed()
		w := r.open("r")
		require.Equal(t, digest.FromBytes(data), w.Digest())
		require.Equal(t, int64(17000+tailSize), r.fault.BytesRead(dataName), "resumed from 10000")
	}
}

func TestStaleCheckpointAfterTruncate(t *testing.T) {
	// A checkpoint from before Truncate(0) is not believed, even where the new
	// data is as long and it says that it belongs to the new file.
	data, other := pattern(1, 12000), pattern(2, 12000)
	r := newRig(t)
	w := r.open("r")
	r.write(w, data)
	name := filepath.Join(r.ingestPath("r"), stateName)
	old, err := decodeState(r.readFile(name))
	require.NoError(t, err)
	require.NoError(t, w.Truncate(0))
	r.write(w, other)

	stale := *old.slots[0]
	info, err := r.mem.Lstat(w.dataPath())
	require.NoError(t, err)
	stale.inode, stale.seq = info.Inode, 100
	stale.tail, err = tailSum(w.data, stale.offset)
	require.NoError(t, err)
	r.overwrite(name, stale.encode(), slotOffset(100))

	w = r.killed().open("r")
	require.Equal(t, int64(12000), w.offset())
	require.Equal(t, digest.FromBytes(other), w.Digest())
}

func TestDataFileChangedBehindTheCheckpoint(t *testing.T) {
	// Whatever somebody does to the data between two processes, the digest is
	// that of the bytes which are committed.
	data := pattern(1, 27000)
	for name, tamper := range map[string]func(r *rig, path string){
		"middle rewritten": func(r *rig, path string) { r.overwrite(path, []byte("XXXX"), 5000) },
		"appended":         func(r *rig, path string) { r.overwrite(path, []byte("XXXX"), 27000) },
		"shorter": func(r *rig, path string) {
			f, err := r.mem.OpenFile(path, 2, 0)
			require.NoError(r.t, err)
			require.NoError(r.t, f.Truncate(15000))
		},
		"replaced": func(r *rig, path string) {
			require.NoError(r.t, r.mem.Remove(path))
			f, err := r.mem.OpenFile(path, 0x40|2, 0o600)
			require.NoError(r.t, err)
			_, err = f.WriteAt(pattern(7, 27000), 0)
			require.NoError(r.t, err)
		},
	} {
		for boot, again := range map[string]func(*rig) *rig{"same boot": (*rig).killed, "next boot": func(r *rig) *rig {
			return openRig(t, r.mem.CrashClone(nil, 1))
		}} {
			t.Run(name+", "+boot, func(t *testing.T) {
				r := left(t, data, true)
				path := filepath.Join(r.ingestPath("r"), dataName)
				tamper(r, path)
				r = again(r)
				w := r.open("r")
				is := r.readFile(path)
				require.Len(t, is, int(w.offset()))
				require.Equal(t, digest.FromBytes(is), w.Digest())
				require.NoError(t, w.Commit(bg, 0, ""))
				r.requireContent(digest.FromBytes(is), is)
			})
		}
	}
}

func TestForeignIngestFolder(t *testing.T) {
	// The folder of another ref, or of another store, in the place of ours is
	// either the right one for its bytes or not believed.
	data := pattern(1, 27000)
	r := left(t, data, true)
	require.NoError(t, r.mem.Rename(r.ingestPath("r"), r.ingestPath("other")))
	r = r.killed()
	_, err := r.Status(bg, "other")
	require.Error(t, err)
	w := r.open("other")
	require.Zero(t, w.offset())
	require.NoError(t, w.Close())
}

func TestResumeWithAnotherAlgorithm(t *testing.T) {
	// A ref that was written with sha256 goes on with sha512 where the digest
	// says so; nothing durable is lost, also after a power loss.
	data := pattern(1, 27000)
	want := digest.SHA512.FromBytes(data)
	for name, again := range map[string]func(*rig) *rig{"killed": (*rig).killed, "power loss": (*rig).crashed} {
		t.Run(name, func(t *testing.T) {
			r := again(left(t, data, true))
			w := r.open("r", desc(want, 0))
			require.Equal(t, int64(27000), w.offset())
			require.Equal(t, want, w.Digest())
			require.NoError(t, w.Commit(bg, 0, want))
			r.requireContent(want, data)
		})
	}
}

func TestW_F2_Sha512IsNotHashedTwice(t *testing.T) {
	// Content of sha512 or sha384 is hashed while it is written; Commit reads
	// nothing.
	for _, alg := range []digest.Algorithm{digest.SHA384, digest.SHA512} {
		r := newRig(t)
		data := pattern(1, 70000)
		w, err := r.Ingest(bg, "r", 0, alg)
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
		require.NoError(t, w.Commit(bg, 0, alg.FromBytes(data)))
		require.LessOrEqual(t, r.fault.BytesRead(dataName), int64(tailSize), "the end of a checkpoint's data at most")
		r.requireContent(alg.FromBytes(data), data)
	}
}

func TestStatusSurvivesToTheNanosecond(t *testing.T) {
	// StartedAt, UpdatedAt, Total and Expected are after Close and reopening what
	// they were, with a zero-length write as the last change too.
	now := time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)
	mem := vfs.NewMem()
	open := func() *Store {
		s, err := Open("/s", Options{FS: mem, Now: func() time.Time { return now }})
		require.NoError(t, err)
		return s
	}
	s := open()
	r := &rig{Store: s, t: t, mem: mem}
	want := digest.FromString("hello world")
	w := r.open("r", desc(want, 11))
	started := now
	now = now.Add(time.Second + 1)
	_, err := w.Write([]byte("hello"))
	require.NoError(t, err)
	now = now.Add(time.Second + 1)
	_, err = w.Write(nil)
	require.NoError(t, err)
	updated := now
	now = now.Add(time.Hour)
	before, err := w.Status()
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for range 2 {
		st, err := s.Status(bg, "r")
		require.NoError(t, err)
		require.Equal(t, before, st)
		require.Equal(t, started, st.StartedAt)
		require.Equal(t, updated, st.UpdatedAt)
		require.Equal(t, want, st.Expected)
		require.Equal(t, int64(11), st.Total)
		require.NoError(t, s.Close())
		s = open()
	}
	require.NoError(t, s.Close())
}
