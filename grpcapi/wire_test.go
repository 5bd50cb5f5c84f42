package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// rawCodec passes messages through as bytes, so that no generated code is between
// a test and the wire.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not bytes")
	}
	return b, nil
}

func (rawCodec) Unmarshal(b []byte, v any) error {
	p, ok := v.(*[]byte)
	if !ok {
		return errors.New("not bytes")
	}
	*p = bytes.Clone(b)
	return nil
}

// call makes a unary call with a request that is encoded already.
func call(ctx context.Context, conn *grpc.ClientConn, method string, request []byte) (answer []byte, err error) {
	err = conn.Invoke(ctx, "/raftogram.v1.Messenger/"+method, request, &answer, grpc.ForceCodec(rawCodec{}))
	return answer, err
}

// subscribeRaw opens a subscription and gives its first chunk.
func subscribeRaw(ctx context.Context, conn *grpc.ClientConn, request []byte) (chunk []byte, err error) {
	return streamRaw(ctx, conn, "/raftogram.v1.Messenger/Subscribe", request)
}

// streamRaw sends one request to a streaming method and gives its first answer.
func streamRaw(ctx context.Context, conn *grpc.ClientConn, method string, request []byte) (answer []byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return nil, err
	}
	// What is wrong with the stream is told by RecvMsg.
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	err = stream.RecvMsg(&answer)
	return answer, err
}

func text(b []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), value)
}

func count(b []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), value)
}

// fields writes an encoded message as lines "number type value".
func fields(t *testing.T, b []byte) (lines []string) {
	t.Helper()
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				t.Fatal(protowire.ParseError(n))
			}
			lines, b = append(lines, fmt.Sprintf("%d varint %d", number, v)), b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				t.Fatal(protowire.ParseError(n))
			}
			lines, b = append(lines, fmt.Sprintf("%d bytes %q", number, v)), b[n:]
		default:
			t.Fatalf("field %d has type %d", number, typ)
		}
	}
	return lines
}

// The numbers and types of every field, as the contract has them.
func TestWire(t *testing.T) {
	n := newNode(t, nil)
	is := func(what string, got []byte, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if lines := fields(t, got); !slices.Equal(lines, want) {
			t.Errorf("%s: got %q, want %q", what, lines, want)
		}
	}
	request := text(text(nil, 1, "general"), 2, "General")
	got, err := call(n.context(), n.conn, "CreateChannel", request)
	is("create", got, err, `1 bytes "general"`, `2 bytes "General"`, `3 varint 1`)

	request = text(text(text(text(nil, 1, "general"), 2, "ann"), 3, "a\xff"), 4, "m-1")
	got, err = call(n.context(), n.conn, "SendMessage", request)
	is("send", got, err, `1 varint 1`, `2 varint 0`)
	got, err = call(n.context(), n.conn, "SendMessage", request)
	is("send again", got, err, `1 varint 1`, `2 varint 1`)
	// Fields that are not known are skipped.
	request = count(text(text(text(nil, 1, "general"), 2, "bob"), 3, "two"), 99, 7)
	got, err = call(n.context(), n.conn, "SendMessage", request)
	is("send a second", got, err, `1 varint 2`, `2 varint 0`)

	first := text(text(text(count(nil, 1, 1), 2, "ann"), 3, "a\xff"), 4, "m-1")
	second := text(text(count(nil, 1, 2), 2, "bob"), 3, "two")
	request = count(count(text(nil, 1, "general"), 2, 0), 3, 1)
	got, err = call(n.context(), n.conn, "ReadHistory", request)
	is("history", got, err, fmt.Sprintf("1 bytes %q", first), `2 varint 1`)
	request = count(count(text(nil, 1, "general"), 2, 1), 3, 10)
	got, err = call(n.context(), n.conn, "ReadHistory", request)
	is("history after 1", got, err, fmt.Sprintf("1 bytes %q", second), `2 varint 0`)

	got, err = subscribeRaw(n.context(), n.conn, text(nil, 1, "general"))
	is("subscribe", got, err, fmt.Sprintf("1 bytes %q", first), fmt.Sprintf("1 bytes %q", second))
	got, err = subscribeRaw(n.context(), n.conn, count(text(nil, 1, "general"), 2, 1))
	is("subscribe after 1", got, err, fmt.Sprintf("1 bytes %q", second))

	n.cluster.set(following)
	_, err = call(n.context(), n.conn, "CreateChannel", nil)
	// google.rpc.Status: code=1, message=2, details=3 of google.protobuf.Any: type_url=1, value=2.
	encoded, merr := proto.Marshal((*statuspb.Status)(status.Convert(err).Proto()))
	if merr != nil || status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err, merr)
	}
	hint := text(text(nil, 1, "127.0.0.1:9001"), 2, "node2")
	is("not leader", encoded, nil, `1 varint 9`, `2 bytes "not leader: retry on suggested leader client endpoint"`,
		fmt.Sprintf("3 bytes %q", text(text(nil, 1, "type.googleapis.com/raftogram.v1.NotLeader"), 2, string(hint))))
}
