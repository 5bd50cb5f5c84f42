package bench

import (
	"errors"
	"fmt"
	"time"
)

const (
	// maxSockets bounds the connections of one process; each takes a file.
	maxSockets = 60_000
	// senders is how many messages of a fan-out can be under way at a time.
	senders = 64
	// dialling is how many sockets are being opened at a time: more than a node's
	// listener can queue would only time out.
	dialling = 64
)

// FanoutOptions say how many subscribers there are and what they are sent.
type FanoutOptions struct {
	// Endpoints are the base URLs (http://host:port) of the nodes. Subscribers
	// and senders are spread over them in turn. At least one.
	Endpoints []string
	// Rooms is how many rooms there are, 1 or more. They are new in every run:
	// fanout-RUN-0 and so on.
	Rooms int
	// Subscribers is how many WebSockets follow each room. With the stalled
	// ones, at most 60,000 over all rooms.
	Subscribers int
	// Stalled is how many further subscribers, over all rooms, never read.
	Stalled int
	// Rate is how many messages are posted a second, over all rooms in turn;
	// more than 0.
	Rate float64
	// Bytes is the length of a message's text, 50 bytes to 16 MiB.
	Bytes int
	// Duration is the length of the measured window, more than 0.
	Duration time.Duration
	// Warmup is how long messages are posted before the window opens.
	Warmup time.Duration
	// Drain is how long to wait at the end for deliveries that are still due.
	// 0 means 10 s.
	Drain time.Duration
	// RequestTimeout is how long a connection or an answer may take. 0 means
	// 10 s.
	RequestTimeout time.Duration
}

// minStamped is the shortest text that holds a stamp.
const minStamped = 50

// Validate reports the first option that is out of range.
func (o *FanoutOptions) Validate() error {
	if err := validEndpoints(o.Endpoints); err != nil {
		return err
	}
	switch {
	case o.Rooms < 1:
		return fmt.Errorf("rooms: %d is not 1 or more", o.Rooms)
	case o.Subscribers < 1:
		return fmt.Errorf("subscribers: %d is not 1 or more", o.Subscribers)
	case o.Stalled < 0:
		return fmt.Errorf("stalled: %d is less than 0", o.Stalled)
	case o.Rooms > maxSockets || o.Subscribers > maxSockets/o.Rooms || o.Stalled > maxSockets-o.Rooms*o.Subscribers:
		return fmt.Errorf("subscribers: more than %d sockets in all", maxSockets)
	case !(o.Rate > 0 && o.Rate <= 1e6):
		return fmt.Errorf("rate: %v is not more than 0 and at most 1000000", o.Rate)
	case o.Bytes < minStamped || o.Bytes > maxMessageBytes:
		return fmt.Errorf("bytes: %d is not between %d and %d", o.Bytes, minStamped, maxMessageBytes)
	case o.Duration <= 0:
		return fmt.Errorf("duration: %s is not more than 0", o.Duration)
	case o.Warmup < 0:
		return fmt.Errorf("warmup: %s is less than 0", o.Warmup)
	case o.Drain < 0:
		return fmt.Errorf("drain: %s is less than 0", o.Drain)
	case o.RequestTimeout < 0:
		return fmt.Errorf("request timeout: %s is less than 0", o.RequestTimeout)
	}
	return nil
}

// validEndpoints reports what is wrong with a list of base URLs.
func validEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return errors.New("endpoints: at least one is needed")
	}
	for _, e := range endpoints {
		if _, err := dialAddress(e); err != nil {
			return fmt.Errorf("endpoints: %w", err)
		}
	}
	return nil
}

// dialAddresses returns the host:port of every base URL.
func dialAddresses(endpoints []string) ([]string, error) {
	addrs := make([]string, len(endpoints))
	for i, e := range endpoints {
		addr, err := dialAddress(e)
		if err != nil {
			return nil, fmt.Errorf("endpoints: %w", err)
		}
		addrs[i] = addr
	}
	return addrs, nil
}
