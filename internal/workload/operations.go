package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// pageSize is how many messages a reader asks for.
const pageSize = 10

// write is one writer.
func (w *Workload) write(writer int) {
	for n := 0; !w.ended(); n++ {
		m := Message{
			Room: w.room(writer + n), User: fmt.Sprintf("%s-writer-%d", w.o.Name, writer),
			Message:         fmt.Sprintf("message %d of writer %d", n, writer),
			ClientMessageID: fmt.Sprintf("%s/%d/%d", w.o.Name, writer, n),
		}
		w.post(writer+n, m)
		w.rest()
	}
}

// post posts one message until somebody says what became of it.
func (w *Workload) post(first int, m Message) {
	post := w.o.History.Send(m.Oracle())
	written, answered := false, false // written: one of the attempts may have been carried out
	w.persist(first, func(ctx context.Context, node string) error {
		stored, _, err := w.client.Post(ctx, node, m)
		if err == nil {
			answered = true
			w.acknowledged(post, stored)
			return nil
		}
		written = written || !Harmless(err)
		if !outage(err) {
			answered = true
			w.failed("post %+v to %s: %w", m, node, err)
			return nil
		}
		return err
	})
	if !answered && !written {
		post.Refused()
	}
}

func (w *Workload) acknowledged(post *oracle.Post, stored Message) {
	post.Acknowledged(stored.Oracle())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tops[stored.Room] = max(w.tops[stored.Room], stored.Seq)
}

// read is one reader.
func (w *Workload) read(reader int) {
	for n := 0; !w.ended(); n++ {
		room := w.room(reader + n)
		w.persist(reader+n, func(ctx context.Context, node string) error {
			read := w.o.History.Read(room)
			last, page, err := w.newest(ctx, node, room)
			switch {
			case err == nil:
				read.Returned(last, page)
			case !outage(err):
				w.failed("read %s from %s: %w", room, node, err)
			default:
				return err
			}
			return nil
		})
		w.rest()
	}
}

// newest reads the newest page of a room and the Seq at which the room ends.
func (w *Workload) newest(ctx context.Context, node, room string) (last uint64, page []oracle.Message, err error) {
	messages, err := w.client.Page(ctx, node, room, fmt.Sprint("limit=", pageSize))
	if err != nil {
		return 0, nil, err
	}
	if len(messages) > 0 {
		for _, m := range messages {
			page = append(page, m.Oracle())
		}
		return messages[len(messages)-1].Seq, page, nil
	}
	// It may be that all messages were dropped. The list is of a later moment
	// than the page, and still of one in the time of this read.
	_, answer, err := w.client.Do(ctx, http.MethodGet, node+"/rooms?details&limit=1&prefix="+url.QueryEscape(room), "")
	if err != nil {
		return 0, nil, err
	}
	var rooms []struct {
		Name              string
		FirstSeq, LastSeq uint64
	}
	if err := json.Unmarshal(answer, &rooms); err != nil {
		return 0, nil, fmt.Errorf("rooms: %w", err)
	}
	switch {
	case len(rooms) == 0 || rooms[0].Name != room || rooms[0].FirstSeq <= 1:
		return 0, nil, nil // nothing was dropped, so the page says that it was empty
	case rooms[0].FirstSeq > rooms[0].LastSeq:
		return rooms[0].LastSeq, nil, nil
	}
	return w.newest(ctx, node, room) // a message came in between
}

// persist makes attempts at one node after the other until there is no error or
// the workload is abandoned. They begin at the first-th node.
func (w *Workload) persist(first int, attempt func(ctx context.Context, node string) error) {
	var again *time.Ticker
	for try := first; w.working.Err() == nil; try++ {
		ctx, cancel := context.WithTimeout(w.working, w.o.AttemptTimeout)
		err := attempt(ctx, w.url(try))
		cancel()
		if err == nil {
			return
		}
		if again == nil {
			again = time.NewTicker(retryPause)
			defer again.Stop()
		}
		select {
		case <-again.C:
		case <-w.working.Done():
		}
	}
}

// outage reports whether nodes that are down, cut off or on their way explain
// an error.
func outage(err error) bool {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Status == http.StatusServiceUnavailable || r.Status == http.StatusTooManyRequests
	}
	// What is not JSON did not break off: it was all there.
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return !errors.As(err, &syntax) && !errors.As(err, &kind)
}

// Harmless reports whether an error says that nothing was written.
func Harmless(err error) bool {
	switch CodeOf(err) {
	case "no_leader", "stopping", "overloaded", "clock_skew", "timeout_not_sent", "disk_full", "not_ready", "rate_limited":
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
