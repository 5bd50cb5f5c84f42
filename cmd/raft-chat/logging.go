package main

import (
	"io"
	"log/slog"
	"time"
)

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
