package raftnode

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// water is what the log has held: if a start finds less, the log has lost
// entries or a vote, by whatever damage.
type water struct {
	term, vote          uint64
	lastTerm, lastIndex uint64 // of the last entry or snapshot
}

// holds returns nil if a log that had reached old can be at w.
func (w water) holds(old water) error {
	switch {
	case w.term < old.term, w.term == old.term && old.vote != 0 && w.vote != old.vote:
		return fmt.Errorf("the log knows term %d and a vote for %d, but this member had reached term %d and a vote for %d", w.term, w.vote, old.term, old.vote)
	case w.shorter(old):
		return fmt.Errorf("the log ends at entry %d of term %d, but had reached entry %d of term %d", w.lastIndex, w.lastTerm, old.lastIndex, old.lastTerm)
	}
	return nil
}

// shorter compares as raft does: the later last term wins, then the length.
func (w water) shorter(old water) bool {
	return cmp.Or(cmp.Compare(w.lastTerm, old.lastTerm), cmp.Compare(w.lastIndex, old.lastIndex)) < 0
}

// Urgent reports whether a record that follows old must be durable before
// anybody hears of what it says: the term or the vote is new, or the log shorter.
func (w water) Urgent(old water) bool {
	return w.term != old.term || w.vote != old.vote || w.shorter(old)
}

// reach moves the end to an entry or snapshot beyond it.
func (w *water) reach(term, index uint64) {
	if w.shorter(water{lastTerm: term, lastIndex: index}) {
		w.lastTerm, w.lastIndex = term, index
	}
}

const (
	highWaterFile    = "highwater"
	highWaterVersion = 1
	highWaterSlot    = 4096 // two slots, written in turn: a torn write leaves the other
	highWaterSize    = 1 + 5*8 + 4
	highWaterLag     = 50 * time.Millisecond
)

// highWater is a small file beside the log. A term or vote is synced here
// before anybody hears of it; entries follow in the background, at most
// highWaterLag and one sync behind, so that the hot path flushes once.
type highWater struct {
	file *os.File

	io      sync.Mutex // held over a write and its sync; taken before mu
	counter uint64     // of the newest slot

	mu    sync.Mutex
	now   water
	dirty bool
	err   error // a failed write or sync is final

	wake chan struct{} // one slot
	stop chan struct{}
	done chan struct{}
}

// openHighWater opens the file, which create makes, and returns what it says.
func openHighWater(dir string, create bool) (*highWater, error) {
	path := filepath.Join(dir, highWaterFile)
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(path, -1, errors.New("it is missing, so nothing proves that the log is whole"))
	}
	if err != nil {
		return nil, fmt.Errorf("open high-water record: %w", err)
	}
	h := &highWater{file: f, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	if create {
		err = errors.Join(h.write(water{}), h.write(water{}))
	} else {
		err = h.read(path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go h.follow()
	return h, nil
}

func (h *highWater) read(path string) error {
	found := false
	for slot := range int64(2) {
		b := make([]byte, highWaterSize)
		if _, err := h.file.ReadAt(b, slot*highWaterSlot); err != nil {
			continue // a damaged slot like any other
		}
		if b[0] != highWaterVersion || crc32.Checksum(b[:highWaterSize-4], castagnoli) != binary.BigEndian.Uint32(b[highWaterSize-4:]) {
			continue
		}
		v := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
		if counter := v(0); !found || counter > h.counter {
			found = true
			h.counter = counter
			h.now = water{term: v(1), vote: v(2), lastTerm: v(3), lastIndex: v(4)}
		}
	}
	if !found {
		return damaged(path, -1, errors.New("neither slot can be read, so nothing proves that the log is whole"))
	}
	return nil
}

// write puts w into the older slot and syncs it; io is held.
func (h *highWater) write(w water) error {
	h.counter++
	b := []byte{highWaterVersion}
	for _, v := range [...]uint64{h.counter, w.term, w.vote, w.lastTerm, w.lastIndex} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := h.file.WriteAt(b, int64(h.counter%2)*highWaterSlot); err != nil {
		return fmt.Errorf("write high-water record: %w", err)
	}
	if err := fileutil.Fdatasync(h.file); err != nil {
		return fmt.Errorf("sync high-water record: %w", err)
	}
	return nil
}

// advance notes what the log holds now. It returns after a sync if the term
// or the vote is new or the log became shorter, and reports any failure there
// ever was.
func (h *highWater) advance(w water) error {
	h.mu.Lock()
	atOnce := w.Urgent(h.now)
	h.now, h.dirty = w, true
	err := h.err
	h.mu.Unlock()
	if err != nil {
		return err
	}
	if atOnce {
		return h.catchUp()
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return nil
}

// follow writes behind.
func (h *highWater) follow() {
	defer close(h.done)
	for {
		select {
		case <-h.wake:
		case <-h.stop:
			return
		}
		timer := time.NewTimer(highWaterLag)
		select {
		case <-timer.C:
			_ = h.catchUp() // the next advance reports it
		case <-h.stop:
			timer.Stop()
			return
		}
	}
}

// catchUp writes what advance has noted. It holds io from before it reads
// that, so that a slot with a higher counter is never older.
func (h *highWater) catchUp() error {
	h.io.Lock()
	defer h.io.Unlock()
	h.mu.Lock()
	w, dirty, err := h.now, h.dirty, h.err
	h.dirty = false
	h.mu.Unlock()
	if err != nil || !dirty {
		return err
	}
	if err = h.write(w); err != nil {
		h.mu.Lock()
		h.err = err
		h.mu.Unlock()
	}
	return err
}

func (h *highWater) close() error {
	close(h.stop)
	<-h.done
	return errors.Join(h.catchUp(), h.file.Close())
}
