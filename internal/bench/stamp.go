package bench

import (
	"bytes"
	"strconv"
	"time"
)

// A stamp begins the text of every message of a fan-out:
// "RUN NUMBER TIME " with the run's random tag, the message's number and the
// time at which it was to be posted, in nanoseconds since the run began. Both
// ends of a delivery are in this process, so one monotonic clock serves them.
type stamp struct {
	number uint64
	due    time.Duration
}

// appendStamped appends a text of n bytes, which begins with the stamp.
func appendStamped(b []byte, run string, s stamp, n int) []byte {
	start := len(b)
	b = append(b, run...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, s.number, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(s.due), 10)
	b = append(b, ' ')
	for len(b) < start+n {
		b = append(b, 'x')
	}
	return b
}

var (
	messageMember = []byte(`"Message":"`)
	seqMember     = []byte(`"Seq":`)
)

// parseDelivery reads the stamp and the Seq of a message object, of which
// frame need only be the beginning. It says false for anything else, such as a
// message of another run.
func parseDelivery(frame []byte, run string) (s stamp, seq uint64, ok bool) {
	at := bytes.Index(frame, seqMember)
	if at < 0 {
		return stamp{}, 0, false
	}
	seq, _, ok = leadingNumber(frame[at+len(seqMember):])
	if !ok {
		return stamp{}, 0, false
	}
	if at = bytes.Index(frame, messageMember); at < 0 {
		return stamp{}, 0, false
	}
	text := frame[at+len(messageMember):]
	if !bytes.HasPrefix(text, []byte(run)) {
		return stamp{}, 0, false
	}
	if text, ok = bytes.CutPrefix(text[len(run):], []byte(" ")); !ok {
		return stamp{}, 0, false
	}
	if s.number, text, ok = leadingNumber(text); !ok {
		return stamp{}, 0, false
	}
	if text, ok = bytes.CutPrefix(text, []byte(" ")); !ok {
		return stamp{}, 0, false
	}
	due, text, ok := leadingNumber(text)
	if !ok || !bytes.HasPrefix(text, []byte(" ")) || due>>63 != 0 {
		return stamp{}, 0, false
	}
	s.due = time.Duration(due)
	return s, seq, true
}

// leadingNumber reads the decimal number that b begins with.
func leadingNumber(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	n, err := strconv.ParseUint(string(b[:i]), 10, 64)
	return n, b[i:], err == nil
}
