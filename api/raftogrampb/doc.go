// Package raftogrampb is the generated Go code of raftogram.v1, the gRPC API.
//
// Its definition, with the contract of every call and field, is
// api/proto/raftogram/v1/messaging.proto. Everything else in this directory is
// generated from it by scripts/generate and not edited. Applications may import
// the package to talk to a node; package grpcapi serves it.
package raftogrampb
