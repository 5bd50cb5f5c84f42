package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// With the high-water record up to date, nothing that was synced goes
// unnoticed, also not the last Save.
func TestDamageToTheLastSaveIsRefusedWhenItIsKnown(t *testing.T) {
	f := longLog(t)
	last := f.saves[len(f.saves)-1]
	for at := last.from; at < last.to; at += 8 {
		b := bytes.Clone(f.after[last.segment])
		clear(b[at:last.to])
		if wrong := f.refused(f.after.with(last.segment, b)); wrong != "" {
			t.Errorf("cut at %d: %s", at-last.from, wrong)
		}
	}
}

// Until the high-water record follows, the log alone has to show that a later
// Save was begun. What it cannot show is damage that hides the very boundary
// before the last Save.
func TestDamageIsRefusedWhileTheHighWaterRecordLags(t *testing.T) {
	slow.Test(t)
	f := longLog(t)
	lagging, lost := f.after.with(highWaterFile, f.early), findings{}
	last := f.saves[len(f.saves)-1]
	boundary := last.from // of the hard state record before the last Save
	for _, r := range frames(f.after[last.segment]) {
		if r.end == last.from {
			boundary = r.at
		}
	}
	try := func(segment string, from, to int64, what string, b []byte) {
		if segment == last.segment && to > boundary {
			return
		}
		if wrong := f.refused(lagging.with(segment, b)); wrong != "" {
			lost.add("%s, %s at %d: %s", segment, what, from, wrong)
		}
	}
	for _, segment := range f.after.segments() {
		whole := f.after[segment]
		for _, r := range frames(whole) {
			b := bytes.Clone(whole)
			clear(b[r.at : r.at+8])
			try(segment, r.at, r.at+8, "zeroed length", b)
			for _, bit := range []int{0, 2, 7} {
				b := bytes.Clone(whole)
				b[r.at+7] ^= 1 << bit
				try(segment, r.at, r.at+8, fmt.Sprint("padding bit ", bit), b)
			}
		}
		for from := int64(0); from < dataEnd(whole); from += sector {
			b := bytes.Clone(whole)
			clear(b[from:min(from+sector, int64(len(b)))])
			try(segment, from, from+sector, "zeroed sector", b)
		}
	}
	lost.report(t, "synced Saves are lost")
}

func TestDamagedHighWaterRecordIsRefused(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	for range 4 {
		f.save(2, 2, 50)
	}
	f.close()
	high := f.after[highWaterFile]
	for slot := range 2 {
		// A torn write of one slot leaves the other.
		b := bytes.Clone(high)
		clear(b[slot*highWaterSlot : min((slot+1)*highWaterSlot, len(b))])
		if wrong := f.accepted(f.after.with(highWaterFile, b)); wrong != "" {
			t.Errorf("without slot %d: %s", slot, wrong)
		}
	}
	for name, b := range map[string][]byte{"empty": {}, "absent": nil, "zeroes": make([]byte, len(high))} {
		d, _, err := f.open(f.after.with(highWaterFile, b))
		if err == nil {
			t.Errorf("%s: accepted%s", name, f.closed(d))
		} else if !strings.Contains(err.Error(), highWaterFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := range highWaterSize {
		b := bytes.Clone(high)
		b[at] ^= 1
		b[highWaterSlot+at] ^= 1
		d, _, err := f.open(f.after.with(highWaterFile, b))
		if err == nil {
			t.Errorf("both slots damaged at byte %d: accepted%s", at, f.closed(d))
		}
	}
}

// A clean stop leaves no window.
func TestCloseWritesTheHighWaterRecord(t *testing.T) {
	dir := t.TempDir()
	for i := range uint64(8) {
		h, err := openHighWater(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		want := water{lastTerm: 1, lastIndex: 10 + i}
		if err := errors.Join(h.advance(want), h.close()); err != nil {
			t.Fatal(err)
		}
		if h, err = openHighWater(dir, false); err != nil {
			t.Fatal(err)
		}
		if h.now != want {
			t.Errorf("%+v, want %+v", h.now, want)
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A term, a vote and a shorter log are on the disk when advance returns.
func TestHighWaterIsSyncedBeforeAVoteIsHeardOf(t *testing.T) {
	dir := t.TempDir()
	h, err := openHighWater(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []water{{term: 3, vote: 1}, {term: 3, vote: 2}, {term: 4, lastTerm: 4, lastIndex: 9}, {term: 4, lastTerm: 4, lastIndex: 5}, {term: 4, lastTerm: 3, lastIndex: 50}} {
		if err := h.advance(w); err != nil {
			t.Fatal(err)
		}
		other := &highWater{file: h.file}
		if err := other.read("high water"); err != nil || other.now != w {
			t.Errorf("%+v, %v, want %+v", other.now, err, w)
		}
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
	if err := h.advance(water{term: 9}); err == nil {
		t.Error("a write to a closed file: no error")
	}
	if err := h.advance(water{term: 9}); err == nil {
		t.Error("the error is forgotten")
	}
}

func TestWaterIsComparedAsRaftComparesLogs(t *testing.T) {
	old := water{term: 5, vote: 2, lastTerm: 4, lastIndex: 10}
	for _, tt := range []struct {
		now water
		ok  bool
	}{
		{old, true},
		{water{5, 2, 4, 11}, true},
		{water{5, 2, 5, 3}, true}, // rewritten by a later leader
		{water{6, 0, 4, 10}, true},
		{water{6, 3, 4, 10}, true},
		{water{5, 2, 4, 9}, false},
		{water{5, 2, 3, 99}, false},
		{water{4, 2, 4, 10}, false},
		{water{5, 0, 4, 10}, false},
		{water{5, 3, 4, 10}, false},
		{water{6, 3, 4, 9}, false},
	} {
		if err := tt.now.holds(old); (err == nil) != tt.ok {
			t.Errorf("%+v after %+v: %v", tt.now, old, err)
		}
	}
	if err := (water{5, 7, 4, 10}).holds(water{5, 0, 4, 10}); err != nil {
		t.Errorf("a vote cast since: %v", err)
	}
}
