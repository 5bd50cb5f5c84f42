package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// recordingDisk is a Disk in memory that notes its calls in order and can
// fail at one of them.
type recordingDisk struct {
	mu      sync.Mutex
	events  []string
	calls   map[string]int
	fail    func(call string, nth, total int) bool // nth of its kind, total of all; from 1
	before  func(call string)
	states  []*raftpb.HardState
	log     []*raftpb.Entry
	failed  bool
	retried []string // calls after the one that failed
}

var errDisk = errors.New("injected: input/output error")

func (d *recordingDisk) call(name, event string) error {
	if d.before != nil {
		d.before(name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed {
		d.retried = append(d.retried, event)
		return errDisk
	}
	if d.calls == nil {
		d.calls = map[string]int{}
	}
	d.calls[name]++
	total := d.calls["save"] + d.calls["mark"] + d.calls["release"]
	if d.fail != nil && d.fail(name, d.calls[name], total) {
		d.failed = true
		return errDisk
	}
	d.events = append(d.events, event)
	return nil
}

func (d *recordingDisk) note(event string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, event)
}

func (d *recordingDisk) Save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	event := fmt.Sprintf("save term %d commit %d", state.GetTerm(), state.GetCommit())
	if len(entries) > 0 {
		event += fmt.Sprintf(" entries %d-%d", entries[0].GetIndex(), lastIndex(entries))
	}
	if err := d.call("save", event); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(entries) > 0 {
		first := entries[0].GetIndex()
		d.log = slices.DeleteFunc(d.log, func(e *raftpb.Entry) bool { return e.GetIndex() >= first })
		d.log = append(d.log, entries...)
	}
	d.states = append(d.states, proto.CloneOf(state))
	return nil
}

func (d *recordingDisk) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	return d.call("mark", fmt.Sprintf("mark %d commit %d", snapshot.GetMetadata().GetIndex(), state.GetCommit()))
}

func (d *recordingDisk) Release(index uint64) error {
	return d.call("release", fmt.Sprint("release ", index))
}

func (d *recordingDisk) Close() error {
	d.note("close")
	return nil
}

func (d *recordingDisk) has(line string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.log, func(e *raftpb.Entry) bool { return strings.HasSuffix(string(e.GetData()), line) })
}

// takeEvents returns what happened since the last call.
func (d *recordingDisk) takeEvents() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := strings.Join(d.events, ", ")
	d.events = nil
	return s
}

func newTestAppender(t *testing.T, disk Disk) *appender {
	t.Helper()
	a := &appender{disk: disk, storage: raft.NewMemoryStorage(), state: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}}
	a.install = func(*raftpb.Snapshot) error { return nil }
	if err := a.storage.ApplySnapshot(bootstrapSnapshot([]Peer{{1, "http://a:1"}})); err != nil {
		t.Fatal(err)
	}
	a.sizes.reset(1)
	return a
}

func storageAppend(term, commit uint64, entries ...*raftpb.Entry) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Entries: entries}
	if term != 0 {
		m.Term, m.Vote, m.Commit = new(term), new(uint64(1)), new(commit)
	}
	return m
}

func run(term, first, last uint64) (entries []*raftpb.Entry) {
	for i := first; i <= last; i++ {
		entries = append(entries, testEntry(term, i, 0))
	}
	return entries
}

func TestAppenderJoinsMessagesIntoOneSave(t *testing.T) {
	for _, tt := range []struct {
		name     string
		messages []*raftpb.Message
		want     string
	}{
		{"nothing", nil, ""},
		{"one", []*raftpb.Message{storageAppend(2, 1, run(2, 2, 3)...)}, "save term 2 commit 1 entries 2-3"},
		{"several", []*raftpb.Message{storageAppend(2, 1, run(2, 2, 3)...), storageAppend(0, 0, run(2, 4, 4)...), storageAppend(2, 3, run(2, 5, 9)...)},
			"save term 2 commit 3 entries 2-9"},
		{"a vote", []*raftpb.Message{storageAppend(7, 1)}, "save term 7 commit 1"},
		{"two votes", []*raftpb.Message{storageAppend(7, 1), storageAppend(8, 1)}, "save term 8 commit 1"},
		{"a commit index alone is not written", []*raftpb.Message{storageAppend(1, 1, run(1, 2, 4)...), storageAppend(1, 4)}, "save term 1 commit 4 entries 2-4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &recordingDisk{}
			a := newTestAppender(t, d)
			a.state.Vote = new(uint64(1))
			if err := a.process(tt.messages); err != nil {
				t.Fatal(err)
			}
			if got := d.takeEvents(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			last, err := a.storage.LastIndex()
			if want := max(1, lastIndex(d.log)); err != nil || last != want {
				t.Errorf("in memory up to %d, on disk up to %d, %v", last, want, err)
			}
		})
	}
}

func TestCommitIndexAloneIsNotWritten(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	if err := a.process([]*raftpb.Message{storageAppend(2, 1, run(2, 2, 4)...)}); err != nil {
		t.Fatal(err)
	}
	d.takeEvents()
	if err := a.process([]*raftpb.Message{storageAppend(2, 4)}); err != nil {
		t.Fatal(err)
	}
	if got := d.takeEvents(); got != "" {
		t.Errorf("wrote %s", got)
	}
	// But it is not forgotten: it goes with the next record.
	if err := a.process([]*raftpb.Message{storageAppend(0, 0, run(2, 5, 5)...)}); err != nil {
		t.Fatal(err)
	}
	if got, want := d.takeEvents(), "save term 2 commit 4 entries 5-5"; got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
}

// A rewrite of the tail ends the Save, and what precedes it is saved with the
// hard state of its own time: the later one may commit entries that only the
// rewrite brings, and a crash between the two Saves would commit the old ones.
func TestRewrittenTailIsASaveOfItsOwn(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	err := a.process([]*raftpb.Message{
		storageAppend(2, 1, run(2, 2, 6)...),
		storageAppend(3, 5, run(3, 4, 5)...),
		storageAppend(3, 6, run(3, 6, 7)...),
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "save term 2 commit 1 entries 2-6, save term 3 commit 6 entries 4-7"
	if got := d.takeEvents(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err := a.storage.Entries(2, 8, 1<<20)
	if err != nil || !sameEntries(got, append(run(2, 2, 3), run(3, 4, 7)...)) || !sameEntries(got, d.log) {
		t.Errorf("log %v, %v", got, err)
	}
}

func received(index uint64, message *raftpb.Message) *raftpb.Message {
	message.Snapshot = fixtureSnapshot(index)
	return message
}

func TestReceivedSnapshotIsMarkedBeforeItIsInstalled(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	a.install = func(s *raftpb.Snapshot) error {
		d.note(fmt.Sprint("install ", s.GetMetadata().GetIndex()))
		return nil
	}
	// Entries before it, the snapshot, and entries behind it, in one go.
	err := a.process([]*raftpb.Message{
		storageAppend(2, 1, run(2, 2, 4)...),
		received(50, storageAppend(2, 50)),
		storageAppend(2, 51, run(2, 51, 52)...),
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "save term 2 commit 1 entries 2-4, mark 50 commit 50, install 50, release 50, save term 2 commit 51 entries 51-52"
	if got := d.takeEvents(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	first, _ := a.storage.FirstIndex()
	last, _ := a.storage.LastIndex()
	if first != 51 || last != 52 || a.sizes.first != 51 || len(a.sizes.sizes) != 2 {
		t.Errorf("log %d to %d, sizes from %d, %d of them", first, last, a.sizes.first, len(a.sizes.sizes))
	}
}

// A vote or term that comes with a snapshot must not commit the snapshot's
// index on disk before the mark is there.
func TestCommitOfAReceivedSnapshotIsNotSavedBeforeItsMark(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	if err := a.process([]*raftpb.Message{received(50, storageAppend(9, 50))}); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.states {
		if s.GetCommit() > 1 {
			t.Errorf("a Save commits %d, the log ended at 1 then", s.GetCommit())
		}
	}
	if got := d.takeEvents(); !strings.HasSuffix(got, "mark 50 commit 50, release 50") {
		t.Error(got)
	}
}

func TestAppenderStopsAtTheFirstError(t *testing.T) {
	messages := func() []*raftpb.Message {
		return []*raftpb.Message{
			storageAppend(2, 1, run(2, 2, 4)...),
			storageAppend(3, 1, run(3, 3, 4)...),
			received(50, storageAppend(3, 50)),
			storageAppend(3, 50, run(3, 51, 52)...),
		}
	}
	clean := &recordingDisk{}
	if err := newTestAppender(t, clean).process(messages()); err != nil {
		t.Fatal(err)
	}
	total := len(clean.events)
	if total < 5 {
		t.Fatalf("only %d calls: %s", total, clean.takeEvents())
	}
	for n := 1; n <= total; n++ {
		d := &recordingDisk{fail: func(_ string, _, all int) bool { return all == n }}
		a := newTestAppender(t, d)
		if err := a.process(messages()); !errors.Is(err, errDisk) {
			t.Errorf("call %d failed: %v", n, err)
		}
		if len(d.retried) != 0 || len(d.events) != n-1 {
			t.Errorf("call %d failed, and these came after it: %v", n, d.retried)
		}
		// What raft reads from memory must be on the disk.
		last, _ := a.storage.LastIndex()
		if last > 1 && last < 50 && last > lastIndex(d.log) {
			t.Errorf("call %d failed: in memory up to %d, on disk up to %d", n, last, lastIndex(d.log))
		}
	}
}

func TestInstallErrorIsFatal(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	a.state.Vote = new(uint64(1)) // so that the snapshot is all there is to write
	broken := errors.New("broken")
	a.install = func(*raftpb.Snapshot) error { return broken }
	if err := a.process([]*raftpb.Message{received(50, storageAppend(1, 50))}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if got := d.takeEvents(); got != "mark 50 commit 50" {
		t.Error(got)
	}
}

func TestMarkKeepsTheLogForOthers(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	if err := a.process([]*raftpb.Message{storageAppend(1, 1, run(1, 2, 100)...)}); err != nil {
		t.Fatal(err)
	}
	if a.sinceMark != a.sizes.total || a.sinceMark == 0 {
		t.Errorf("%d bytes since the mark, %d in memory", a.sinceMark, a.sizes.total)
	}
	d.takeEvents()
	each := a.sizes.total / 99
	if err := a.mark(fixtureSnapshot(60), each*50); err != nil {
		t.Fatal(err)
	}
	if got := d.takeEvents(); got != "mark 60 commit 60, release 60" {
		t.Error(got)
	}
	if a.sinceMark != 0 || a.state.GetCommit() != 60 {
		t.Errorf("%d bytes since the mark, commit %d", a.sinceMark, a.state.GetCommit())
	}
	first, _ := a.storage.FirstIndex()
	if first < 48 || first > 54 || first != a.sizes.first {
		t.Errorf("the log begins at %d in memory, the sizes at %d, want about 51", first, a.sizes.first)
	}
	// An older or the same mark changes nothing.
	for _, index := range []uint64{60, 10} {
		if err := a.mark(fixtureSnapshot(index), 0); err != nil || d.takeEvents() != "" {
			t.Errorf("mark %d again: %v", index, err)
		}
	}
	// Nothing above the mark goes, however little is to be kept.
	if err := a.mark(fixtureSnapshot(70), 0); err != nil {
		t.Fatal(err)
	}
	if first, _ := a.storage.FirstIndex(); first != 71 || a.sizes.first != 71 || len(a.sizes.sizes) != 30 {
		t.Errorf("the log begins at %d, the sizes at %d", first, a.sizes.first)
	}
}

// stillClock never ticks.
type stillClock struct{}

func (stillClock) Now() time.Time { return time.Unix(1_700_000_000, 0) }

func (stillClock) Tick(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

type noListener struct{ net.Listener }

// newDiskNode is a node over a Disk of the test's, without a network: it is
// what Open makes, with its loops not yet started.
func newDiskNode(t *testing.T, disk Disk, voters int, tune func(*Config)) *Node {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{ID: 1, Dir: dir, Listener: noListener{}, Clock: stillClock{}, MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler),
		StateMachine: func() (StateMachine, error) { return openLedger(dir) }}
	for id := range uint64(voters) {
		cfg.Cluster = append(cfg.Cluster, Peer{id + 1, fmt.Sprint("http://127.0.0.1:", id+1)})
	}
	if tune != nil {
		tune(&cfg)
	}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	n := newNode(cfg)
	n.identity = &identity{Version: 1, ClusterID: 1, MemberID: 1, Incarnation: Incarnation{1}, Cluster: cfg.Cluster, Boots: 1}
	rec := bootstrapLog(cfg.Cluster)
	n.appender = &appender{disk: disk, storage: n.storage, state: rec.state, install: n.install}
	if err := n.openStateMachine(); err != nil {
		t.Fatal(err)
	}
	n.settled.Store(true)
	if err := n.recoverState(rec); err != nil {
		t.Fatal(err)
	}
	if err := n.startRaft(&cfg, 1, rec); err != nil {
		t.Fatal(err)
	}
	n.publish()
	return n
}

func (n *Node) startLoops() {
	n.wg.Go(n.appendLoop)
	n.wg.Go(n.applyLoop)
	n.wg.Go(n.loop)
}

// failNode proposes to a node whose disk fails at some call, and checks what
// everyone is told.
func failNode(t *testing.T, what string, d *recordingDisk) {
	t.Helper()
	n := newDiskNode(t, d, 1, func(c *Config) { c.CatchUpBytes = 1 << 10 })
	n.startLoops()
	var mu sync.Mutex
	told := map[string][]error{}
	var acknowledged []string
	done := make(chan struct{}, 1)
	// How many proposals it takes until a mark is due is not fixed; each is
	// 100 bytes, and a mark is due after 1 KiB.
	for i := 0; n.Err() == nil; i++ {
		line := fmt.Sprintf("line %d.%s", i, strings.Repeat("x", 100))
		mu.Lock()
		told[line] = nil
		mu.Unlock()
		n.Propose(context.Background(), []byte(line), func(_ any, err error) {
			mu.Lock()
			told[line] = append(told[line], err)
			if err == nil {
				acknowledged = append(acknowledged, line)
			}
			mu.Unlock()
			select {
			case done <- struct{}{}:
			default:
			}
		})
		select {
		case <-done:
		case <-n.Failed():
		}
	}
	if !errors.Is(n.Err(), errDisk) {
		t.Errorf("%s: failed with %v", what, n.Err())
	}
	for range 2 {
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}
	var e *Error
	n.Propose(context.Background(), []byte("late"), func(_ any, err error) {
		if !errors.As(err, &e) || e.Code != CodeStopping {
			t.Errorf("%s: a late proposal: %v", what, err)
		}
	})
	if err := n.ReadIndex(context.Background()); !errors.As(err, &e) || e.Code != CodeStopping {
		t.Errorf("%s: a late read: %v", what, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for line, errs := range told {
		if len(errs) != 1 {
			t.Errorf("%s: %.8s was told %d times", what, line, len(errs))
		} else if err := errs[0]; err != nil && (!errors.As(err, &e) || e.Code != CodeOutcomeUnknown && e.Code != CodeNoLeader && e.Code != CodeStopping) {
			t.Errorf("%s: %.8s: %v", what, line, err)
		}
	}
	for _, line := range acknowledged {
		if !d.has(line) {
			t.Errorf("%s: %.8s was acknowledged and is not on the disk", what, line)
		}
	}
	if len(d.retried) != 0 {
		t.Errorf("%s: the disk was used after it failed: %v", what, d.retried)
	}
	if d.events[len(d.events)-1] != "close" || strings.Count(strings.Join(d.events, ","), "close") != 1 {
		t.Errorf("%s: the disk was not closed once, at the end", what)
	}
}

func TestFailedDiskStopsTheNode(t *testing.T) {
	for nth := 1; nth <= 25; nth++ {
		failNode(t, fmt.Sprint("call ", nth), &recordingDisk{fail: func(_ string, _, total int) bool { return total == nth }})
	}
	for _, call := range []string{"save", "mark", "release"} {
		for nth := 1; nth <= 3; nth++ {
			failNode(t, fmt.Sprint(call, " ", nth), &recordingDisk{fail: func(c string, n, _ int) bool { return c == call && n == nth }})
		}
	}
}

// A proposal whose write failed is under way for ever: its caller learns that
// the outcome is not known.
func TestProposalUnderWayAtAFailureIsUnknown(t *testing.T) {
	failing := make(chan struct{})
	d := &recordingDisk{}
	d.fail = func(string, int, int) bool {
		select {
		case <-failing:
			return true
		default:
			return false
		}
	}
	n := newDiskNode(t, d, 1, nil)
	n.startLoops()
	results := make(chan error, 2)
	n.Propose(context.Background(), []byte("good"), func(_ any, err error) { results <- err })
	// No leader yet is an answer as well.
	for err := range results {
		if err == nil {
			break
		}
		n.Propose(context.Background(), []byte("good"), func(_ any, err error) { results <- err })
	}
	close(failing)
	n.Propose(context.Background(), []byte("bad"), func(_ any, err error) { results <- err })
	<-n.Failed()
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
	var e *Error
	if err := <-results; !errors.As(err, &e) || e.Code != CodeOutcomeUnknown {
		t.Errorf("got %v, want %s", err, CodeOutcomeUnknown)
	}
}

// A vote leaves the node only when it is on the disk.
func TestVoteIsSentAfterItIsWritten(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprint("broken ", broken), func(t *testing.T) {
			d := &recordingDisk{fail: func(string, int, int) bool { return broken }}
			sent := make(chan struct{}, 16)
			n := newDiskNode(t, d, 3, func(c *Config) {
				c.Reachable = func(from, to uint64) bool {
					if from == 1 && to == 2 {
						d.note("sent to 2")
						sent <- struct{}{}
					}
					return false
				}
			})
			n.startLoops()
			n.messages <- &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), LogTerm: new(uint64(1)), Index: new(uint64(1))}
			want := "save term 5 commit 1, sent to 2, close"
			if broken {
				want = "close"
				<-n.Failed()
			} else {
				<-sent
			}
			if err := n.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if got := d.takeEvents(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// The responses that a message carries are delivered after its write, and not
// at all when the write fails.
func TestResponsesWaitForTheWrite(t *testing.T) {
	for _, failAt := range []int{0, 1, 2, 3} {
		d := &recordingDisk{}
		d.fail = func(_ string, _, total int) bool { return total == failAt }
		n := newDiskNode(t, d, 1, nil)
		delivered := 0
		d.before = func(string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if got := len(n.local); got > d.calls["save"] {
				t.Errorf("%d responses delivered after %d writes", got, d.calls["save"])
			}
		}
		n.wg.Go(n.appendLoop)
		for i := range uint64(3) {
			m := storageAppend(2, 1, run(2, 2+i, 2+i)...)
			m.Responses = []*raftpb.Message{{Type: raftpb.MsgStorageAppendResp.Enum(), To: new(uint64(1)), Index: new(2 + i)}}
			n.appendq.push(appendTask{message: m})
		loop:
			for {
				select {
				case ms := <-n.local:
					delivered += len(ms)
					for _, r := range ms {
						if r.GetIndex() > lastIndex(d.log) {
							t.Errorf("fail at %d: the response for entry %d came before its write", failAt, r.GetIndex())
						}
					}
					break loop
				case <-n.Failed():
					break loop
				}
			}
		}
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
		want := 3
		if failAt > 0 {
			want = failAt - 1
		}
		if delivered += len(n.local); delivered != want {
			t.Errorf("fail at %d: %d responses delivered, want %d", failAt, delivered, want)
		}
	}
}
