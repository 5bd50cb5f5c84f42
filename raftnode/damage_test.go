package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// votedLog is a log of more than a hundred synced entries over many Saves, with
// votes, a tail that a leader replaced, marks, and several segments.
func votedLog(t *testing.T, r *rand.Rand) *logFixture {
	smallSegments(t, 8<<10)
	f := newLogFixture(t)
	term := uint64(2)
	for f.last() < 130 {
		switch r.IntN(10) {
		case 0: // an election: a vote, and the new leader's first entry
			term++
			f.saveEntries(term, nil)
			f.save(term, 1, 0)
		case 1:
			if f.last() > 4 && f.mark+3 < f.last() {
				term++
				f.saveFrom(f.last()-1, term, 2+r.IntN(3), 40+r.IntN(100))
			}
		case 2:
			if commit := f.state.GetCommit(); commit > f.mark+20 {
				f.markAt(commit)
			}
		default:
			f.save(term, 1+r.IntN(4), 20+r.IntN(300))
		}
	}
	f.save(term, 2, 60)
	f.close()
	return f
}

// reached returns the last Save that is whole in rec, which may hold a part of
// the one after it; -1 if rec is nothing that ever was on the disk.
func (f *logFixture) reached(rec recovered) int {
	mark := rec.snapshot.GetMetadata().GetIndex()
	for k := len(f.saves) - 1; k >= 0; k-- {
		at, next := &f.saves[k], &f.saves[min(k+1, len(f.saves)-1)]
		sameState := func(s *fixtureSave) bool {
			return rec.state.GetTerm() == s.state.GetTerm() && rec.state.GetVote() == s.state.GetVote()
		}
		if mark != at.mark && mark != next.mark || !sameState(at) && !sameState(next) || rec.state.GetCommit() > max(mark, lastIndex(rec.entries)) {
			continue
		}
		for n := range len(next.entries) + 1 {
			log := at.log
			if n > 0 && next != at {
				log = append(slices.Clone(at.log[:next.entries[0].GetIndex()-2]), next.entries[:n]...)
			}
			if sameEntries(rec.entries, above(log, mark)) {
				return k
			}
		}
	}
	return -1
}

// judge opens damaged files whose high-water record is that of Save floor. It
// says what is wrong: everything up to there must be found again, or the refusal
// must say where the damage is and what to do about it.
func (f *logFixture) judge(fs files, floor int) (refused bool, wrong string) {
	defer func() {
		if r := recover(); r != nil {
			wrong = fmt.Sprintf("panic: %v", r)
		}
	}()
	d, rec, err := f.open(fs)
	if err == nil {
		if k := f.reached(rec); k < floor {
			wrong = fmt.Sprintf("silently lost: it is at Save %d of %d, and had told of Save %d", k, len(f.saves), floor)
		}
		return false, wrong + f.closed(d)
	}
	var damage *damageError
	var other *IdentityError
	switch {
	case errors.As(err, &other): // a metadata record that is not this directory's
		return true, ""
	case !errors.As(err, &damage) || !strings.HasPrefix(damage.path, f.scratch):
		wrong = "no file is named"
	case strings.HasSuffix(damage.path, ".wal") && damage.offset < 0: // a whole directory has none
		wrong = "no offset is named"
	case !strings.Contains(err.Error(), "raft-chat members replace 1"):
		wrong = "no remedy is named"
	}
	if wrong != "" {
		wrong += ": " + err.Error()
	}
	return true, wrong
}

// mutation damages files and says how; nil when there is nothing to damage.
type mutation func(r *rand.Rand, f *logFixture, fs files) (files, string)

// pick chooses a segment and one of its records.
func pick(r *rand.Rand, fs files) (segment string, b []byte, at frame) {
	segments := fs.segments()
	segment = segments[r.IntN(len(segments))]
	b = bytes.Clone(fs[segment])
	all := frames(b)
	if len(all) == 0 {
		return segment, b, frame{end: int64(len(b))}
	}
	return segment, b, all[r.IntN(len(all))]
}

func mutations() map[string]mutation {
	flip := func(part func(r *rand.Rand, at frame) int64) mutation {
		return func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, b, at := pick(r, fs)
			place, bit := part(r, at), r.IntN(8)
			if place >= int64(len(b)) {
				return nil, ""
			}
			b[place] ^= 1 << bit
			return fs.with(segment, b), fmt.Sprintf("%s: bit %d of byte %d, in the %s record at %d", segment, bit, place, recordKinds[at.kind], at.at)
		}
	}
	return map[string]mutation{
		"zeroed length": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, b, at := pick(r, fs)
			clear(b[at.at:min(at.at+8, int64(len(b)))])
			return fs.with(segment, b), fmt.Sprintf("%s at %d (%s)", segment, at.at, recordKinds[at.kind])
		},
		"zeroed sector": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, b, at := pick(r, fs)
			from := at.at / sector * sector
			clear(b[from:min(from+sector, int64(len(b)))])
			return fs.with(segment, b), fmt.Sprintf("%s at %d", segment, from)
		},
		"cut at a record": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, b, at := pick(r, fs)
			return fs.with(segment, b[:at.at]), fmt.Sprintf("%s at %d", segment, at.at)
		},
		"cut in a record": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, b, at := pick(r, fs)
			cut := at.at + 1 + r.Int64N(max(1, at.end-at.at-1))
			return fs.with(segment, b[:min(cut, int64(len(b)))]), fmt.Sprintf("%s at %d", segment, cut)
		},
		// The frame is the length (7 bytes) with the padding in the eighth, then
		// the record: type, checksum, data.
		"bit of a length":   flip(func(r *rand.Rand, at frame) int64 { return at.at + r.Int64N(7) }),
		"bit of a padding":  flip(func(_ *rand.Rand, at frame) int64 { return at.at + 7 }),
		"bit of a type":     flip(func(r *rand.Rand, at frame) int64 { return at.at + 8 + r.Int64N(2) }),
		"bit of a checksum": flip(func(r *rand.Rand, at frame) int64 { return at.at + 10 + r.Int64N(6) }),
		"bit of the data":   flip(func(r *rand.Rand, at frame) int64 { return at.at + 16 + r.Int64N(max(1, at.end-at.at-16)) }),
		"segment gone": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			segment, _, _ := pick(r, fs)
			return fs.with(segment, nil), segment
		},
		"snapshot file gone or damaged": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			var snaps []string
			for name := range fs {
				if strings.HasPrefix(name, snapDir) {
					snaps = append(snaps, name)
				}
			}
			if slices.Sort(snaps); len(snaps) == 0 {
				return nil, ""
			}
			name := snaps[r.IntN(len(snaps))]
			b := bytes.Clone(fs[name])
			switch place := r.IntN(len(b)); r.IntN(3) {
			case 0:
				return fs.with(name, nil), name + " gone"
			case 1:
				return fs.with(name, b[:place]), fmt.Sprintf("%s cut at %d", name, place)
			default:
				b[place] ^= 1 << r.IntN(8)
				return fs.with(name, b), fmt.Sprintf("%s: byte %d", name, place)
			}
		},
		"high-water record gone or damaged": func(r *rand.Rand, _ *logFixture, fs files) (files, string) {
			b := bytes.Clone(fs[highWaterFile])
			switch r.IntN(4) {
			case 0:
				return fs.with(highWaterFile, nil), "gone"
			case 1:
				cut := r.IntN(len(b))
				return fs.with(highWaterFile, b[:cut]), fmt.Sprint("cut at ", cut)
			default:
				for slot := range 2 {
					b[slot*highWaterSlot+r.IntN(highWaterSize)] ^= 1 << r.IntN(8)
				}
				return fs.with(highWaterFile, b), "both slots damaged"
			}
		},
		"older copy of the log": func(r *rand.Rand, f *logFixture, fs files) (files, string) {
			k := r.IntN(len(f.saves))
			return f.saves[k].files.with(highWaterFile, fs[highWaterFile]), fmt.Sprint("as of Save ", k)
		},
		"nothing": func(_ *rand.Rand, _ *logFixture, fs files) (files, string) { return fs, "" },
	}
}

// Every kind of damage at many places, alone and two at a time, with the
// high-water record as it is after highWaterLag and as it is before: nothing
// that the node had told of by then is lost in silence.
func TestDamageIsRefusedOrHarmless(t *testing.T) {
	slow.Test(t)
	all := mutations()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 17))
		f := votedLog(t, r)
		last := len(f.saves) - 1
		if n := len(f.after.segments()); n < 3 || len(f.log) < 100 {
			t.Fatalf("seed %d: %d entries in %d segments", seed, len(f.log), n)
		}
		lost := findings{}
		for _, name := range names {
			refusals := 0
			for range 24 {
				floor := last
				fs := f.after
				if r.IntN(3) == 0 { // the background has not caught up yet
					floor = last - r.IntN(5)
					fs = fs.with(highWaterFile, f.saves[floor].files[highWaterFile])
				}
				damaged, what := all[name](r, f, fs)
				if r.IntN(3) == 0 && damaged != nil && len(damaged.segments()) > 0 {
					second := names[r.IntN(len(names))]
					// What is read as a copy of the log, or is no log, stays whole.
					if !strings.Contains(second, "copy") && damaged[highWaterFile] != nil && len(damaged[highWaterFile]) > highWaterSlot+highWaterSize-1 {
						if more, too := all[second](r, f, damaged); more != nil {
							damaged, what = more, what+" and "+second+" "+too
						}
					}
				}
				if damaged == nil {
					continue
				}
				refused, wrong := f.judge(damaged, floor)
				if refused {
					refusals++
				}
				if wrong != "" {
					lost.add("seed %d, %s, %s (known up to Save %d of %d): %s", seed, name, what, floor, last, wrong)
				}
			}
			// What hits anything but the very end is noticed.
			if refusals == 0 && name != "nothing" {
				t.Errorf("seed %d: %s is never refused", seed, name)
			}
		}
		lost.report(t, "damage is neither refused well nor harmless")
	}
}

// An older copy of the high-water record alone hides nothing.
func TestOlderHighWaterRecordOverAWholeLogIsHarmless(t *testing.T) {
	f := votedLog(t, rand.New(rand.NewPCG(3, 17)))
	for k := range f.saves {
		fs := f.after.with(highWaterFile, f.saves[k].files[highWaterFile])
		if refused, wrong := f.judge(fs, len(f.saves)-1); refused || wrong != "" {
			t.Errorf("as of Save %d: refused %v, %s", k, refused, wrong)
		}
	}
}

// What a whole directory is put back to cannot be told from the directory that
// it once was by what is in it, but by members that met it later: doc.go says so,
// and this shows where the line is.
func TestOlderCopyOfEverythingIsTheKnownWindow(t *testing.T) {
	f := votedLog(t, rand.New(rand.NewPCG(4, 17)))
	for k := 1; k < len(f.saves); k += 5 {
		older := f.saves[k].files
		if refused, wrong := f.judge(older, k); refused || wrong != "" {
			t.Errorf("everything as of Save %d: refused %v, %s", k, refused, wrong)
		}
		if k == len(f.saves)-1 {
			continue
		}
		// The record of another moment gives it away.
		if refused, wrong := f.judge(older.with(highWaterFile, f.after[highWaterFile]), len(f.saves)-1); !refused || wrong != "" {
			t.Errorf("the log as of Save %d under the newest high-water record: refused %v, %s", k, refused, wrong)
		}
	}
}

// The identity, too, is refused with its path and the remedy.
func TestDamagedIdentityNamesTheRemedy(t *testing.T) {
	dir := t.TempDir()
	if err := testIdentity().save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	overwrite(t, path, 9, 'x')
	_, err := claimIdentity(&Config{ID: 3, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "raft-chat members replace 3") {
		t.Errorf("refused with %v", err)
	}
}
