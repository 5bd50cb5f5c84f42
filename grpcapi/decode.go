package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that codec builds on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// A request that cannot be decoded is its client's mistake, but gRPC answers it
// with Internal as soon as the codec reports it. So the codec does not: every
// request is received as an incoming, which keeps the error until it can be
// returned from a handler, where the status is ours.

// incoming is a request with what came of decoding it.
type incoming struct {
	message any
	err     error
}

// refusal is the status of a request that could not be decoded; nil if it could.
func (in *incoming) refusal() error {
	if in.err == nil {
		return nil
	}
	detail := "the request is no message of this call's type"
	if strings.Contains(in.err.Error(), "invalid UTF-8") { // the library has no other way to tell
		detail = "a string in the request is not valid UTF-8"
	}
	return failure{code: codeRequestInvalid, detail: detail}.status()
}

// codec is gRPC's own for protobuf, but for incoming and outgoing.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// pooledAnswer is the largest answer whose buffer is one of gRPC's, in bytes: for a
// longer one they have a mebibyte, which a client that does not read would hold.
const pooledAnswer = 32 << 10

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if out, ok := v.(*outgoing); ok {
		return out.marshal()
	}
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := proto.Size(m)
	if size <= pooledAnswer {
		return c.CodecV2.Marshal(v)
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, size), m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.err = c.CodecV2.Unmarshal(data, in.message)
	return nil
}

// registrar registers services whose unary methods receive requests as incoming.
// Streams do so in openStream.RecvMsg. The calls are charged to the budget.
type registrar struct {
	*grpc.Server
	front *Server
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(d *grpc.ServiceDesc, service any) {
	out := *d
	out.Methods = make([]grpc.MethodDesc, len(d.Methods))
	for i, m := range d.Methods {
		handle := m.Handler
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			ctx, c, err := r.front.begin(ctx, budget.Requests)
			if err != nil {
				return nil, err
			}
			defer c.end()
			return handle(srv, ctx, func(v any) error {
				in := incoming{message: v}
				if err := decode(&in); err != nil {
					return err
				}
				c.received()
				return in.refusal()
			}, interceptor)
		}
		out.Methods[i] = m
	}
	r.Server.RegisterService(&out, service)
}
