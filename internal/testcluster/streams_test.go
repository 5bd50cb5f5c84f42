package testcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/server"
)

// The rooms of a Load. One that speaks of a single room follows the first.
var streamRooms = []string{"load-0", "load-1", "load-2"}

// Whatever happens to the nodes and to itself, a reader of any form that goes on
// from its cursor gets every message once and in order, and what it cannot get
// is told where the form has a word for it. The form raw has nothing to resume
// from or to compare by, and is left out.
func TestStreams(t *testing.T) {
	// A reader that pauses is not to be taken for a dead one however slow the
	// machine is.
	const patient = 10 * time.Minute
	c := New(t, 3, func(conf *server.Config) {
		conf.ListenGRPC, conf.GRPCForward = "127.0.0.1:0", true
		conf.APIListener = tightListener{conf.APIListener}
		conf.WriteTimeout, conf.PingInterval, conf.LeaderGrace = patient, patient, patient
	})
	c.Leader()
	var ledger Ledger
	load := StartLoad(t, c.Client(), &ledger, 8, c.URLs())
	load.Await(100)

	rooms, hc := strings.Join(streamRooms, ","), newStreamClient(t)
	readers := []*reader{
		{form: "firehose", rooms: streamRooms, anonymous: true, feed: &socketFeed{c: c, http: hc, path: "/ws", decode: decodeFirehose}},
		{form: "frames", rooms: streamRooms, feed: &socketFeed{c: c, http: hc, path: "/rooms/" + rooms + "/ws", decode: decodeMessage}},
		{form: "lines", rooms: streamRooms, feed: &bodyFeed{
			c: c, http: hc, path: "/rooms/" + rooms + "/json", request: sinceQuery, delimiter: "\n", decode: decodeMessage,
		}},
		{form: "events", rooms: streamRooms, tells: true, feed: &bodyFeed{
			c: c, http: hc, path: "/rooms/" + rooms + "/events", request: lastEventID, delimiter: "\n\n", decode: decodeServerEvent,
		}},
		{form: "session", rooms: streamRooms, tells: true, feed: &sessionFeed{socketFeed{c: c, http: hc, path: "/ws"}, streamRooms}},
		{form: "grpc", rooms: streamRooms[:1], tells: true, feed: &grpcFeed{c: c, room: streamRooms[0]}},
		{form: "client", rooms: streamRooms, tells: true, feed: &clientFeed{c: c, http: hc, rooms: streamRooms}},
	}
	for _, r := range readers {
		r.start(t)
	}

	for _, disturbance := range []struct {
		name string
		// at names the nodes that readers may read from, the one they begin
		// with first.
		at func(leader uint64) []uint64
		// happens is told the first of them.
		happens func(at uint64)
		// cuts: the streams end.
		cuts bool
	}{
		{
			name: "kill of the leader", cuts: true,
			at:      func(leader uint64) []uint64 { return append([]uint64{leader}, others(c, leader)...) },
			happens: func(at uint64) { c.Kill(at) },
		}, {
			name: "kill of a follower", cuts: true,
			at:      func(leader uint64) []uint64 { return append(others(c, leader), leader) },
			happens: func(at uint64) { c.Kill(at) },
		}, {
			name:    "transfer away",
			at:      func(leader uint64) []uint64 { return []uint64{leader} },
			happens: func(at uint64) { transfer(t, c, others(c, at)[0]) },
		}, {
			name:    "transfer to the node",
			at:      func(leader uint64) []uint64 { return others(c, leader)[:1] },
			happens: func(at uint64) { transfer(t, c, at) },
		}, {
			name: "restart", cuts: true,
			at: func(leader uint64) []uint64 { return others(c, leader)[:1] },
			happens: func(at uint64) {
				c.Stop(at)
				c.Start(at)
			},
		}, {
			name: "pause",
			at:   func(leader uint64) []uint64 { return []uint64{leader} },
			happens: func(uint64) {
				for _, r := range readers {
					r.pause(t)
				}
				// So many that no form has all of its part in buffers.
				load.Await(6000)
				for _, r := range readers {
					r.resume()
				}
			},
		},
	} {
		at := disturbance.at(c.Leader())
		before := map[*reader]int{}
		for _, r := range readers {
			before[r] = r.moveTo(t, at)
		}
		load.Await(50)
		disturbance.happens(at[0])
		load.Await(100)
		goal := ledger.tops()
		for _, r := range readers {
			t.Run(disturbance.name+"/"+r.form, func(t *testing.T) {
				r.await(t, goal)
				if now := r.connections(); (now > before[r]) != disturbance.cuts {
					t.Errorf("%d connections before, %d after; want more: %v", before[r], now, disturbance.cuts)
				}
			})
		}
		if !slices.Contains(c.Running(), at[0]) {
			c.Start(at[0])
		}
	}

	// Retention overtakes readers that are away.
	for _, r := range readers {
		r.moveTo(t, nil)
	}
	load.Await(300)
	load.Stop()
	checkAll(t, c, &ledger)
	history := map[string][]Message{}
	for _, room := range streamRooms {
		messages, err := c.Client().Messages(t.Context(), c.URL(1), room)
		if err != nil {
			t.Fatal(err)
		}
		history[room] = messages
	}
	// The first room keeps some messages, the second none, the third all.
	below := map[string]uint64{
		streamRooms[0]: uint64(len(history[streamRooms[0]])) - 10,
		streamRooms[1]: uint64(len(history[streamRooms[1]])) + 1,
	}
	for room, seq := range below {
		Eventually(t, "trim "+room, func() error {
			_, err := c.Server(1).Service().Trim(t.Context(), chat.Actor{}, room, seq)
			return err
		})
	}
	c.Agree()
	for i, r := range readers {
		for _, room := range r.rooms {
			if seq, trimmed := below[room]; trimmed {
				r.mustMiss = append(r.mustMiss, gap{Room: room, FirstSeq: r.last[room] + 1, LastSeq: seq - 1})
			}
		}
		r.moveTo(t, []uint64{uint64(i)%3 + 1})
	}
	for i := range 3 {
		for _, room := range streamRooms {
			stored, _ := post(t, c, 1, Message{Room: room, User: "ann", Message: "behind the gap", ClientMessageID: fmt.Sprint("behind-", i)})
			history[room] = append(history[room], stored)
		}
	}
	goal := map[string]uint64{}
	for room, messages := range history {
		goal[room] = uint64(len(messages))
	}
	for _, r := range readers {
		t.Run("retention/"+r.form, func(t *testing.T) {
			r.await(t, goal)
			r.check(t, history)
		})
	}
}

func transfer(t *testing.T, c *Cluster, to uint64) {
	t.Helper()
	Eventually(t, "a transfer", func() error {
		_, _, err := c.Client().Do(t.Context(), http.MethodPost, c.URL(to)+"/raft/leader", fmt.Sprintf(`{"ID":%d}`, to))
		return err
	})
}

// tops gives the highest Seq that was acknowledged in each room.
func (l *Ledger) tops() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	tops := map[string]uint64{}
	for _, m := range l.acked {
		tops[m.Room] = max(tops[m.Room], m.Seq)
	}
	return tops
}

// reader follows rooms in one form, on a goroutine of its own, and keeps what it
// got.
type reader struct {
	form      string
	rooms     []string
	tells     bool // the form tells of gaps
	anonymous bool // the form has no client message ids
	feed      feed
	mustMiss  []gap // of the test's goroutine

	mu      sync.Mutex
	changed sync.Cond
	ending  bool
	paused  bool
	parked  bool     // waits for the end of the pause or for nodes
	nodes   []uint64 // to read from, in turn; nil: none
	on      uint64   // the node it has connected to, 0 while there is none
	cut     context.CancelFunc
	count   int // of connections
	at      place
	last    map[string]uint64 // Seq, of what came or was missed
	got     []Message
	missed  []gap
	wrong   error // the first thing that must not be
	ended   error // why the last stream ended
}

func (r *reader) start(t *testing.T) {
	r.changed.L = &r.mu
	r.last = map[string]uint64{}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		// A stream that fails at once is not tried again at once.
		again := time.NewTicker(pause)
		defer again.Stop()
		for r.follow(ctx) {
			select {
			case <-again.C:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		r.change(func() { r.ending = true })
		cancel()
		reading.Wait()
	})
}

func (r *reader) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.changed.Broadcast()
}

// follow reads one stream to its end; false: it was the last one.
func (r *reader) follow(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var nodes []uint64
	var from place
	if !r.mayGoOn(func() bool { return r.nodes != nil }, func() { r.cut, nodes, from = cancel, r.nodes, r.at }) {
		return false
	}
	err := r.feed.connect(ctx, nodes, from)
	if err == nil {
		r.change(func() {
			r.count++
			r.on = nodes[0]
		})
	}
	for err == nil && r.mayGoOn(func() bool { return !r.paused }, func() {}) {
		var events []event
		events, err = r.feed.next()
		r.change(func() {
			for _, e := range events {
				r.wrong = errors.Join(r.wrong, r.take(e))
			}
		})
	}
	r.feed.close()
	r.change(func() {
		r.on, r.ended = 0, err
		if ctx.Err() == nil { // nobody has asked for others
			r.nodes = append(slices.Clone(nodes[1:]), nodes[0])
		}
	})
	return true
}

// mayGoOn waits for a condition and then calls f; false: the test is over. Both
// functions are called with the lock.
func (r *reader) mayGoOn(condition func() bool, f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.ending && !condition() {
		r.parked = true
		r.changed.Broadcast()
		r.changed.Wait()
	}
	r.parked = false
	f()
	return !r.ending
}

// take notes an event. The lock is held.
func (r *reader) take(e event) error {
	if r.wrong != nil {
		return nil // what follows from it does not help
	}
	switch {
	case e.again:
		r.count++
		return nil
	case e.gap != nil:
		g := *e.gap
		next := r.last[g.Room] + 1
		if !r.tells || g.FirstSeq > next || g.LastSeq < next || g.ID != 0 && g.ID < r.at.id {
			return fmt.Errorf("%+v came at %+v, when message %d was next", g, r.at, next)
		}
		r.miss(g.Room, g.LastSeq)
		r.at.id = max(r.at.id, g.ID)
	case e.Seq == 0:
		return fmt.Errorf("no message: %+v", e)
	default:
		next := r.last[e.Room] + 1
		if e.Seq < next || e.ID != 0 && e.ID <= r.at.id || r.tells && e.Seq != next {
			return fmt.Errorf("%+v came at %+v, when message %d was next", e.Message, r.at, next)
		}
		if e.Seq > next {
			r.miss(e.Room, e.Seq-1)
		}
		r.got = append(r.got, e.Message)
		r.last[e.Room] = e.Seq
		r.at.id = e.ID
	}
	r.at.seq = r.last[r.rooms[0]]
	return nil
}

// miss notes that the messages of a room up to last will not come.
func (r *reader) miss(room string, last uint64) {
	r.missed = append(r.missed, gap{Room: room, FirstSeq: r.last[room] + 1, LastSeq: last})
	r.last[room] = last
}

// moveTo ends the stream, waits until there is one at the first of the nodes,
// or none if there are no nodes, and returns how many connections there were so
// far.
func (r *reader) moveTo(t *testing.T, nodes []uint64) (count int) {
	t.Helper()
	move := func() {
		r.nodes, r.on = nodes, 0
		if r.cut != nil {
			r.cut()
		}
	}
	r.change(move)
	Eventually(t, "the stream "+r.form+" to move", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		count = r.count
		switch {
		case len(nodes) == 0 && r.parked, len(nodes) > 0 && r.on == nodes[0]:
			return nil
		case r.on != 0: // the node did not take it at once
			move()
		}
		return fmt.Errorf("it has ended with %w", r.ended)
	})
	return count
}

// pause waits until the reader does not read any more. It must be getting
// messages.
func (r *reader) pause(t *testing.T) {
	t.Helper()
	r.change(func() { r.paused = true })
	Eventually(t, "the reader "+r.form+" to pause", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.parked {
			return errors.New("it reads")
		}
		return nil
	})
}

func (r *reader) resume() { r.change(func() { r.paused = false }) }

func (r *reader) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// await waits until everything up to the goal has come or is known to be
// missing.
func (r *reader) await(t *testing.T, goal map[string]uint64) {
	t.Helper()
	var wrong error
	Eventually(t, "the messages", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		wrong = r.wrong
		for _, room := range r.rooms {
			if wrong == nil && r.last[room] < goal[room] {
				return fmt.Errorf("%s is at %d of %d, on node %d; the last stream ended with %w", room, r.last[room], goal[room], r.on, r.ended)
			}
		}
		return nil
	})
	if wrong != nil {
		t.Fatal(wrong)
	}
}

// check compares what came and what was missed with the history, which has all
// messages from 1 on.
func (r *reader) check(t *testing.T, history map[string][]Message) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	byRoom := func(a, b gap) int { return strings.Compare(a.Room, b.Room) }
	slices.SortStableFunc(r.missed, byRoom)
	if !slices.Equal(r.missed, r.mustMiss) {
		t.Errorf("missed %+v, want %+v", r.missed, r.mustMiss)
	}
	count := map[string]uint64{}
	for _, m := range r.got {
		want := history[m.Room][m.Seq-1]
		if m.ID == 0 {
			want.ID, want.PostedAt = 0, time.Time{}
		}
		if r.anonymous {
			want.ClientMessageID = ""
		}
		if !same(m, want) {
			t.Fatalf("got %+v, stored is %+v", m, want)
		}
		count[m.Room]++
	}
	for _, g := range r.missed {
		count[g.Room] += g.LastSeq - g.FirstSeq + 1
	}
	want := map[string]uint64{}
	for _, room := range r.rooms {
		want[room] = uint64(len(history[room]))
	}
	if !maps.Equal(count, want) {
		t.Errorf("%v messages came or were missed, want %v", count, want)
	}
	t.Logf("%d messages in %d connections, missed %+v", len(r.got), r.count, r.missed)
}
