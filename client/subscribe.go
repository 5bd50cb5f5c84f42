package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// SubscribeOptions say what to follow.
type SubscribeOptions struct {
	// Rooms are the names of 1 to 1,000 rooms. They need not exist yet.
	Rooms []string
	// Since is where to begin:
	//
	//   - "" or "latest": with the first message stored after the subscription
	//     is [Connected];
	//   - "all": with the oldest message there is;
	//   - an ID in decimal: behind the message of that ID, as [Message.ID] gives;
	//   - a duration such as "10m": with the messages of that time until now;
	//   - a time in RFC 3339, or as "@" and seconds since 1970: with the first
	//     message posted then or later.
	//
	// A [Gap] tells of an ID that no message has yet.
	Since string
	// Poll ends the subscription when it has delivered what is there.
	Poll bool
}

// Subscribe follows rooms. The sequence ends only with an error, which comes
// alone as its last element: an [*Error] when a node refuses the subscription
// for good, or one that matches ctx's error when that ends. With
// [SubscribeOptions.Poll] it also ends, without an error, when all is delivered.
// Everything else is overcome by going on at another node.
//
// Each range over the sequence is a subscription of its own.
func (c *Client) Subscribe(ctx context.Context, o SubscribeOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s, err := c.newSubscription(o)
		if err == nil {
			s.yield = func(e Event) error {
				if !yield(e, nil) {
					return errStopped
				}
				return nil
			}
			err = s.run(ctx)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

var (
	// errStopped: the reader has left the loop.
	errStopped = errors.New("stopped")
	// errDelivered: a poll has come to its end.
	errDelivered = errors.New("delivered")
)

// codeBeyond is the code of a gap of a cursor beyond the newest message.
const codeBeyond = "cursor_beyond_head"

// settled is how long a stream must have lasted for its end to count as a
// single event and not as one more of a row of failures.
const settled = 10 * time.Second

// subscription is one range over Subscribe. It belongs to one goroutine.
type subscription struct {
	client *Client
	path   string // of the stream, without the query
	rooms  []string
	poll   bool
	yield  func(Event) error

	// The place in the rooms: behind message cursor once placed is set, and
	// before that what since says. ago is since as a duration, which is counted
	// from begun on; it is negative when since is none.
	placed bool
	cursor uint64
	since  string
	ago    time.Duration
	begun  time.Time
	// seen is the highest Seq of each room that was delivered or told as
	// missing.
	seen map[string]uint64
	// leaderLost is the last that was told of the leader of the present node.
	leaderLost bool

	pace pacer
}

func (c *Client) newSubscription(o SubscribeOptions) (*subscription, error) {
	if len(o.Rooms) == 0 {
		return nil, refused("room_name_invalid", "a subscription needs at least one room")
	}
	s := &subscription{client: c, rooms: o.Rooms, poll: o.Poll, since: o.Since, ago: -1, begun: time.Now(), seen: make(map[string]uint64)}
	escaped := make([]string, len(o.Rooms))
	for i, room := range o.Rooms {
		if room == "" || strings.Contains(room, ",") {
			return nil, refused("room_name_invalid", "%q is not a room name", room)
		}
		escaped[i] = url.PathEscape(room)
	}
	s.path = "/rooms/" + strings.Join(escaped, ",") + "/events"
	if s.since == "" {
		s.since = "latest"
	}
	if d, err := time.ParseDuration(s.since); err == nil && d >= 0 {
		s.ago = d
	}
	if id, err := strconv.ParseUint(s.since, 10, 64); err == nil {
		s.place(id)
	}
	return s, nil
}

// place moves the place forward to behind message id; it never goes back.
func (s *subscription) place(id uint64) {
	if !s.placed || id > s.cursor {
		s.placed, s.cursor = true, id
	}
}

// run goes from node to node until the subscription is over.
func (s *subscription) run(ctx context.Context) error {
	c := s.client
	at, endpoint := c.endpoints.start()
	var failure error
	for {
		if ctx.Err() != nil {
			return unavailable(ctx, failure)
		}
		begun := time.Now()
		err := s.follow(ctx, at, endpoint)
		var again *attemptError
		switch {
		case errors.Is(err, errDelivered):
			return nil
		case ctx.Err() != nil && !errors.Is(err, errStopped):
			return unavailable(ctx, failure)
		case !errors.As(err, &again):
			return err
		}
		failure = err
		c.log.Debug("stream ended", slog.String("endpoint", endpoint), slog.Any("error", again.err))
		if time.Since(begun) >= settled {
			s.pace.reset()
		}
		c.endpoints.failed(at)
		if err := s.yield(&Status{Kind: Disconnected, Endpoint: endpoint, Err: again.err}); err != nil {
			return err
		}
		at, endpoint = c.endpoints.next(at)
		s.pace.failed(again.wait)
		s.pace.pause(ctx, c.endpoints.count())
	}
}

// follow opens a stream at one node and delivers what comes in. An
// *attemptError says that the next node can go on from the present place.
func (s *subscription) follow(ctx context.Context, at int, endpoint string) error {
	c := s.client
	if s.since == "latest" && !s.placed {
		if err := s.pin(ctx, endpoint); err != nil {
			return err
		}
	}
	s.leaderLost = false
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(c.attemptTimeout, func() { cancel(errNoAnswer) })
	defer alarm.Stop()
	again := func(err error) error {
		if cause := context.Cause(ctx); errors.Is(cause, errNoAnswer) || errors.Is(cause, errIdle) {
			err = cause
		}
		return &attemptError{endpoint: endpoint, err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+s.path+"?"+s.query().Encode(), http.NoBody)
	if err != nil {
		return refused("request_invalid", "%v", err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return again(shortened(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(endpoint, resp)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/event-stream" {
		return again(fmt.Errorf("the answer is %q and not a stream of events", kind))
	}
	if resp.Header.Get("Retry-After") != "" {
		return s.sentAway(endpoint, resp)
	}
	alarm.Stop()
	c.endpoints.worked(at)
	if err := s.yield(&Status{Kind: Connected, Endpoint: endpoint}); err != nil {
		return err
	}

	alarm = time.AfterFunc(c.idleTimeout, func() { cancel(errIdle) })
	defer alarm.Stop()
	events := newEventReader(&watched{body: resp.Body, alarm: alarm, limit: c.idleTimeout})
	for {
		event, err := events.next()
		if errors.Is(err, io.EOF) && s.poll {
			return errDelivered
		}
		if err != nil {
			return again(fmt.Errorf("read stream: %w", err))
		}
		if err := s.take(endpoint, event); err != nil {
			var ended *endError
			if errors.Is(err, errStopped) {
				return err
			} else if errors.As(err, &ended) {
				c.endpoints.learn(ended.endpoints)
			}
			return again(err)
		}
	}
}

// sentAway reads a stream that ends at once: the form in which a node refuses an
// EventSource for now, because that would never come back after another status.
func (s *subscription) sentAway(endpoint string, resp *http.Response) error {
	refused := &attemptError{endpoint: endpoint, err: errNoAnswer, wait: problem(endpoint, resp.StatusCode, resp.Header, nil).RetryAfter}
	for events := newEventReader(resp.Body); ; {
		event, err := events.next()
		if err != nil {
			return refused
		}
		if event.name != "end" {
			continue
		}
		refused.err = s.takeEnd(event.data)
		var ended *endError
		if errors.As(refused.err, &ended) {
			s.client.endpoints.learn(ended.endpoints)
		}
		return refused
	}
}

// query is that of the stream's URL for the present place.
func (s *subscription) query() url.Values {
	query := make(url.Values)
	switch {
	case s.placed:
		query.Set("since", strconv.FormatUint(s.cursor, 10))
	case s.ago >= 0:
		// "The last ten minutes" means those before the subscription began, so
		// the time that has passed since is added, by the node's own clock.
		query.Set("since", (s.ago + time.Since(s.begun).Round(time.Millisecond)).String())
	default:
		query.Set("since", s.since)
	}
	if s.poll {
		query.Set("poll", "1")
	}
	return query
}

// pin turns "latest" into the cursor behind the newest message of the rooms.
// Otherwise a stream that broke before its first message could only go on from
// a later "latest", and what came in between would be lost.
func (s *subscription) pin(ctx context.Context, endpoint string) error {
	newest := uint64(0)
	for _, room := range s.rooms {
		path, err := roomPath(room)
		if err != nil {
			return err
		}
		err = s.client.attempt(ctx, endpoint, request{
			method: http.MethodGet, path: path + "?limit=1",
			decode: func(_ http.Header, body []byte) error {
				messages, err := decodeMessages(body)
				for _, m := range messages {
					newest = max(newest, m.ID)
				}
				return err
			},
		})
		if err != nil {
			return err
		}
	}
	s.place(newest)
	return nil
}

// watched is the body of a stream whose silence sets off the alarm. Only the
// time spent in Read counts, not that of a reader who takes its time.
type watched struct {
	body  io.Reader
	alarm *time.Timer
	limit time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	w.alarm.Reset(w.limit)
	n, err := w.body.Read(p)
	w.alarm.Stop()
	return n, err
}

// endError is a node's announcement that it ends a stream.
type endError struct {
	code, detail string
	endpoints    []string
}

func (e *endError) Error() string {
	if e.detail == "" {
		return e.code
	}
	return e.code + ": " + e.detail
}

// take deals with one event of a stream. An error ends the stream.
func (s *subscription) take(endpoint string, event serverEvent) error {
	id, err := strconv.ParseUint(event.id, 10, 64)
	if event.hasID && event.id != "" && err != nil {
		return fmt.Errorf("the id of an event is %q", clipped(event.id))
	}
	hasID := event.hasID && err == nil
	switch {
	case event.data == nil:
	case event.name == "" || event.name == "message":
		return s.takeMessage(event.data)
	case event.name == "gap":
		return s.takeGap(event.data, id, hasID)
	case event.name == "status":
		if hasID {
			s.place(id)
		}
		return s.takeStatus(endpoint, event.data)
	case event.name == "end":
		return s.takeEnd(event.data)
	}
	// An event of a kind that is not known here still moves the place.
	if hasID {
		s.place(id)
	}
	return nil
}

func (s *subscription) takeMessage(data []byte) error {
	m, err := decodeMessage(data)
	if err != nil {
		return err
	}
	if s.placed && m.ID <= s.cursor {
		return nil // delivered before
	}
	// A hole that no gap event told of is told here: better a node's mistake
	// that shows than one that looks like a quiet room.
	if seen := s.seen[m.Room]; seen != 0 && m.Seq > seen+1 {
		if err := s.yield(&Gap{Room: m.Room, FirstSeq: seen + 1, LastSeq: m.Seq - 1, ID: s.cursor}); err != nil {
			return err
		}
	}
	s.place(m.ID)
	s.seen[m.Room] = m.Seq
	s.pace.reset()
	return s.yield(&m)
}

// takeStatus tells of a leader that is lost, and of one that is back after that.
func (s *subscription) takeStatus(endpoint string, data []byte) error {
	var status struct{ Leader bool }
	if err := json.Unmarshal(data, &status); err != nil {
		return fmt.Errorf("decode status: %w", err)
	}
	lost := s.leaderLost
	if s.leaderLost = !status.Leader; s.leaderLost == lost {
		return nil
	}
	kind := LeaderLost
	if status.Leader {
		kind = LeaderBack
	}
	return s.yield(&Status{Kind: kind, Endpoint: endpoint})
}

func (s *subscription) takeGap(data []byte, id uint64, hasID bool) error {
	var told struct {
		Room, Code, Detail string
		FirstSeq, LastSeq  uint64
	}
	if err := json.Unmarshal(data, &told); err != nil {
		return fmt.Errorf("decode gap: %w", err)
	}
	gap := Gap{Room: told.Room, FirstSeq: told.FirstSeq, LastSeq: told.LastSeq}
	if told.Code == codeBeyond && told.Room != "" && hasID {
		// The only way back: what was read is not of this cluster, or not any more.
		s.placed, s.cursor = true, id
		s.seen[told.Room] = told.LastSeq
		gap.ID, gap.Beyond = id, clipped(told.Detail)
		s.pace.reset()
		return s.yield(&gap)
	}
	if gap.Room == "" || gap.LastSeq < gap.FirstSeq {
		return errors.New("decode gap: the object is no gap")
	}
	if hasID {
		s.place(id)
	}
	gap.ID = s.cursor
	seen := s.seen[gap.Room]
	if gap.LastSeq <= seen {
		return nil // told before
	}
	gap.FirstSeq = max(gap.FirstSeq, seen+1)
	s.seen[gap.Room] = gap.LastSeq
	s.pace.reset()
	return s.yield(&gap)
}

func (s *subscription) takeEnd(data []byte) error {
	var end struct {
		Code, Detail string
		Since        string
		Endpoints    []string
	}
	if err := json.Unmarshal(data, &end); err != nil {
		return fmt.Errorf("decode end: %w", err)
	}
	if id, err := strconv.ParseUint(end.Since, 10, 64); err == nil {
		s.place(id)
	}
	return &endError{code: clipped(end.Code), detail: clipped(end.Detail), endpoints: end.Endpoints}
}

// clipped bounds text from outside that goes into an error.
func clipped(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// reason is the text of an error without the endpoint, for where that is known.
func reason(err error) string {
	var again *attemptError
	if errors.As(err, &again) {
		return again.err.Error()
	}
	return err.Error()
}
