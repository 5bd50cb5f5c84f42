package raftnode

import (
	"errors"
	"time"
)

// A state that lasts is logged at once, when its kind changes, and once a minute.
const (
	lastingEvery  = time.Minute
	lastingChange = 5 * time.Second // two kinds that take turns are no news each time
)

// lasting decides when a failure that is met again and again is logged.
type lasting struct {
	since  time.Time // of the first one
	logged time.Time
	kind   string
	times  int // since the last line
}

// due notes a failure, and reports whether to log it and for how many it stands.
func (l *lasting) due(now time.Time, err error) (times int, due bool) {
	l.times++
	kind, passed := kindOf(err), now.Sub(l.logged).Abs() // a clock may be set back
	switch {
	case l.since.IsZero():
		l.since = now
	case passed >= lastingEvery || kind != l.kind && passed >= lastingChange:
	default:
		return 0, false
	}
	times, l.times = l.times, 0
	l.logged, l.kind = now, kind
	return times, true
}

// kindOf is what failures have in common whose texts differ by a port or an
// attempt: a code, or the innermost error.
func kindOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
