package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// socket is a form of WebSocket frames.
type socket struct {
	http   *http.Client
	path   string
	decode func(frame []byte) ([]Event, error)

	ctx  context.Context // of the stream
	conn *websocket.Conn
}

func (f *socket) Connect(ctx context.Context, urls []string, from Place) error {
	return f.dial(ctx, urls[0], fmt.Sprint("?since=", from.ID))
}

func (f *socket) dial(ctx context.Context, node, query string, subprotocols ...string) error {
	// An answer that is no upgrade has a body that the library closes.
	conn, answer, err := websocket.Dial(ctx, node+f.path+query, //nolint:bodyclose // see above
		&websocket.DialOptions{HTTPClient: f.http, Subprotocols: subprotocols})
	if err != nil {
		if answer != nil && answer.StatusCode != http.StatusSwitchingProtocols {
			return refused(answer)
		}
		return err
	}
	conn.SetReadLimit(mostFrame)
	f.ctx, f.conn = ctx, conn
	return nil
}

func (f *socket) Next() ([]Event, error) {
	_, frame, err := f.conn.Read(f.ctx)
	if err != nil {
		return nil, err
	}
	return f.decode(frame)
}

func (f *socket) Close() {
	if f.conn != nil {
		_ = f.conn.CloseNow()
		f.conn = nil
	}
}

// session is raft-chat.v1.
type session struct {
	socket
	rooms []string
}

type sessionFrame struct {
	Type, Code, Detail string
	Id                 string // or it would be taken for ID
	Messages           []Message
	Gap
}

func (f *session) Connect(ctx context.Context, urls []string, from Place) error {
	if err := f.dial(ctx, urls[0], "", "raft-chat.v1"); err != nil {
		return err
	}
	subscribe, err := json.Marshal(map[string]any{"Type": "subscribe", "Id": "1", "Rooms": f.rooms, "Since": fmt.Sprint(from.ID)})
	if err != nil {
		return err
	}
	if err := f.conn.Write(ctx, websocket.MessageText, subscribe); err != nil {
		return err
	}
	for {
		frame, err := f.hear()
		if err != nil || frame.Type == "subscribed" {
			return err
		}
		if frame.Type != "status" {
			return frame.unexpected()
		}
	}
}

func (f *session) hear() (frame sessionFrame, err error) {
	_, data, err := f.conn.Read(f.ctx)
	if err == nil {
		if err = json.Unmarshal(data, &frame); err != nil {
			err = fmt.Errorf("%w: %s: %w", ErrSenseless, data, err)
		}
	}
	return frame, err
}

// unexpected is the error of a frame that ends a stream or should not be there.
func (f *sessionFrame) unexpected() error {
	switch f.Type {
	case "end":
		return ErrOver
	case "error":
		if err := (&Refusal{Code: f.Code, Detail: f.Detail}); Harmless(err) {
			return err
		}
	}
	return fmt.Errorf("%w: the frame %+v", ErrSenseless, f)
}

func (f *session) Next() (events []Event, err error) {
	frame, err := f.hear()
	switch {
	case err != nil:
	case frame.Type == "messages":
		for _, m := range frame.Messages {
			events = append(events, Event{Message: m})
		}
	case frame.Type == "gap":
		events = []Event{{Gap: &frame.Gap}}
	case frame.Type != "status":
		err = frame.unexpected()
	}
	return events, err
}
