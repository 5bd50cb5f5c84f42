package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/grpclog"
)

func main() {
	// What gRPC has to say by itself goes where the log package's words go.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, stdLog{}))
	os.Exit(run(untilSignal(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// stdLog writes to the log package.
type stdLog struct{}

func (stdLog) Write(p []byte) (int, error) {
	log.Print(string(p))
	return len(p), nil
}

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or
// SIGHUP; its cause names the signal. From then on the next one has its usual
// effect again and ends the process, but for SIGHUP: a terminal that closes
// sends that more than once. A process that was started with SIGHUP ignored, as
// nohup does, goes on ignoring it.
func untilSignal() context.Context {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP)
		stop()
	})
	return ctx
}
