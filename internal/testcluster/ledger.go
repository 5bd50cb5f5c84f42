package testcluster

import (
	"errors"
	"fmt"
	"sync"
)

// Ledger is a record, kept outside of the cluster, of every message that was
// acknowledged. All methods may be called concurrently.
type Ledger struct {
	mu    sync.Mutex
	acked map[sent]Message
}

// sent is what the client knows a message by.
type sent struct{ room, clientMessageID string }

// Acknowledged notes an acknowledgement of the message that was sent. It
// returns an error if the answer is not that message, or if an earlier answer
// for the same client message id told another one.
func (l *Ledger) Acknowledged(asked, stored Message) error {
	if stored.Room != asked.Room || stored.User != asked.User || stored.Message != asked.Message || stored.ClientMessageID != asked.ClientMessageID {
		return fmt.Errorf("%+v was posted, %+v was acknowledged", asked, stored)
	}
	if stored.Seq == 0 || stored.ID == 0 || stored.ID < stored.Seq {
		return fmt.Errorf("no message can have this Seq and ID: %+v", stored)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == nil {
		l.acked = map[sent]Message{}
	}
	key := sent{asked.Room, asked.ClientMessageID}
	if before, told := l.acked[key]; told && !same(before, stored) {
		return fmt.Errorf("acknowledged first as %+v, then as %+v", before, stored)
	}
	l.acked[key] = stored
	return nil
}

// same compares times as times: one moment has many representations.
func same(a, b Message) bool {
	at := b.PostedAt
	if !a.PostedAt.Equal(at) {
		return false
	}
	a.PostedAt = at
	return a == b
}

// Len is how many messages were acknowledged.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// Check compares everything that a node stores with what was acknowledged:
// each acknowledged message is there exactly once, where and as it was told;
// nothing else is there; in every room Seq counts 1, 2, 3 …, and so does ID over
// all rooms; PostedAt never decreases along ID. stored is in ascending order
// of Seq within each room. Every message sent must have been acknowledged.
func (l *Ledger) Check(stored []Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wrong []error
	report := func(format string, args ...any) {
		if len(wrong) < 10 { // more of the same does not help
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	found := make(map[sent]bool, len(stored))
	last := map[string]uint64{}
	byID := make([]*Message, len(stored)+1)
	for i := range stored {
		m := &stored[i]
		last[m.Room]++
		if m.Seq != last[m.Room] {
			report("room %s: Seq %d stands where %d should", m.Room, m.Seq, last[m.Room])
		}
		if m.ID == 0 || m.ID >= uint64(len(byID)) || byID[m.ID] != nil {
			report("ID %d of %d messages is out of range or there twice", m.ID, len(stored))
		} else {
			byID[m.ID] = m
		}
		key := sent{m.Room, m.ClientMessageID}
		told, acked := l.acked[key]
		switch {
		case !acked:
			report("nobody was told of %+v", *m)
		case found[key]:
			report("stored twice: %+v", *m)
		case !same(told, *m):
			report("acknowledged as %+v, stored as %+v", told, *m)
		}
		found[key] = true
	}
	for key, m := range l.acked {
		if !found[key] {
			report("acknowledged and not there: %+v", m)
		}
	}
	for id := 2; id < len(byID); id++ {
		if byID[id] != nil && byID[id-1] != nil && byID[id].PostedAt.Before(byID[id-1].PostedAt) {
			report("message %d was posted at %v, the one after it at %v", id-1, byID[id-1].PostedAt, byID[id].PostedAt)
		}
	}
	return errors.Join(wrong...)
}
