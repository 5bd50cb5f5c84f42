// Package chatpb holds the protobuf form of a log entry's payload.
//
// chat.proto is the definition; chat.pb.go is generated from it by go generate
// and is not edited. Package chat encodes and decodes
// entries with its own codec and uses this package as the reference its tests
// compare against.
package chatpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative chat.proto
