package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxEvent bounds one event of a stream, in bytes. The longest message that a
// node can be set to take, 16 MiB, fits however it is escaped.
const maxEvent = 128 << 20

var errEventTooLarge = errors.New("an event of the stream is too large")

// serverEvent is one block of a text/event-stream.
type serverEvent struct {
	// name is "" for a message.
	name string
	// id is the block's id field; hasID tells an empty one from none.
	id    string
	hasID bool
	// data is nil for a block without a data field.
	data []byte
}

// eventReader reads a text/event-stream as the HTML standard defines it: lines
// end with LF, CR LF or CR, a blank line ends a block, lines that begin with a
// colon are comments. Blocks without data are returned as well, because their
// id counts.
type eventReader struct {
	r *bufio.Reader
	// limit bounds one event, in bytes.
	limit int
	// afterCR: the line before ended with CR, to which an LF may belong.
	afterCR bool
	begun   bool
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{r: bufio.NewReaderSize(r, 16<<10), limit: maxEvent}
}

// next returns the next block that has an id or data. The data is the caller's.
// A block that the end of the stream cuts off is dropped: io.EOF comes instead.
func (e *eventReader) next() (serverEvent, error) {
	var ev serverEvent
	size := 0
	for {
		line, err := e.line()
		if err != nil {
			return serverEvent{}, err
		}
		if len(line) == 0 {
			if ev.hasID || ev.data != nil {
				return ev, nil
			}
			ev, size = serverEvent{}, 0
			continue
		}
		if size += len(line); size > e.limit {
			return serverEvent{}, errEventTooLarge
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			ev.name = string(value)
		case "data":
			if ev.data == nil {
				ev.data = make([]byte, 0, len(value))
			} else {
				ev.data = append(ev.data, '\n')
			}
			ev.data = append(ev.data, value...)
		case "id":
			// The standard ignores an id with a NUL.
			if id := string(value); !strings.ContainsRune(id, 0) {
				ev.id, ev.hasID = id, true
			}
		}
	}
}

// line returns the next line without its end.
func (e *eventReader) line() ([]byte, error) {
	var line []byte
	for {
		b, err := e.r.ReadByte()
		if err != nil {
			return nil, err
		}
		first := !e.begun
		e.begun = true
		if b == '\n' && e.afterCR && len(line) == 0 {
			e.afterCR = false
			continue
		}
		e.afterCR = b == '\r'
		if b == '\n' || b == '\r' {
			return line, nil
		}
		if first && b == 0xef {
			// A byte order mark at the very beginning does not count.
			if mark, err := e.r.Peek(2); err == nil && mark[0] == 0xbb && mark[1] == 0xbf {
				_, _ = e.r.Discard(2)
				continue
			}
		}
		line = append(line, b)
		// What is buffered up to the end of the line is taken at once.
		ahead, _ := e.r.Peek(e.r.Buffered())
		if end := bytes.IndexAny(ahead, "\r\n"); end >= 0 {
			ahead = ahead[:end]
		}
		line = append(line, ahead...)
		_, _ = e.r.Discard(len(ahead))
		if len(line) > e.limit {
			return nil, errEventTooLarge
		}
	}
}
