package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// load has a node propose and read without a pause until stop is called or the
// test ends. What becomes of it is not looked at.
func load(t *testing.T, n *Node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for line := make([]byte, 512); ctx.Err() == nil; {
				n.Propose(ctx, line, func(any, error) {})
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = n.ReadIndex(ctx) // each round is a message to every member
			}
		})
	}
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// goesOn fails the test unless every member that runs still gets a line
// through: the loop of each, and those of a majority, turn.
func (c *testCluster) goesOn(when string) {
	c.t.Helper()
	for id := range c.nodes {
		c.mustPropose(id, fmt.Sprintf("%s, through %d", when, id))
	}
}

// blackHole listens at the address of a member that is gone. It accepts and
// reads, and never answers: a stopped process, or a host behind a firewall.
type blackHole struct {
	posts atomic.Int64 // raft messages that wait for an answer
}

func newBlackHole(t *testing.T, addr string) *blackHole {
	var l net.Listener
	eventually(t, "listen on "+addr, func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	h := &blackHole{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { h.swallow(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return h
}

func (h *blackHole) swallow(c net.Conn) {
	defer c.Close()
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if strings.HasPrefix(string(b[:n]), "POST /raft ") {
			h.posts.Add(1)
		}
	}
}

// sent counts the messages that each member has sent to another one.
type sent struct {
	mu    sync.Mutex
	links map[[2]uint64]int
}

// countSent has a cluster that is not started yet count.
func countSent(c *testCluster) *sent {
	s := &sent{links: map[[2]uint64]int{}}
	c.tune = func(cfg *Config) {
		self, reachable := cfg.ID, cfg.Reachable
		cfg.Reachable = func(from, to uint64) bool {
			if from == self {
				s.mu.Lock()
				s.links[[2]uint64{from, to}]++
				s.mu.Unlock()
			}
			return reachable(from, to)
		}
	}
	return s
}

func (s *sent) all() map[[2]uint64]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.links)
}

// vanish stops a follower of a fresh cluster and puts a black hole in its
// place, which holds all the connections that a member sends messages with.
func vanish(c *testCluster) (lead, victim uint64) {
	c.t.Helper()
	c.startAll()
	lead = c.leader()
	c.mustPropose(lead, "before")
	victim = lead%3 + 1
	c.stop(victim)
	h := newBlackHole(c.t, c.peers[victim-1].URL[len("http://"):])
	eventually(c.t, "messages to the vanished member", func() bool { return h.posts.Load() >= 4 })
	return lead, victim
}

// rafthttp reports a broken stream while it holds the stream's lock, which a
// Send takes: the report must not wait for a loop that is about to send.
func TestKilledFollowerDoesNotStopALeaderUnderLoad(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	victim := lead%3 + 1
	for round := range 6 {
		stop := load(t, c.nodes[lead])
		from := c.nodes[victim].Status().Commit
		eventually(t, "entries to reach the follower", func() bool { return c.nodes[victim].Status().Commit > from+20 })
		c.stop(victim)
		c.goesOn(fmt.Sprint("round ", round))
		stop()
		c.start(victim)
	}
}

// A member that does not answer fills the buffer of what is sent to it. The
// transport reports each message that it drops then from inside Send, thus
// from the loop itself, which must not wait for anybody to take the report.
func TestVanishedMemberDoesNotStopTheOthers(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	s := countSent(c)
	_, victim := vanish(c)
	before := s.all()
	// The transport holds 64 messages and has 4 under way.
	eventually(t, "more messages to the vanished member than the transport holds", func() bool {
		for id, n := range c.nodes {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_ = n.ReadIndex(ctx) // has the leader send to everybody
			cancel()
			link := [2]uint64{id, victim}
			if s.all()[link] > before[link]+200 {
				return true
			}
		}
		return false
	})
	c.goesOn("after")
}

// The transport waits for the messages under way when it lets go of a member,
// and each ends with a report to the loop: neither may wait for the other.
func TestVanishedMemberCanBeRemoved(t *testing.T) {
	c := newTestCluster(t, 3)
	lead, victim := vanish(c)
	load(t, c.nodes[lead])
	eventually(t, "removal of the vanished member", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.nodes[lead].RemoveMember(ctx, victim) // may have been carried out although the answer is an error
		return c.nodes[lead].IsIDRemoved(victim)
	})
	c.goesOn("after the removal")
}

// clogged is a listener whose connections that carry raft messages to one
// member can be made to take nothing any more, as when its process is stopped
// and the socket's buffers are full.
type clogged struct {
	net.Listener
	victim  string
	now     *atomic.Bool
	blocked *atomic.Int64   // writes that wait
	end     context.Context // when it is done, they fail
}

type cloggedConn struct {
	net.Conn
	l      *clogged
	stream atomic.Bool // it carries raft messages to the victim
	full   net.Conn    // a pipe that nobody reads
}

func (l *clogged) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	full, _ := net.Pipe()
	context.AfterFunc(l.end, func() { full.Close() })
	return &cloggedConn{Conn: c, l: l, full: full}, nil
}

func (c *cloggedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	// The receiver asks for its streams. Those that it asks for later on, when
	// it has been removed, are refused, and it does read that.
	if c.l.now.Load() {
		return n, err
	}
	if line, _, _ := strings.Cut(string(b[:n]), "\r\n"); strings.HasPrefix(line, "GET /raft/stream/") && strings.Contains(line, "/"+c.l.victim+" ") {
		c.stream.Store(true)
	}
	return n, err
}

func (c *cloggedConn) Write(b []byte) (int, error) {
	if !c.stream.Load() || !c.l.now.Load() {
		return c.Conn.Write(b)
	}
	c.l.blocked.Add(1)
	defer c.l.blocked.Add(-1)
	return c.full.Write(b)
}

// SetWriteDeadline: one that lies ahead never comes, so that nothing that a
// test sees is owed to it.
func (c *cloggedConn) SetWriteDeadline(at time.Time) error {
	if at.Before(time.Now()) {
		if err := c.full.SetWriteDeadline(at); err != nil {
			return err
		}
	}
	return c.Conn.SetWriteDeadline(at)
}

func (c *cloggedConn) Close() error { return errors.Join(c.full.Close(), c.Conn.Close()) }

// The transport waits for a write to a member when it lets go of it, and
// everybody who sends waits for the transport: the removal ends the write.
func TestStoppedMemberWhoseSocketDoesNotDrainCanBeRemoved(t *testing.T) {
	c := newTestCluster(t, 3)
	var now atomic.Bool
	end, unclog := context.WithCancel(context.Background())
	t.Cleanup(unclog) // before the cluster's: nodes that hang must not hang the test
	blocked := map[uint64]*atomic.Int64{}
	c.tune = func(cfg *Config) {
		if cfg.ID != 3 {
			blocked[cfg.ID] = &atomic.Int64{}
			cfg.Listener = &clogged{cfg.Listener, "3", &now, blocked[cfg.ID], end}
		}
	}
	c.startAll()
	// Member 3 is the one to go, so another has to lead.
	eventually(t, "another leader", func() bool {
		if c.leader() != 3 {
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.nodes[3].TransferLeadership(ctx, 1)
		return false
	})
	lead := c.leader()
	c.mustPropose(lead, "before")
	now.Store(true)
	eventually(t, "both streams to the stopped member to be full", func() bool {
		c.mustPropose(lead, "nobody reads this")
		return blocked[lead].Load() == 2
	})
	eventually(t, "removal of the stopped member", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.nodes[lead].RemoveMember(ctx, 3)
		return c.nodes[lead].IsIDRemoved(3)
	})
	eventually(t, "the end of the writes to the removed member", func() bool { return blocked[lead].Load() == 0 })
	for _, id := range []uint64{1, 2} {
		c.mustPropose(id, fmt.Sprint("after the removal, through ", id))
	}
}

// bounded counts the writes to its connections that no deadline was set for.
type bounded struct {
	net.Listener
	writes, endless *atomic.Int64
}

type boundedConn struct {
	net.Conn
	l     *bounded
	bound atomic.Bool // the next write has a deadline of its own
}

func (l *bounded) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &boundedConn{Conn: c, l: l}, nil
}

func (c *boundedConn) SetWriteDeadline(at time.Time) error {
	c.bound.Store(!at.IsZero())
	return c.Conn.SetWriteDeadline(at)
}

func (c *boundedConn) Write(b []byte) (int, error) {
	c.l.writes.Add(1)
	if !c.bound.Swap(false) {
		c.l.endless.Add(1)
	}
	return c.Conn.Write(b)
}

// A stream lives for ever, so it is not the stream but each write that has a
// deadline: without it a member that reads no more is never found out.
func TestEveryWriteToAMemberHasADeadline(t *testing.T) {
	var writes, endless atomic.Int64
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.Listener = &bounded{cfg.Listener, &writes, &endless} }
	c.startAll()
	for line := range 10 {
		c.mustPropose(c.leader(), fmt.Sprint("line ", line))
	}
	c.agree(10)
	if writes.Load() == 0 || endless.Load() > 0 {
		t.Errorf("%d of %d writes had no deadline", endless.Load(), writes.Load())
	}
}

// A forwarded proposal can vanish while the leader stays, so that no change of
// the leader tells its caller. It is answered all the same, and by the one
// answer that is true.
func TestVanishedForwardIsAnsweredAsOutcomeUnknown(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.drop = dropTypes(raftpb.MsgProp)
	lost := s.propose(2, "lost")
	s.run()
	s.heal()
	s.want("right after it vanished", lost, "waiting")
	term := s.at(2).term
	// Far beyond any election timeout: what is asserted is that an answer
	// comes at all.
	s.tick(20*s.at(2).electionTicks, 1, 2, 3)
	if s.at(2).term != term || s.at(2).lead != 1 {
		t.Fatalf("the leader changed, which answers everybody: term %d, leader %d", s.at(2).term, s.at(2).lead)
	}
	s.want("at the end", lost, CodeOutcomeUnknown)
	kept := s.propose(2, "kept")
	s.run()
	s.want("the next one", kept, "ok")
	s.tick(20*s.at(2).electionTicks, 1, 2, 3)
	s.want("the next one, at the end", kept, "ok")
}

// The same from outside: the caller of Propose is called back.
func TestCallerOfAVanishedForwardIsCalledBack(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	c.startAll()
	lead := c.leader()
	via := lead%3 + 1
	c.mustPropose(via, "before")
	c.cutLinks(func(from, to uint64) bool { return from == via && to == lead })
	done := make(chan error, 1)
	c.nodes[via].Propose(context.Background(), []byte("vanishes"), func(_ any, err error) { done <- err })
	// What the loop has taken in it has sent, and the network has lost, by the
	// time that it does the next thing.
	if err := c.nodes[via].onLoop(context.Background(), func() {}); err != nil {
		t.Fatal(err)
	}
	c.cutLinks(func(uint64, uint64) bool { return false })
	for line := range 5 {
		c.mustPropose(via, fmt.Sprint("after ", line))
	}
	var err error
	eventually(t, "an answer to the proposal that vanished", func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeOutcomeUnknown {
		t.Errorf("the proposal that vanished was answered with %v, want %s", err, CodeOutcomeUnknown)
	}
}

// newSingle is a cluster of one voter as its core is right after a restart:
// entries up to last are in the log and were acknowledged, but the commit
// index, which is not worth a write of its own, is from before.
func newSingle(t *testing.T, last uint64) (*sim, *simMember) {
	m := &simMember{storage: raft.NewMemoryStorage()}
	state := &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(1))}
	if err := errors.Join(m.storage.ApplySnapshot(bootstrapSnapshot([]Peer{{1, "http://a:1"}})), m.storage.SetHardState(state), m.storage.Append(run(1, 2, last))); err != nil {
		t.Fatal(err)
	}
	m.applied.Store(1)
	logger := slog.New(slog.DiscardHandler)
	rn, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: m.storage, Applied: 1,
		AsyncStorageWrites: true, PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256, ReadOnlyOption: raft.ReadOnlySafe, Logger: raftLogger{logger},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.core = &core{id: 1, self: Incarnation{1}, logger: logger, rn: rn, waiters: newWaiters(), applied: &m.applied,
		electionTicks: 10, maxInFlight: 2, sequence: 1 << 40, term: 1, commit: 1}
	if err := rn.Campaign(); err != nil {
		t.Fatal(err)
	}
	return &sim{t: t, members: []*simMember{m}, drop: func(*raftpb.Message) bool { return false }, sent: map[raftpb.MessageType]int{}}, m
}

// With one voter raft confirms a read at once, with whatever commit index it
// has: the core waits until an entry of its own term is committed.
func TestReadOfASingleVoterWaitsForWhatWasAcknowledgedBeforeItsRestart(t *testing.T) {
	const last = 9
	s, m := newSingle(t, last)
	// It is elected, and the disk has not taken the first entry of its term.
	m.holdDisk = true
	for s.run(); m.role != raft.StateLeader; s.run() {
		m.holdDisk = false
		if !s.write(m) {
			t.Fatalf("the only voter does not get to lead, it is %v", m.role)
		}
		m.holdDisk = true
	}
	read := &outcome{}
	m.read(func(err error) {
		read.calls++
		read.err = err
		if got := m.applied.Load(); err == nil && got < last {
			t.Errorf("a read returned with %d applied, %d was acknowledged before the restart", got, last)
		}
	})
	s.run()
	s.want("while the first entry of the new term is not on the disk", read, "waiting")
	m.holdDisk = false
	s.run()
	s.want("when it is", read, "ok")
}

// Neither is the read of a learner, which asks the leader, answered before that;
// also when the request comes in the same moment as the election's outcome.
func TestLearnersReadOfASingleVoterWaitsToo(t *testing.T) {
	const last, learner = 9, 2
	s, m := newSingle(t, last)
	var answers []*raftpb.Message
	s.drop = func(msg *raftpb.Message) bool {
		if msg.GetType() == raftpb.MsgReadIndexResp {
			answers = append(answers, msg)
		}
		return true
	}
	ask := func() {
		m.step(&raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(learner)), To: new(uint64(1)),
			Entries: []*raftpb.Entry{{Data: []byte("0123456789abcdef")}}})
	}
	m.holdDisk = true
	for s.run(); m.rn.BasicStatus().RaftState != raft.StateLeader; s.run() {
		m.holdDisk = false
		if !s.write(m) {
			t.Fatalf("the only voter does not get to lead, it is %v", m.role)
		}
		m.holdDisk = true
		ask() // before the core has heard of what raft has become
	}
	ask()
	s.run()
	if len(answers) != 0 {
		t.Fatalf("answered with index %d before the first entry of the new term was on the disk", answers[0].GetIndex())
	}
	m.holdDisk = false
	s.run()
	ask() // a learner asks again
	s.run()
	if len(answers) != 1 || answers[0].GetIndex() < last {
		t.Errorf("%d answers %v, want one of index %d or more", len(answers), answers, last)
	}
}

// The same with files and a state machine that had not flushed.
func TestSingleVoterReadsWhatItAcknowledgedBeforeItsRestart(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.leader()
	for round := range 5 {
		line := fmt.Sprint("acknowledged ", round)
		c.mustPropose(1, line)
		c.stop(1)
		c.start(1)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		// Without a pause: the first read that is answered is the one that
		// could be too early.
		for c.nodes[1].ReadIndex(ctx) != nil {
			if ctx.Err() != nil {
				t.Fatal("no read is answered")
			}
		}
		cancel()
		if !slices.Contains(c.sms[1].lines(), line) {
			t.Fatalf("round %d: a linearizable read after the restart misses a line that was acknowledged before", round)
		}
	}
}
