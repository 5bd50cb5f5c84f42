package chat

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// maxDropBytes bounds the records that one command reads in order to drop them.
// Like maxTrimMessages it is part of the command's meaning.
const maxDropBytes = 4 << 20

// drop removes the messages of rm with a Seq below first, or only the oldest of
// them if they are long, and with each everything that leads to it. There is at
// least one such message.
func (a *applier) drop(rm *room, first uint64) error {
	if err := a.indexBatch(); err != nil {
		return err
	}
	ids, err := a.dropMessages(rm, first)
	if err != nil {
		return err
	}
	before := rm.droppedID
	rm.first += uint64(len(ids))
	rm.messages -= uint64(len(ids))
	rm.droppedID = ids[len(ids)-1]
	a.dropped = max(a.dropped, rm.droppedID)
	a.trimmed = true
	a.touch(rm)

	if before > 0 {
		a.key = appendDroppedKey(a.key[:0], before)
		if err := a.batch.Delete(a.key, nil); err != nil {
			return err
		}
	}
	a.key = appendDroppedKey(a.key[:0], rm.droppedID)
	record := droppedRecord{room: rm.number, trimmed: a.index}
	a.scratch = record.append(a.scratch[:0])
	if err := a.batch.Set(a.key, a.scratch, nil); err != nil {
		return err
	}
	a.scratch = appendTrims(a.scratch[:0], a.index)
	if err := a.batch.Set(trimsKey(), a.scratch, nil); err != nil {
		return err
	}

	var state [trimmedStateLen]byte
	rm.roomState.put(state[:])
	a.key = appendRoomStateKey(a.key[:0], rm.number)
	a.effect(effectTrim, a.key, state[:])
	return a.dropRuns(ids)
}

// indexBatch makes the batch readable: what the running Apply stored before may
// be dropped by it, too, and how entries are grouped must not matter. It is not
// so from the start since that costs every message something.
func (a *applier) indexBatch() error {
	if a.indexed {
		return nil
	}
	batch := a.db.NewIndexedBatch()
	if err := batch.Apply(a.batch, nil); err != nil {
		return errors.Join(err, batch.Close())
	}
	err := a.batch.Close()
	a.batch, a.indexed = batch, true
	return err
}

// dropMessages deletes messages, but not the client message ids they hold, and
// gives their IDs, ascending.
func (a *applier) dropMessages(rm *room, first uint64) (ids []uint64, err error) {
	it, err := a.batch.NewIter(&pebble.IterOptions{
		LowerBound: appendMessageKey(nil, rm.number, rm.first),
		UpperBound: appendMessageKey(nil, rm.number, first),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	bytes := 0
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		if len(key) != messageKeyLen || binary.BigEndian.Uint64(key[idKeyLen:]) != rm.first+uint64(len(ids)) {
			return nil, badRecord("message key")
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		if bytes += len(value); bytes > maxDropBytes && len(ids) > 0 {
			return ids, nil
		}
		m, err := decodeMessageFields(value)
		if err != nil {
			return nil, err
		}
		if err := a.batch.Delete(key, nil); err != nil {
			return nil, err
		}
		if len(m.clientID) > 0 {
			if err := a.bury(rm, rm.first+uint64(len(ids)), &m); err != nil {
				return nil, err
			}
		}
		ids = append(ids, m.id)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	if rm.first+uint64(len(ids)) != first {
		return nil, badRecord("messages of a room")
	}
	return ids, nil
}

// dropRuns deletes the records of those log entries among whose messages were
// ids, ascending, and of which nothing is left.
func (a *applier) dropRuns(ids []uint64) (err error) {
	it, err := a.batch.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixIDIndex}, UpperBound: []byte{prefixIDIndex + 1},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	firsts := a.firstSeqs()
	var runs []run
	next := uint64(0) // first ID behind the entry looked at last
	for _, id := range ids {
		if id < next {
			continue
		}
		if id >= a.first {
			return nil // the running entry; putRuns sees to it
		}
		if !it.SeekLT(appendIDKey(a.key[:0], id+1)) {
			return errors.Join(badRecord("ID index"), it.Error())
		}
		if next, runs, err = iterRuns(it, runs); err != nil {
			return err
		}
		for _, r := range runs {
			next += r.count
		}
		if id >= next {
			return badRecord("ID index")
		}
		gone, err := firsts.allDropped(runs)
		if err != nil {
			return err
		}
		if gone {
			if err := a.batch.Delete(it.Key(), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// allDropped reports whether no message of runs is stored any more.
func (f *firstSeqs) allDropped(runs []run) (bool, error) {
	for _, r := range runs {
		first, err := f.of(r.room)
		if err != nil || r.seq+r.count > first {
			return false, err
		}
	}
	return true, nil
}

// firstSeqs are the Seqs that rooms begin with, by their number, as the running
// Apply has decided so far.
type firstSeqs struct {
	stored pebble.Reader
	known  map[uint64]uint64
}

func (a *applier) firstSeqs() *firstSeqs {
	f := &firstSeqs{stored: a.db, known: make(map[uint64]uint64, len(a.touched))}
	for _, rm := range a.touched {
		f.known[rm.number] = rm.first
	}
	return f
}

func (f *firstSeqs) of(number uint64) (uint64, error) {
	if first, ok := f.known[number]; ok {
		return first, nil
	}
	st, err := readRoomState(f.stored, number)
	if err == nil {
		f.known[number] = st.first
	}
	return st.first, err
}
