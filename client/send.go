package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"unicode/utf8"
)

// SendOption changes how one message is sent.
type SendOption func(*outgoing)

// outgoing is the body of a message on its way.
type outgoing struct {
	User            string
	Message         string
	ClientMessageID string
}

// WithUser names the author, in place of [Options.User].
func WithUser(user string) SendOption { return func(o *outgoing) { o.User = user } }

// WithClientMessageID names the message for the cluster: a message that has
// this id in the room already is not stored again, and the stored one is
// returned. 1 to 128 bytes. Default: a random one.
func WithClientMessageID(id string) SendOption { return func(o *outgoing) { o.ClientMessageID = id } }

// Send stores text in a room, which its first message makes, and returns the
// message as it is stored. It tries until a node says what became of the
// message, or ctx ends: then the error is an [*OutcomeUnknownError] if the
// message may have been stored, and otherwise matches [ErrUnavailable]. A
// refusal is an [*Error].
func (c *Client) Send(ctx context.Context, room, text string, opts ...SendOption) (Message, error) {
	body := outgoing{User: c.user, Message: text}
	for _, set := range opts {
		set(&body)
	}
	if body.ClientMessageID == "" {
		body.ClientMessageID = rand.Text()
	}
	path, err := roomPath(room)
	if err != nil {
		return Message{}, err
	}
	// JSON would silently replace what is not UTF-8.
	switch {
	case body.User == "" || !utf8.ValidString(body.User):
		return Message{}, refused("user_name_invalid", "a message needs an author, in UTF-8")
	case !utf8.ValidString(text):
		return Message{}, refused("message_invalid_utf8", "the message is not valid UTF-8")
	case !utf8.ValidString(body.ClientMessageID):
		return Message{}, refused("client_message_id_invalid", "the client message id is not valid UTF-8")
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return Message{}, fmt.Errorf("encode message: %w", err)
	}

	var stored Message
	uncertain, err := c.call(ctx, request{
		method: http.MethodPost, path: path, body: encoded,
		decode: func(_ http.Header, answer []byte) (err error) {
			stored, err = decodeMessage(answer)
			return err
		},
	})
	if err == nil {
		return stored, nil
	}
	// A conflict shows that the id belongs to another message, so no earlier
	// attempt at this one was stored.
	var refusal *Error
	if uncertain && !(errors.As(err, &refusal) && refusal.Code == "client_message_id_conflict") {
		return Message{}, &OutcomeUnknownError{ClientMessageID: body.ClientMessageID, Err: err}
	}
	return Message{}, err
}

// roomPath returns the path of a room. Whether the name may be one is for the
// node to say, as long as it leaves the path what it is.
func roomPath(room string) (string, error) {
	if room == "" {
		return "", refused("room_name_invalid", "a room name must not be empty")
	}
	return "/rooms/" + url.PathEscape(room), nil
}
