package workload

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"

	"github.com/raft-chat/raft-chat/client"
)

// goClient is the Go client, which goes from node to node by itself.
type goClient struct {
	http  *http.Client
	rooms []string

	client *client.Client
	pull   func() (client.Event, error, bool)
	stop   func()
}

func (f *goClient) Connect(ctx context.Context, urls []string, from Place) (err error) {
	if f.client, err = client.New(client.Options{Endpoints: urls, HTTPClient: f.http}); err != nil {
		return err
	}
	f.pull, f.stop = iter.Pull2(f.client.Subscribe(ctx, client.SubscribeOptions{Rooms: f.rooms, Since: fmt.Sprint(from.ID)}))
	for {
		events, err := f.Next()
		if err != nil || len(events) == 1 && events[0].Again {
			return err
		}
		if len(events) > 0 {
			return fmt.Errorf("%w: %+v came before the client said that it is connected", ErrSenseless, events)
		}
	}
}

func (f *goClient) Next() ([]Event, error) {
	e, err, ok := f.pull()
	switch e := e.(type) {
	case *client.Message:
		return []Event{{Message: Message{
			Room: e.Room, Seq: e.Seq, ID: e.ID, User: e.User, Message: e.Text, Payload: base64.StdEncoding.EncodeToString(e.Payload),
			PostedAt: e.PostedAt, ClientMessageID: e.ClientMessageID,
		}}}, nil
	case *client.Gap:
		return []Event{{Gap: &Gap{e.Room, e.FirstSeq, e.LastSeq, e.ID}}}, nil
	case *client.Status:
		if e.Kind == client.Connected {
			return []Event{{Again: true}}, nil
		}
	}
	switch {
	case !ok:
		err = fmt.Errorf("%w: the sequence has ended without an error", ErrSenseless)
	case errors.As(err, new(*client.Error)) && !errors.Is(err, client.ErrUnavailable):
		err = fmt.Errorf("%w: %w", ErrSenseless, err) // a refusal for good
	}
	return nil, err
}

func (f *goClient) Close() {
	if f.stop != nil {
		f.stop()
		f.client.Close()
		f.stop = nil
	}
}
