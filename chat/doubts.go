package chat

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// askPause is how long a stream waits after a round that nobody answered.
const askPause = 300 * time.Millisecond

// doubts is what a stream does about cursors that are ahead of what is applied
// here. Such a cursor may be of a node that is further, or of nothing that ever
// was. A round that was begun after the cursor came, see Service.Barrier, tells:
// what is then still ahead is beyond the newest message of the cluster.
type doubts struct {
	rounds uint64           // how many were begun
	answer chan error       // of the round under way; nil: none is
	pause  <-chan time.Time // until the next round; nil: no pause
	some   bool             // a cursor may be in doubt

	// all and beyond are of a stream of every room; see followed.
	all    uint64
	beyond *Error
	untold bool // something is beyond, and not told yet

	cancel context.CancelFunc // of the round under way; guarded by Stream.mu
	asking sync.WaitGroup
}

// next is the number of the round that a new doubt has to wait for.
func (d *doubts) next() uint64 {
	d.some = true
	return d.rounds + 1
}

// ask begins a round if a cursor is in doubt. It gives what its answer comes on, or
// what tells when to ask again.
func (st *Stream) ask() (answer <-chan error, again <-chan time.Time) {
	d := &st.doubts
	if !d.some || !st.inDoubt() {
		return nil, nil
	}
	if d.answer != nil || d.pause != nil {
		return d.answer, d.pause
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	select {
	case <-st.closed:
		return nil, nil
	default:
	}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	d.rounds++
	result := make(chan error, 1)
	d.answer = result
	d.asking.Go(func() { result <- st.service.Barrier(ctx) })
	return d.answer, nil
}

// inDoubt drops the doubts that have settled themselves, and reports whether there
// are others.
func (st *Stream) inDoubt() bool {
	head := st.store.head()
	if st.doubts.all > 0 && st.cursor <= head {
		st.doubts.all = 0
	}
	st.doubts.some = st.doubts.all > 0
	for _, f := range st.rooms {
		if f.doubt > 0 && f.after <= head {
			f.doubt = 0
		}
		st.doubts.some = st.doubts.some || f.doubt > 0
	}
	return st.doubts.some
}

// answered takes the answer of a round.
func (st *Stream) answered(err error) {
	d := &st.doubts
	d.answer = nil
	st.mu.Lock()
	d.cancel()
	st.mu.Unlock()
	if err != nil {
		d.pause = time.After(askPause)
		return
	}
	head := st.store.head()
	if d.all > 0 && d.all <= d.rounds {
		if d.all = 0; st.cursor > head {
			d.beyond, d.untold, st.cursor = beyondID(st.cursor, head), true, head
		}
	}
	for _, f := range st.rooms {
		if f.doubt == 0 || f.doubt > d.rounds {
			continue
		}
		if f.doubt = 0; f.after > head {
			f.beyond, f.after, f.next = beyondID(f.after, head), head, 0
			d.untold = true
		}
	}
}

// tellBeyond gives the gaps of what is beyond the newest message, at most
// maxStreamGaps.
func (st *Stream) tellBeyond() (d Delivery, err error) {
	if st.all {
		d.Gaps = []Gap{{ID: st.cursor, Beyond: st.doubts.beyond}}
		st.doubts.beyond, st.doubts.untold = nil, false
		return d, nil
	}
	more := false
	err = st.store.readAtOnce(func(r pebble.Reader) error {
		for _, f := range st.rooms {
			if f.beyond == nil {
				continue
			}
			if len(d.Gaps) == maxStreamGaps {
				more = true
				return nil
			}
			if f.next == 0 {
				// What was dropped is beyond as well.
				rec, state, _, err := readRoom(r, f.name)
				if err != nil {
					return err
				}
				if f.next, err = seqAfterID(r, rec.number, state, st.place(f)); err != nil {
					return err
				}
			}
			d.Gaps = append(d.Gaps, Gap{Room: f.name, FirstSeq: 1, LastSeq: f.next - 1, ID: st.place(f), Beyond: f.beyond})
			f.beyond = nil
		}
		return nil
	})
	if err != nil {
		return Delivery{}, err
	}
	st.doubts.untold = more
	return d, nil
}
