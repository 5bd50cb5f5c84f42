package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/oracle"
)

// Rooms: messages of the last one are trimmed, those of the others never.
const (
	rooms   = 3
	trimmed = "trimmed"
)

func roomName(n int) string {
	if n == rooms {
		return trimmed
	}
	return fmt.Sprint("room-", n)
}

const (
	answerTimeout = 3 * time.Second
	trimEvery     = 2 * time.Second
)

// writer posts one message after the other, each with a client message id and
// to one node after the other until it is acknowledged. Now and then it repeats
// one that was acknowledged long ago, as a client does that has missed the answer.
type writer struct {
	world *world
	name  string
	sent  int
	done  []*message
	busy  bool
}

// message is one message that a writer wants stored, over all attempts.
type message struct {
	post    *oracle.Post
	request chat.PostRequest
	acked   bool
	begun   time.Duration
}

// attempt is one request to one node.
type attempt struct {
	message *message // nil: a trim
	trim    *trim
	over    bool
	heard   func(m *chat.Message, err error)
}

type trim struct {
	room  string
	below uint64
}

// encode joins attempts into one log entry.
func encode(at time.Time, attempts []*attempt) ([]byte, error) {
	if t := attempts[0].trim; t != nil {
		return chat.EncodeTrim(at, t.room, t.below)
	}
	posts := make([]chat.PostRequest, len(attempts))
	for i, a := range attempts {
		posts[i] = a.message.request
	}
	return chat.EncodePosts(at, posts...)
}

// answer is the node's: it travels to the client, if it is not lost.
func (a *attempt) answer(p *process, m *chat.Message, err error) {
	w := p.machine.world
	if w.chance(w.plan.Network.Drop) {
		return
	}
	w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() { a.hear(m, err) })
}

// hear is the client's: the first of answer and timeout counts, and a late
// success still proves something.
func (a *attempt) hear(m *chat.Message, err error) {
	if a.over && m == nil {
		return
	}
	a.over = true
	if a.heard != nil {
		a.heard(m, err)
	}
}

// request brings an attempt to a node.
func (w *world) request(a *attempt) {
	m := pick(w.machines, w.random.Uint64())
	w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() {
		p := m.process
		switch {
		case !m.serves():
			w.after(time.Millisecond, func() { a.hear(nil, errNobody) })
		case w.chance(w.plan.Network.Drop):
		default:
			p.run(func() {
				p.posts = append(p.posts, a)
			})
		}
	})
	w.after(answerTimeout, func() { a.hear(nil, errTimeout) })
}

var (
	errNobody  = errors.New("connection refused")
	errTimeout = errors.New("timeout")
)

func (w *writer) next() {
	s := w.world
	if s.finished {
		w.busy = false
		return
	}
	w.busy = true
	if len(w.done) > 0 && s.chance(0.1) {
		w.repeat(pick(w.done, s.random.Uint64()))
		return
	}
	w.sent++
	room := roomName(s.random.IntN(rooms + 1))
	r := chat.PostRequest{
		Room: room, User: w.name, ClientMessageID: fmt.Sprintf("%s/%d", w.name, w.sent),
		Payload: []byte(fmt.Sprintf("message %d of %s %s", w.sent, w.name, strings.Repeat("x", s.random.IntN(s.plan.Clients.Body)))),
	}
	m := &message{request: r, begun: s.now}
	m.post = s.history.Send(oracle.Message{Room: r.Room, User: r.User, Body: string(r.Payload), ClientID: r.ClientMessageID})
	s.counts.Posts++
	w.attempt(m)
}

// rest is the pause before the next operation.
func (w *writer) rest() {
	w.world.after(w.world.between(0, 2*w.world.plan.Clients.Pause), w.next)
}

func (w *writer) attempt(m *message) {
	s := w.world
	a := &attempt{message: m}
	first := true
	a.heard = func(stored *chat.Message, err error) {
		wasFirst := first
		first = false
		switch {
		case stored != nil:
			w.acknowledged(m, stored)
			return
		case !wasFirst || m.acked:
			return
		}
		var refusal *chat.Error
		if errors.As(err, &refusal) {
			s.inside.violate("answer", "%s/%s is refused: %v", m.request.Room, m.request.ClientMessageID, err)
			return
		}
		s.after(s.between(20*time.Millisecond, 300*time.Millisecond), func() {
			if !m.acked {
				w.attempt(m)
			}
		})
	}
	s.request(a)
	if s.chance(0.05) {
		w.attempt(m) // at another node at the same time
	}
}

func (w *writer) acknowledged(m *message, stored *chat.Message) {
	s := w.world
	seen := m.answered(stored)
	s.trace.note(traceAck, s.now, seen.Seq, []uint64{seen.ID}, []byte(seen.ClientID))
	m.post.Acknowledged(seen)
	if m.acked {
		return
	}
	m.acked = true
	s.counts.Acknowledged++
	if seen.Room == trimmed {
		s.inside.lastTrimmed = max(s.inside.lastTrimmed, seen.Seq)
	}
	if s.healed && !s.progressed && m.begun >= s.plan.Horizon {
		s.progressed, s.progress = true, s.now-s.plan.Horizon
	}
	w.done = append(w.done, m)
	w.rest()
}

// repeat sends an acknowledged message once more.
func (w *writer) repeat(m *message) {
	w.world.counts.Repeats++
	w.world.request(&attempt{message: m, heard: func(stored *chat.Message, err error) {
		if stored != nil {
			m.post.Acknowledged(m.answered(stored))
		}
		var refusal *chat.Error
		if errors.As(err, &refusal) {
			w.world.inside.violate("answer", "a repeat of %s/%s is refused: %v", m.request.Room, m.request.ClientMessageID, err)
		}
	}})
	w.rest()
}

// answered is a message as the answer to its post tells of it. The text of one that
// was dropped is gone: its author knows it, and the node has compared the hash.
func (m *message) answered(stored *chat.Message) oracle.Message {
	o := seen(stored)
	if stored.Trimmed && m.request.Room == trimmed && stored.Payload == nil {
		o.Body = string(m.request.Payload)
	}
	return o
}

func seen(m *chat.Message) oracle.Message {
	return oracle.Message{Room: m.Room, Seq: m.Seq, ID: m.ID, User: m.User, Body: string(m.Payload), ClientID: m.ClientMessageID, PostedUS: m.PostedAt.UnixMicro()}
}

func allSeen(page []*chat.Message) []oracle.Message {
	out := make([]oracle.Message, len(page))
	for i, m := range page {
		out[i] = seen(m)
	}
	return out
}

// reader reads the newest messages of one room after the other, linearizably.
type reader struct {
	world *world
	busy  bool
}

func (r *reader) next() {
	w := r.world
	if w.finished {
		r.busy = false
		return
	}
	r.busy = true
	room := roomName(w.random.IntN(rooms + 1))
	m := pick(w.machines, w.random.Uint64())
	read := w.history.Read(room)
	answered := false
	again := func() {
		answered = true
		w.after(w.between(0, w.plan.Clients.Pause), r.next)
	}
	w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() {
		if !m.serves() {
			return
		}
		p := m.process
		p.run(func() {
			p.read(room, func(page []*chat.Message, err error) {
				w.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() {
					if answered || err != nil {
						return
					}
					last := uint64(0)
					if n := len(page); n > 0 {
						last = page[n-1].Seq
					}
					w.trace.note(traceRead, w.now, m.id, []uint64{last}, []byte(room))
					read.Returned(last, allSeen(page))
					again()
				})
			})
		})
	})
	w.after(answerTimeout, func() {
		if !answered {
			again()
		}
	})
}

// trimmer drops old messages of the room that is trimmed.
func (w *world) trimmer() {
	if w.finished {
		return
	}
	if last := w.inside.lastTrimmed; last > 8 {
		t := &trim{trimmed, last - 4}
		w.history.Dropped(trimmed, t.below)
		w.request(&attempt{trim: t})
		w.counts.Trims++
	}
	w.after(trimEvery, w.trimmer)
}
