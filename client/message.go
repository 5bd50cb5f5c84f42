package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Message is one stored message.
type Message struct {
	// Room is the room's name.
	Room string
	// Seq counts the messages of the room: 1, 2, 3 …
	Seq uint64
	// ID counts the messages of the cluster, in the order in which they were
	// stored. It is the cursor from which a subscription can go on.
	ID uint64
	// User is the author.
	User string
	// Text is what was said; "" when that is no text.
	Text string `json:"Message"`
	// Payload is a message that is not UTF-8, which can come in over gRPC; nil
	// for any other.
	Payload []byte `json:",omitempty"`
	// PostedAt is in UTC. It never decreases along ID.
	PostedAt time.Time
	// ClientMessageID is the id that the sender gave, or "".
	ClientMessageID string `json:",omitempty"`
	// Trimmed says that the message was stored and has been dropped since, and
	// its text with it. Only the answer to a repeated send can be so.
	Trimmed bool `json:",omitempty"`

	// Raw is the JSON object as the node sent it, with fields that this version
	// of the package may not know.
	Raw json.RawMessage `json:"-"`
}

// decodeMessage reads a message object. The result keeps raw.
func decodeMessage(raw []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(raw, &m); err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	if m.Room == "" || m.Seq == 0 || m.ID == 0 {
		return Message{}, errors.New("decode message: the object is no message")
	}
	m.Raw = raw
	return m, nil
}

// decodeMessages reads an array of message objects.
func decodeMessages(raw []byte) ([]Message, error) {
	var objects []json.RawMessage
	if err := json.Unmarshal(raw, &objects); err != nil {
		return nil, fmt.Errorf("decode messages: %w", err)
	}
	messages := make([]Message, len(objects))
	for i, object := range objects {
		var err error
		if messages[i], err = decodeMessage(object); err != nil {
			return nil, err
		}
	}
	return messages, nil
}
