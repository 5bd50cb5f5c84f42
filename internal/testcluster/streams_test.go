package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/server"
	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/workload"
)

// The rooms of a Load. One that speaks of a single room follows the first.
var streamRooms = []string{"load-0", "load-1", "load-2"}

// Whatever happens to the nodes and to itself, a reader of any form that goes on
// from its cursor gets every message once and in order, and what it cannot get
// is told where the form has a word for it. The form raw has nothing to resume
// from or to compare by, and is left out.
func TestStreams(t *testing.T) {
	slow.Test(t)
	// A reader that pauses is not to be taken for a dead one however slow the
	// machine is.
	const patient = 10 * time.Minute
	c := New(t, 3, func(conf *server.Config) {
		conf.ListenGRPC, conf.GRPCForward = "127.0.0.1:0", true
		conf.APIListener = tightListener{conf.APIListener}
		conf.WriteTimeout, conf.PingInterval, conf.LeaderGrace = patient, patient, patient
	})
	c.Leader()
	// The readers below stand for the followers: they are moved and paused.
	load := StartWorkload(t, workload.Options{URLs: c.URLs(), Writers: 8})
	load.Await(100)

	hc := newStreamClient(t)
	var readers []*reader
	for _, form := range []workload.Form{
		workload.Firehose(), workload.Frames(), workload.Lines(), workload.Events(), workload.Session(), workload.GoClient(),
	} {
		readers = append(readers, &reader{form: form, rooms: streamRooms, stream: form.New(hc, streamRooms)})
	}
	one := streamRooms[:1]
	readers = append(readers, &reader{form: workload.Form{Name: "grpc", Tells: true}, rooms: one, stream: &grpcStream{c: c, room: one[0]}})
	for _, r := range readers {
		r.start(t, c, load.History)
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
		goal := map[string]uint64{}
		for _, room := range streamRooms {
			goal[room] = load.Latest(room)
		}
		for _, r := range readers {
			t.Run(disturbance.name+"/"+r.form.Name, func(t *testing.T) {
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
	c.Agree()
	// The first room keeps some messages, the second none, the third all.
	below := map[string]uint64{streamRooms[0]: load.Latest(streamRooms[0]) - 10, streamRooms[1]: load.Latest(streamRooms[1]) + 1}
	for room, seq := range below {
		load.History.Dropped(room, seq)
		Eventually(t, "trim "+room, func() error {
			_, err := c.Server(1).Service().Trim(t.Context(), chat.Actor{}, room, seq)
			return err
		})
	}
	c.Agree()
	for i, r := range readers {
		for _, room := range r.rooms {
			if seq, trimmed := below[room]; trimmed {
				r.mustMiss = append(r.mustMiss, workload.Gap{Room: room, FirstSeq: r.last[room] + 1, LastSeq: seq - 1})
			}
		}
		r.moveTo(t, []uint64{uint64(i)%3 + 1})
	}
	goal := map[string]uint64{}
	for i := range 3 {
		for _, room := range streamRooms {
			m := Message{Room: room, User: "ann", Message: "behind the gap", ClientMessageID: fmt.Sprint("behind-", i)}
			sent := load.History.Send(m.Oracle())
			stored, _ := post(t, c, 1, m)
			sent.Acknowledged(stored.Oracle())
			goal[room] = stored.Seq
		}
	}
	for _, r := range readers {
		t.Run("retention/"+r.form.Name, func(t *testing.T) {
			r.await(t, goal)
			r.check(t)
		})
	}
	checkAll(c, load)
}

func transfer(t *testing.T, c *Cluster, to uint64) {
	t.Helper()
	Eventually(t, "a transfer", func() error {
		_, _, err := c.Client().Do(t.Context(), http.MethodPost, c.URL(to)+"/raft/leader", fmt.Sprintf(`{"ID":%d}`, to))
		return err
	})
}

// reader follows rooms in one form, on a goroutine of its own, and keeps what it
// got.
type reader struct {
	form       workload.Form
	rooms      []string
	stream     workload.Stream
	cluster    *Cluster
	subscriber *oracle.Subscriber
	mustMiss   []workload.Gap // of the test's goroutine

	mu      sync.Mutex
	changed sync.Cond
	ending  bool
	paused  bool
	parked  bool     // waits for the end of the pause or for nodes
	nodes   []uint64 // to read from, in turn; nil: none
	on      uint64   // the node it has connected to, 0 while there is none
	cut     context.CancelFunc
	count   int // of connections
	at      workload.Place
	last    map[string]uint64 // Seq, of what came or was missed
	missed  []workload.Gap
	wrong   error // the first thing that must not be
	ended   error // why the last stream ended
}

func (r *reader) start(t *testing.T, c *Cluster, history *oracle.History) {
	r.cluster = c
	r.subscriber = history.Subscriber(r.form.Name, r.rooms...)
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
	var from workload.Place
	if !r.mayGoOn(func() bool { return r.nodes != nil }, func() { r.cut, nodes, from = cancel, r.nodes, r.at }) {
		return false
	}
	var urls []string
	for _, id := range nodes {
		urls = append(urls, r.cluster.URL(id))
	}
	err := r.stream.Connect(ctx, urls, from)
	if err == nil {
		r.change(func() {
			r.count++
			r.on = nodes[0]
		})
	}
	for err == nil && r.mayGoOn(func() bool { return !r.paused }, func() {}) {
		var events []workload.Event
		events, err = r.stream.Next()
		r.change(func() {
			for _, e := range events {
				r.take(e)
			}
		})
	}
	r.stream.Close()
	r.change(func() {
		r.on, r.ended = 0, err
		if errors.Is(err, workload.ErrSenseless) {
			r.wrong = err
		}
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
func (r *reader) take(e workload.Event) {
	switch {
	case e.Again:
		r.count++
	case e.Gap != nil:
		if !r.form.Tells {
			r.wrong = fmt.Errorf("%+v came in a form that has no word for it", *e.Gap)
		}
		r.miss(e.Gap.Room, e.Gap.FirstSeq, e.Gap.LastSeq)
		r.at.ID = max(r.at.ID, e.Gap.ID)
	default:
		if next := r.last[e.Room] + 1; e.Seq > next && !r.form.Tells {
			r.miss(e.Room, next, e.Seq-1)
		}
		r.subscriber.Received(e.Oracle())
		r.last[e.Room] = e.Seq
		r.at.ID = e.ID
	}
	r.at.Seq = r.last[r.rooms[0]]
}

// miss notes that messages of a room will not come. Some of them may have.
func (r *reader) miss(room string, first, last uint64) {
	r.subscriber.Gap(room, first, last)
	r.missed = append(r.missed, workload.Gap{Room: room, FirstSeq: max(first, r.last[room]+1), LastSeq: last})
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
	Eventually(t, "the stream "+r.form.Name+" to move", func() error {
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
	Eventually(t, "the reader "+r.form.Name+" to pause", func() error {
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

// check compares what was missed with what had to be. What came is for the
// history to judge.
func (r *reader) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.missed, func(a, b workload.Gap) int { return strings.Compare(a.Room, b.Room) })
	if !slices.Equal(r.missed, r.mustMiss) {
		t.Errorf("missed %+v, want %+v", r.missed, r.mustMiss)
	}
	t.Logf("%d connections, missed %+v", r.count, r.missed)
}
