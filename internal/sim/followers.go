package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/oracle"
)

// follower reads a stream of rooms from the beginning, on one node after the
// other, each time from where it was.
type follower struct {
	world *world
	name  string
	rooms []string // nil: every room
	heard *oracle.Subscriber

	cursor  uint64
	passed  map[string]uint64 // by room: the last Seq that came or was told to be gone
	missing map[place]bool    // told to be gone, and did not come
	process *process
	stream  *chat.Stream
}

type place struct {
	room string
	seq  uint64
}

func (w *world) newFollower(n int) *follower {
	f := &follower{world: w, name: fmt.Sprint("follower-", n), passed: map[string]uint64{}, missing: map[place]bool{}}
	switch n % 3 {
	case 1:
		f.rooms = []string{roomName(w.random.IntN(rooms))}
	case 2:
		f.rooms = []string{roomName(0), trimmed}
	}
	f.heard = w.history.Subscriber(f.name, f.rooms...)
	return f
}

// look is the follower's turn: it connects if it is not, and reads if it was
// woken.
func (f *follower) look() {
	w := f.world
	pause := w.between(time.Millisecond, 40*time.Millisecond)
	if f.process != nil && (f.process.dead || f.process.machine.differs.wanted) {
		f.leave()
	} else if f.process != nil && !w.finished && w.chance(0.002) {
		// The connection breaks, and much may happen until there is another.
		f.leave()
		pause = w.between(time.Millisecond, 8*time.Second)
	}
	w.after(pause, f.look)
	if pause > 40*time.Millisecond {
		return
	}
	if f.process == nil {
		f.connect()
		return
	}
	if f.process.paused {
		return
	}
	select {
	case <-f.stream.Wake():
		f.read()
	default:
	}
}

func (f *follower) connect() {
	m := pick(f.world.machines, f.world.random.Uint64())
	if !m.serves() || m.process.paused {
		return
	}
	stream, err := m.process.service.Follow(context.Background(), chat.Actor{}, f.rooms, chat.Cursor{ID: f.cursor})
	if err != nil {
		f.world.inside.violate("stream", "%s: %v", f.name, err)
		return
	}
	f.process, f.stream = m.process, stream
	f.read()
}

func (f *follower) leave() {
	f.stream.Close()
	f.process, f.stream = nil, nil
}

// read takes what is there, perhaps not all of it before the connection breaks.
func (f *follower) read() {
	for {
		d, err := f.stream.Poll()
		if err != nil {
			f.world.inside.violate("stream", "%s on node %d: %v", f.name, f.process.machine.id, err)
			return
		}
		if len(d.Messages) == 0 && len(d.Gaps) == 0 {
			return
		}
		for _, g := range d.Gaps {
			f.cursor = g.ID
			if g.LastSeq <= f.passed[g.Room] {
				continue // of a stream that was resumed among messages of other rooms, see chat.Gap
			}
			f.heard.Gap(g.Room, g.FirstSeq, g.LastSeq)
			for seq := f.passed[g.Room] + 1; seq <= g.LastSeq; seq++ {
				f.missing[place{g.Room, seq}] = true
			}
			f.passed[g.Room] = g.LastSeq
			f.world.counts.Gaps++
		}
		for _, m := range d.Messages {
			f.cursor = m.ID
			if at := (place{m.Room, m.Seq}); f.missing[at] {
				delete(f.missing, at) // this node has yet to drop it, see chat.Gap
				continue
			}
			f.heard.Received(seen(m))
			f.passed[m.Room] = m.Seq
			f.world.counts.Delivered++
			if f.world.chance(0.003) {
				f.leave() // in the middle of what was sent
				return
			}
		}
	}
}
