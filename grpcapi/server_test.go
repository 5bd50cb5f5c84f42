package grpcapi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
)

// Health follows whether a leader is known, and Shutdown tells its watchers.
func TestHealth(t *testing.T) {
	n := newNode(t, nil)
	client := healthpb.NewHealthClient(n.conn)
	for _, service := range []string{"", "raftogram.v1.Messenger"} {
		n.cluster.set(leading)
		watch, err := client.Watch(n.context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		last := healthpb.HealthCheckResponse_UNKNOWN
		await := func(want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			for last != want {
				got, err := watch.Recv()
				if err != nil {
					t.Fatal(err)
				}
				last = got.Status
			}
		}
		await(healthpb.HealthCheckResponse_SERVING)
		n.cluster.set(electing)
		await(healthpb.HealthCheckResponse_NOT_SERVING)
		got, err := client.Check(n.context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || got.Status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("check of %q: %v, %v", service, got, err)
		}
		n.cluster.set(following)
		await(healthpb.HealthCheckResponse_SERVING)
	}
	_, err := client.Check(n.context(), &healthpb.HealthCheckRequest{Service: "nothing"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("check of an unknown service: %v", err)
	}
}

// Shutdown does not wait for streams that only their clients would end.
func TestShutdownEndsEveryStream(t *testing.T) {
	n := newNode(t, func(o *Options) { o.DrainTimeout = time.Hour })
	watch, err := healthpb.NewHealthClient(n.conn).Watch(n.context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	reflecting, err := reflectionpb.NewServerReflectionClient(n.conn).ServerReflectionInfo(n.context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflecting.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflecting.Recv(); err != nil {
		t.Fatal(err)
	}
	n.server.Shutdown(context.Background())
	for err == nil {
		_, err = watch.Recv()
	}
	check(t, err, codes.Unavailable, "stopping")
	_, err = reflecting.Recv()
	check(t, err, codes.Unavailable, "stopping")
}

// A call that is under way when Shutdown begins is cut when there is no more time.
func TestShutdownCutsCalls(t *testing.T) {
	n := newNode(t, func(o *Options) { o.DrainTimeout = 50 * time.Millisecond })
	// A call whose request never comes holds its handler for ever.
	conn := n.rawConn()
	conn.write(rawHeaders("/raftogram.v1.Messenger/SendMessage"))
	conn.write(rawPing)
	conn.await(framePing)
	n.server.Shutdown(context.Background())
	conn.awaitClosed()
}

// Both versions of server reflection know the service.
func TestReflection(t *testing.T) {
	n := newNode(t, nil)
	v1, err := reflectionpb.NewServerReflectionClient(n.conn).ServerReflectionInfo(n.context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := v1.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.Name)
	}
	if !slices.Contains(names, "raftogram.v1.Messenger") || !slices.Contains(names, "grpc.health.v1.Health") {
		t.Errorf("services %v", names)
	}
	// ServerReflectionRequest: file_containing_symbol=4; its answer: file_descriptor_response=4.
	const alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
	file, err := streamRaw(n.context(), n.conn, alpha, text(nil, 4, "raftogram.v1.NotLeader"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(fields(t, file), ""); !strings.Contains(got, "4 bytes") || !strings.Contains(got, "leader_grpc_target") {
		t.Errorf("v1alpha: file of NotLeader: %q", got)
	}
}

// A panic in a call is its status and nothing worse.
func TestPanicIsRecovered(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.cluster.panicOnce()
	_, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	check(t, err, codes.Internal, "internal")
	n.cluster.panicOnce()
	check(t, n.subscribe("general", 0).end(), codes.Internal, "internal")
	if log := n.logged.String(); strings.Count(log, "a planted panic") != 2 || strings.Contains(status.Convert(err).Message(), "planted") {
		t.Errorf("status %v, log %s", err, log)
	}
	if _, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"}); err != nil {
		t.Errorf("after panics: %v", err)
	}
}

// A connection beyond the limit is closed at once; a place that becomes free can
// be taken.
func TestConnectionLimit(t *testing.T) {
	n := newNode(t, func(o *Options) { o.MaxConnections = 2 })
	first, second := n.rawConn(), n.rawConn()
	first.await(frameSettings)
	second.await(frameSettings)
	n.rawConn().awaitClosed()
	first.conn.Close()
	// The server notices in its own time.
	ctx := n.context()
	for served := false; !served; {
		if ctx.Err() != nil {
			t.Fatal("the place of a closed connection is still taken")
		}
		third := n.rawConn()
		_, err := third.next()
		served = err == nil
	}
}

// Pings that come too often cost the connection, as the policy says.
func TestPingFlood(t *testing.T) {
	n := newNode(t, func(o *Options) { o.MinPing = time.Hour })
	conn := n.rawConn()
	for range 10 {
		conn.write(rawPing)
	}
	payload := conn.await(frameGoAway)
	if code := binary.BigEndian.Uint32(payload[4:]); code != 0xb {
		t.Errorf("GOAWAY with code %#x, want ENHANCE_YOUR_CALM", code)
	}
}

// No more than MaxStreams calls of a connection run at a time.
func TestStreamLimit(t *testing.T) {
	n := newNode(t, func(o *Options) { o.MaxStreams = 2 })
	n.create("general")
	n.fill("general", 1, 1, 0)
	first, second := n.subscribe("general", 0), n.subscribe("general", 0)
	first.read(1)
	second.read(1)
	ctx, cancel := context.WithTimeout(n.context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.client.ReadHistory(ctx, &pb.ReadHistoryRequest{ChannelId: "general"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a third call: %v", err)
	}
	first.cancel()
	if _, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"}); err != nil {
		t.Errorf("a call after one ended: %v", err)
	}
}

func TestServeOfBrokenListener(t *testing.T) {
	n := newNode(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := n.server.Serve(l); err == nil {
		t.Error("served a closed listener")
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range []Mode{Redirect, Forward} {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("both"); err == nil {
		t.Error("both is a mode")
	}
}

// HTTP/2 frame types.
const (
	frameSettings = 0x4
	framePing     = 0x6
	frameGoAway   = 0x7
)

// rawConn is an HTTP/2 connection by hand, for what a gRPC client would not do.
type rawConn struct {
	t    testing.TB
	conn net.Conn
}

// rawPing is a PING frame.
var rawPing = rawFrame(framePing, 0, 0, make([]byte, 8))

func rawFrame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// rawHeaders is a HEADERS frame that begins a call on stream 1 and leaves it open.
// The header block is HPACK of literals that are not indexed.
func rawHeaders(method string) []byte {
	var block []byte
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "node"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		block = append(block, 0, byte(len(h[0])))
		block = append(append(block, h[0]...), byte(len(h[1])))
		block = append(block, h[1]...)
	}
	const endHeaders = 0x4
	return rawFrame(0x1, endHeaders, 1, block)
}

// rawConn opens a connection and begins it as HTTP/2 does.
func (n *node) rawConn() *rawConn {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	c := &rawConn{n.t, conn}
	c.write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	c.write(rawFrame(frameSettings, 0, 0, nil))
	return c
}

// write sends bytes; that the server may have closed the connection shows when
// its answer is read.
func (c *rawConn) write(b []byte) { _, _ = c.conn.Write(b) }

type frame struct {
	kind    byte
	payload []byte
}

func (c *rawConn) next() (frame, error) {
	var head [9]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return frame{}, fmt.Errorf("read frame: %w", err)
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		return frame{}, fmt.Errorf("read frame: %w", err)
	}
	return frame{head[3], payload}, nil
}

// await reads until a frame of a kind and gives its payload.
func (c *rawConn) await(kind byte) []byte {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for frame %#x: %v", kind, err)
		}
		if f.kind == kind {
			return f.payload
		}
	}
}

// awaitClosed reads until the server has closed the connection.
func (c *rawConn) awaitClosed() {
	c.t.Helper()
	for {
		_, err := c.next()
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			c.t.Fatal("the connection is still open")
		}
		if err != nil {
			return
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
