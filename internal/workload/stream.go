package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Stream is one form of following rooms. Its methods are called by one
// goroutine: Connect, Next as often as there is no error, Close, and then again.
type Stream interface {
	// Connect returns when the first of the nodes has taken the subscription,
	// or any of them if the form chooses by itself. The stream ends with ctx.
	Connect(ctx context.Context, urls []string, from Place) error
	// Next waits for what comes. An error ends the stream; what comes with it
	// counts nevertheless.
	Next() ([]Event, error)
	// Close gives up the stream, or what Connect has left of one.
	Close()
}

// Place is where a stream goes on: behind message ID of all rooms, or behind
// message Seq of the first one, as the form has it.
type Place struct{ ID, Seq uint64 }

// Event is a message or, if its Seq is 0, something else.
type Event struct {
	Message // without ID and PostedAt, or without ClientMessageID, if the form has none
	Gap     *Gap
	Again   bool // the form has connected again by itself
}

// Gap says that messages were dropped by retention.
type Gap struct {
	Room              string
	FirstSeq, LastSeq uint64
	ID                uint64 // the place behind it; 0: the form has none
}

var (
	// ErrOver is what a server says when it ends a stream.
	ErrOver = errors.New("the server has ended the stream")
	// ErrSenseless is in errors that no outage explains.
	ErrSenseless = errors.New("this makes no sense")
)

// mostFrame is the longest message in its encoding, in bytes.
const mostFrame = 1 << 20

// refused is the error of an answer that is no stream.
func refused(answer *http.Response) error {
	if err := (&Refusal{Status: answer.StatusCode, Detail: "no stream"}); outage(err) {
		return err
	}
	return fmt.Errorf("%w: the answer is %s", ErrSenseless, answer.Status)
}

// list is how a path names rooms.
func list(rooms []string) string {
	escaped := make([]string, len(rooms))
	for i, room := range rooms {
		escaped[i] = url.PathEscape(room)
	}
	return strings.Join(escaped, ",")
}

// Form is a kind of Stream.
type Form struct {
	Name string
	// New makes one that follows rooms over http.
	New func(http *http.Client, rooms []string) Stream
	// Tells: it says which messages were dropped.
	Tells bool
	// Everything: it follows all rooms, whichever are asked for.
	Everything bool
}

// Firehose is the WebSocket /ws of all rooms.
func Firehose() Form {
	return Form{Name: "firehose", Everything: true, New: func(http *http.Client, _ []string) Stream {
		return &socket{http: http, path: "/ws", decode: decodeFirehose}
	}}
}

// Frames is the WebSocket of some rooms.
func Frames() Form {
	return Form{Name: "frames", New: func(http *http.Client, rooms []string) Stream {
		return &socket{http: http, path: "/rooms/" + list(rooms) + "/ws", decode: decodeMessage}
	}}
}

// Lines is NDJSON.
func Lines() Form {
	return Form{Name: "lines", New: func(http *http.Client, rooms []string) Stream {
		return &body{http: http, path: "/rooms/" + list(rooms) + "/json", request: sinceQuery, delimiter: "\n", decode: decodeMessage}
	}}
}

// Events is server-sent events, resumed as a browser does.
func Events() Form {
	return Form{Name: "events", Tells: true, New: func(http *http.Client, rooms []string) Stream {
		return &body{http: http, path: "/rooms/" + list(rooms) + "/events", request: lastEventID, delimiter: "\n\n", decode: decodeServerEvent}
	}}
}

// Session is the WebSocket subprotocol raft-chat.v1.
func Session() Form {
	return Form{Name: "session", Tells: true, New: func(http *http.Client, rooms []string) Stream {
		return &session{socket{http: http, path: "/ws"}, rooms}
	}}
}

// GoClient is the package client, which goes from node to node by itself.
func GoClient() Form {
	return Form{Name: "client", Tells: true, New: func(http *http.Client, rooms []string) Stream {
		return &goClient{http: http, rooms: rooms}
	}}
}

// Forms are all forms over HTTP that carry what a resume needs.
func Forms() []Form {
	return []Form{Session(), Events(), Firehose(), GoClient(), Frames(), Lines()}
}

func decodeMessage(data []byte) ([]Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e.Message); err != nil || e.Seq == 0 {
		return nil, fmt.Errorf("%w: no message: %s, %v", ErrSenseless, data, err)
	}
	return []Event{e}, nil
}

func decodeFirehose(data []byte) ([]Event, error) {
	var frame struct {
		RoomName string
		Post     Message
	}
	if err := json.Unmarshal(data, &frame); err != nil || frame.Post.Seq == 0 || frame.RoomName != frame.Post.Room {
		return nil, fmt.Errorf("%w: no message of one room: %s, %v", ErrSenseless, data, err)
	}
	return []Event{{Message: frame.Post}}, nil
}
