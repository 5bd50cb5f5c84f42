package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
)

// reader is one subscription.
type reader struct {
	t      testing.TB
	stream grpc.ServerStreamingClient[pb.SubscribeChunk]
	cancel context.CancelFunc
	next   uint64 // the sequence that has to come next
}

func (n *node) subscribe(channel string, after uint64) *reader {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.context())
	n.t.Cleanup(cancel)
	stream, err := n.client.Subscribe(ctx, &pb.SubscribeRequest{ChannelId: channel, AfterSequence: after})
	if err != nil {
		n.t.Fatal(err)
	}
	return &reader{n.t, stream, cancel, after + 1}
}

// read reads until the message with a sequence, and checks that each comes once,
// in order and whole.
func (r *reader) read(last uint64) {
	r.t.Helper()
	for r.next <= last {
		chunk, err := r.stream.Recv()
		if err != nil {
			r.t.Fatalf("waiting for %d: %v", r.next, err)
		}
		bytes := 0
		for _, m := range chunk.Messages {
			if m.Sequence != r.next || payloadOf(m.Payload) != r.next {
				r.t.Fatalf("got sequence %d with payload %.20q, want %d", m.Sequence, m.Payload, r.next)
			}
			bytes += len(m.Payload)
			r.next++
		}
		if n := len(chunk.Messages); n == 0 || n > maxChunkMessages || (n > 1 && bytes > maxChunkBytes) {
			r.t.Fatalf("a chunk of %d messages and %d bytes", n, bytes)
		}
	}
	if r.next != last+1 {
		r.t.Fatalf("read up to %d, want %d", r.next-1, last)
	}
}

// end reads until the subscription ends and gives its status.
func (r *reader) end() error {
	for {
		chunk, err := r.stream.Recv()
		if err != nil {
			return err
		}
		r.next = chunk.Messages[len(chunk.Messages)-1].Sequence + 1
	}
}

// fill sends messages whose payloads begin with their sequence.
func (n *node) fill(channel string, first, last uint64, size int) {
	n.t.Helper()
	for i := first; i <= last; i++ {
		text := strconv.FormatUint(i, 10) + " "
		n.send(channel, text+strings.Repeat("x", max(0, size-len(text))))
	}
}

func payloadOf(b []byte) uint64 {
	number, _, _ := strings.Cut(string(b), " ")
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// Stored messages come first, then new ones, and another channel's never.
func TestSubscribe(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.create("other")
	n.fill("general", 1, 300, 0)
	n.fill("other", 1, 10, 0)
	all, some, live := n.subscribe("general", 0), n.subscribe("general", 250), n.subscribe("general", 300)
	all.read(300)
	some.read(300)
	n.fill("other", 11, 20, 0)
	n.fill("general", 301, 310, 0)
	for _, r := range []*reader{all, some, live} {
		r.read(310)
	}
}

func TestSubscribeLongMessages(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.fill("general", 1, 40, 30<<10)
	n.fill("general", 41, 44, chat.MaxMessage)
	n.subscribe("general", 0).read(44)
}

// A subscription that begins beyond the newest message is told where that is: the
// client has seen another history.
func TestSubscribeBeyondTheHead(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.create("empty")
	n.fill("general", 1, 3, 0)
	for _, after := range []uint64{4, 1_700_000_000, 1<<63 + 1} {
		err := n.subscribe("general", after).end()
		check(t, err, codes.OutOfRange, "cursor_beyond_head")
		if meta := detail[errdetails.ErrorInfo](err).GetMetadata(); meta[metaLast] != "3" {
			t.Errorf("metadata %v", meta)
		}
	}
	check(t, n.subscribe("empty", 1).end(), codes.OutOfRange, "cursor_beyond_head")
	r := n.subscribe("general", 3)
	n.fill("general", 4, 7, 0)
	r.read(7)
}

// A client that goes away and comes back with what it read last misses nothing.
func TestSubscribeResumes(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.fill("general", 1, 20, 0)
	var after uint64
	for round := range uint64(5) {
		r := n.subscribe("general", after)
		r.read(20 + 10*round)
		r.cancel()
		if err := r.end(); status.Code(err) != codes.Canceled {
			t.Fatalf("ended with %v", err)
		}
		after = r.next - 1
		n.fill("general", 21+10*round, 30+10*round, 0)
	}
	n.subscribe("general", after).read(70)
}

// Messages that were dropped are told, and how to go on behind them.
func TestSubscribeTellsGaps(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.fill("general", 1, 20, 0)
	if _, err := n.chat.Trim(n.context(), chat.Actor{}, "general", 11); err != nil {
		t.Fatal(err)
	}
	err := n.subscribe("general", 4).end()
	check(t, err, codes.OutOfRange, "messages_dropped")
	if meta := detail[errdetails.ErrorInfo](err).GetMetadata(); meta[metaFirst] != "5" || meta[metaLast] != "10" {
		t.Errorf("metadata %v", meta)
	}
	n.subscribe("general", 10).read(20)
	// From the beginning means from what there is.
	r := n.subscribe("general", 0)
	r.next = 11
	r.read(20)
}

// resumable checks that an end of the server tells how far the subscription came,
// and no more than that; all of it but the last chunk may be missing.
func resumable(t *testing.T, err error, atLeast, received uint64) {
	t.Helper()
	info := detail[errdetails.ErrorInfo](err)
	after, perr := strconv.ParseUint(info.GetMetadata()[metaAfter], 10, 64)
	if perr != nil || after < atLeast || after > received {
		t.Errorf("%v with %v: want %s %d to %d", err, info, metaAfter, atLeast, received)
	}
}

// A node without a leader ends its subscriptions after the grace time, and one
// that only stopped leading keeps them.
func TestLeaderLost(t *testing.T) {
	n := newNode(t, func(o *Options) { o.LeaderGrace = 100 * time.Millisecond })
	n.create("general")
	n.fill("general", 1, 3, 0)
	r := n.subscribe("general", 0)
	r.read(3)
	n.cluster.set(following)
	n.fill("general", 4, 5, 0)
	r.read(5)
	n.cluster.set(electing)
	err := r.end()
	check(t, err, codes.Unavailable, "no_leader")
	resumable(t, err, 3, 5)
}

// A client that does not read is cut off after the write timeout, others are not,
// and what it is told matches what it was sent.
func TestSlowSubscriber(t *testing.T) {
	n := newNode(t, func(o *Options) { o.WriteTimeout = 200 * time.Millisecond })
	n.create("general")
	healthy := n.subscribe("general", 0)
	// A window that does not grow, so that little is enough to fill it.
	n.client = pb.NewMessengerClient(n.dial(grpc.WithStaticStreamWindowSize(64 << 10)))
	slow := n.subscribe("general", 0)
	const stored = 100
	n.fill("general", 1, stored, 8<<10)
	healthy.read(stored)
	// Its stream is gone from the server before anything is read from it.
	ctx, tick := n.context(), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for open := 2; open > 1; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the slow subscription is still open")
		}
		n.server.mu.Lock()
		open = len(n.server.streams)
		n.server.mu.Unlock()
	}
	err := slow.end()
	check(t, err, codes.ResourceExhausted, "slow")
	resumable(t, err, 1, slow.next-1)
	if slow.next > stored {
		t.Error("the slow subscriber was sent everything")
	}
	n.subscribe("general", slow.next-1).read(stored)
}

// Shutdown ends subscriptions and tells them where to go on, and it ends at once.
func TestShutdownEndsSubscriptions(t *testing.T) {
	n := newNode(t, func(o *Options) { o.DrainTimeout = time.Hour })
	n.create("general")
	n.fill("general", 1, 3, 0)
	var readers []*reader
	for range 20 {
		r := n.subscribe("general", 0)
		r.read(3)
		readers = append(readers, r)
	}
	n.server.Shutdown(context.Background())
	for _, r := range readers {
		err := r.end()
		check(t, err, codes.Unavailable, "stopping")
		resumable(t, err, 0, 3)
	}
	n.server.Shutdown(context.Background())
	if err := errors.Join(n.calls()["SendMessage"]); status.Code(err) != codes.Unavailable {
		t.Errorf("a call after shutdown: %v", err)
	}
}

// The end of the service below ends subscriptions, too.
func TestServiceCloses(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.fill("general", 1, 3, 0)
	r := n.subscribe("general", 0)
	r.read(3)
	n.chat.Close()
	err := r.end()
	check(t, err, codes.Unavailable, "stopping")
	resumable(t, err, 0, 3)
}

// Many subscribers and senders at a time, each sees everything.
func TestManySubscribers(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	const stored, subscribers = 400, 30
	var readers []*reader
	for range subscribers {
		readers = append(readers, n.subscribe("general", 0))
	}
	failed := make(chan error, subscribers)
	for _, r := range readers {
		go func() {
			var err error
			for r.next <= stored && err == nil {
				var chunk *pb.SubscribeChunk
				chunk, err = r.stream.Recv()
				for _, m := range chunk.GetMessages() {
					if m.Sequence != r.next {
						err = fmt.Errorf("sequence %d, want %d", m.Sequence, r.next)
					}
					r.next++
				}
			}
			failed <- err
		}()
	}
	n.fill("general", 1, stored, 0)
	for range readers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
