package chat

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Delivery is what a stream has for its reader at a time.
type Delivery struct {
	// Gaps come before all of Messages. They ascend by ID.
	Gaps []Gap
	// Messages ascend by ID.
	Messages []*Message
}

// Empty reports whether there is nothing in d.
func (d Delivery) Empty() bool { return len(d.Gaps)+len(d.Messages) == 0 }

// Gap says that messages of a room were dropped before the stream could deliver
// them. It comes before everything from the first of them on, so that whoever has
// all up to an ID knows of all gaps up to it.
type Gap struct {
	Room string
	// FirstSeq and LastSeq are the first and last message that is missing.
	// LastSeq+1 is the first that is still stored, or the next to be posted.
	//
	// FirstSeq is exact for a stream of rooms that knows its place in the room,
	// which is one that delivered something of it, began at the first message,
	// or began at CursorAfterSeq. Elsewhere all that is known is an ID, and
	// nothing is left that would tell the Seq for it: FirstSeq is then the
	// lowest that is possible, and nothing before it is missing.
	FirstSeq, LastSeq uint64
	// ID is the cursor to go on after. A stream that begins there does not tell
	// of the gap again, unless messages of other rooms are among the missing
	// ones and still to be delivered. One on a node that has yet to drop the
	// missing messages may deliver some of them after all.
	ID uint64
	// Beyond, if not nil, says that nothing was dropped: the stream was to begin
	// beyond the newest message of the cluster. It goes on from there, and what the
	// reader has of messages up to LastSeq, 0 if there are none, may be of another
	// history. A stream of every room gives one such gap, without a room and Seqs.
	Beyond *Error

	dropped uint64 // ID of the message LastSeq
}

// gapOf is the gap of a stream that misses Seq from of a room, at least.
func gapOf(room string, st roomState, from uint64) Gap {
	return Gap{Room: room, FirstSeq: from, LastSeq: st.first - 1, dropped: st.droppedID}
}

// missedFrom gives the lowest Seq that can be missing in a room to somebody who
// has or knows of everything up to ID cursor, and misses the message with
// st.droppedID: it takes every ID since as one of this room.
func missedFrom(st roomState, cursor uint64) uint64 {
	ids := st.droppedID - cursor
	if ids >= st.first {
		return 1
	}
	return st.first - ids
}

// place gives gaps their IDs and sorts them by these. Nothing with an ID up to
// until is to be delivered after them.
func place(gaps []Gap, until uint64) {
	for i := range gaps {
		gaps[i].ID = min(gaps[i].dropped, until)
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Compare(a.ID, b.ID) })
}

// gapScan is how far a stream of every room has looked for gaps.
type gapScan struct {
	// done is the index of a log entry: the gaps of rooms that were trimmed by
	// it or before were told of.
	done uint64
	// While a scan is not complete, it is to reach base, and rooms up to dropped
	// ID after are done.
	base, after uint64
	// told has the Seq that the last gap told of a room ended before. Rooms may
	// be forgotten, which only costs exactness.
	told map[string]uint64
}

// next gives the gaps not told of, at most maxStreamGaps, of a stream that
// has or knows of everything up to cursor. more says that it is to be called
// again before anything else is delivered. r does not change meanwhile.
func (g *gapScan) next(r pebble.Reader, cursor uint64) (gaps []Gap, more bool, err error) {
	index, err := readTrims(r)
	if err != nil || index <= g.done {
		return nil, false, err
	}
	if g.base == 0 {
		g.base, g.after = index, cursor
	}
	it, err := r.NewIter(&pebble.IterOptions{
		LowerBound: append(appendDroppedKey(nil, g.after), 0), // the key after that
		UpperBound: []byte{prefixDropped + 1},
	})
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if len(gaps) == maxStreamGaps {
			return gaps, true, nil
		}
		gap, trimmed, err := iterGap(r, it, cursor)
		if err != nil {
			return nil, false, err
		}
		g.after = gap.dropped
		gap.FirstSeq = max(gap.FirstSeq, g.told[gap.Room])
		if trimmed <= g.done || gap.FirstSeq > gap.LastSeq {
			continue
		}
		if g.told == nil || len(g.told) == maxTold {
			g.told = make(map[string]uint64)
		}
		g.told[gap.Room] = gap.LastSeq + 1
		gaps = append(gaps, gap)
	}
	g.done, g.base = g.base, 0
	return gaps, false, it.Error()
}

// iterGap gives the gap of the room an iterator over dropped IDs is at, and the
// index of the log entry that trimmed it last.
func iterGap(r pebble.Reader, it *pebble.Iterator, cursor uint64) (gap Gap, trimmed uint64, err error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return Gap{}, 0, err
	}
	d, err := decodeDropped(value)
	if err != nil {
		return Gap{}, 0, err
	}
	name, err := readRoomName(r, d.room)
	if err != nil {
		return Gap{}, 0, err
	}
	st, err := readRoomState(r, d.room)
	if err != nil {
		return Gap{}, 0, err
	}
	if len(it.Key()) != idKeyLen || binary.BigEndian.Uint64(it.Key()[1:]) != st.droppedID {
		return Gap{}, 0, badRecord("dropped messages")
	}
	return gapOf(name, st, missedFrom(st, cursor)), d.trimmed, nil
}

// readTrims gives the index of the last log entry that dropped messages; 0 if
// none did.
func readTrims(r pebble.Reader) (index uint64, err error) {
	err = get(r, trimsKey(), func(value []byte) (err error) {
		index, err = decodeTrims(value)
		return err
	})
	return index, err
}
