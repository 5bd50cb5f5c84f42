package main

import (
	"bytes"
	"io"
	"log/slog"
	"os/signal"
	"syscall"
	"time"
)

// startLog returns the logger of node id. From here to the end of the process
// nothing that happens to standard error, and no reader of it, can stop or end
// the node: all that goes there passes through a queue, and a pipe without a
// reader is an error of the write instead of the signal that ends a process.
func (p *program) startLog(s *settings, id uint64) *slog.Logger {
	signal.Ignore(syscall.SIGPIPE)
	node := slog.Uint64("node", id)
	p.log = newLogQueue(p.stderr, maxQueuedLog, func(n int) []byte {
		var line bytes.Buffer
		newLogger(&line, s.dev, slog.LevelWarn).Warn("log lines are missing here: they could not be written in time", node, "lines", n)
		return line.Bytes()
	})
	p.stderr = p.log
	logger := newLogger(p.log, s.dev, slog.Level(s.logLevel)).With(node)
	slog.SetDefault(logger) // for what net/http and gRPC say by themselves
	return logger
}

// newLogger returns the program's logger: one JSON object per line on w, or
// with dev text with the time of day alone.
func newLogger(w io.Writer, dev bool, level slog.Level) *slog.Logger {
	if !dev {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				return slog.String(slog.TimeKey, a.Value.Time().Format(time.TimeOnly+".000"))
			}
			return a
		},
	}))
}
