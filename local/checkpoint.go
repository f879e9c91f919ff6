package local

import (
	"crypto/sha256"
	"path/filepath"

	"github.com/cellarstore/cellar/internal/vfs"
)

// A checkpoint is made in this order, so that what is read later is true
// whenever it stops: the data is synced; a slot is written that says how far;
// that is synced; the first time also the folder and ingest/. Data whose sync
// failed is condemned. A slot that can't be written costs time when the
// ingestion is resumed and no more.

const (
	// checkpointEvery is how much may be written before the next checkpoint.
	checkpointEvery = 16 << 20
	// flushEvery is how much is written before the system is asked to begin.
	flushEvery = 4 << 20
)

// snapshot takes down what a checkpoint will say.
func (w *writer) snapshot() *checkpoint {
	st, _ := w.Status()
	return &checkpoint{
		generation: w.header.generation,
		offset:     st.Offset,
		updated:    st.UpdatedAt,
		boot:       w.s.boot,
		alg:        w.alg,
		hash:       hashState(w.hash),
		expected:   st.Expected,
	}
}

// checkpointBeside starts a checkpoint beside the writing when it is time, one
// at a time.
func (w *writer) checkpointBeside() {
	off := w.offset()
	if off-w.flushed >= flushEvery {
		w.data.Flush(w.flushed, off-w.flushed)
		w.flushed = off
	}
	if off-w.started < w.s.checkpointEvery || w.running != nil {
		return
	}
	w.started = off
	c := w.snapshot()
	w.running = make(chan error, 1)
	go func(done chan<- error) {
		err := w.data.Datasync()
		if err == nil {
			_ = w.record(c)
		}
		done <- err
	}(w.running)
}

// poll takes note of a checkpoint that has come to its end.
func (w *writer) poll() error {
	select {
	case err := <-w.running:
		return w.landed(err)
	default:
		return nil
	}
}

// wait waits for the checkpoint that is being made, if any.
func (w *writer) wait() error {
	if w.running == nil {
		return nil
	}
	return w.landed(<-w.running)
}

func (w *writer) landed(err error) error {
	w.running = nil
	if err != nil && w.fate == nil {
		return w.condemn(err)
	}
	return nil
}

// save makes a checkpoint of everything and waits for it. A clean one is the
// last before the files are closed.
func (w *writer) save(clean bool) error {
	if err := w.wait(); err != nil {
		return err
	}
	if clean && w.clean {
		return nil
	}
	if err := w.trim(); err != nil {
		return err
	}
	c := w.snapshot()
	if c.offset > 0 {
		if err := w.data.Sync(); err != nil {
			return w.condemn(err)
		}
	}
	c.clean = clean
	w.started = c.offset
	return w.record(c)
}

// record writes a slot for data that is durable. Without any data there is
// nothing worth a sync.
func (w *writer) record(c *checkpoint) error {
	var err error
	if c.tail, err = tailSum(w.data, c.offset); err != nil {
		return err
	}
	info, err := w.data.Stat()
	if err != nil {
		return err
	}
	c.inode, c.mtime, c.ctime = info.Inode, info.ModTime.UnixNano(), info.ChangeTime.UnixNano()
	if err := w.writeSlot(c); err != nil || c.offset == 0 {
		return err
	}
	if err := w.state.Datasync(); err != nil {
		return err
	}
	return w.anchor()
}

// writeSlot writes c over the older of the two slots.
func (w *writer) writeSlot(c *checkpoint) error {
	c.seq, c.key = w.seq, sha256.Sum256([]byte(w.header.ref))
	if _, err := w.state.WriteAt(c.encode(), slotOffset(c.seq)); err != nil {
		return err
	}
	w.seq++
	w.last = c
	return nil
}

// unclean takes back, before the data changes, that the files are as a Close
// left them. If that can't be written the change of the data tells the same.
func (w *writer) unclean() {
	// While a checkpoint is being made the data has changed before.
	if w.running != nil || w.last == nil || !w.last.clean {
		return
	}
	c := *w.last
	c.clean = false
	if w.writeSlot(&c) != nil {
		w.last = &c
	}
}

// anchor makes the entries of the folder and its files durable, once.
func (w *writer) anchor() error {
	if w.anchored {
		return nil
	}
	if err := vfs.SyncDir(w.s.fs, w.path); err != nil {
		return err
	}
	if err := w.s.ingests.do(); err != nil {
		return err
	}
	w.anchored = true
	return nil
}

func (w *writer) dataPath() string  { return filepath.Join(w.path, dataName) }
func (w *writer) statePath() string { return filepath.Join(w.path, stateName) }
