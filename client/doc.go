// Package client talks to a raft-chat cluster: it sends messages, reads what
// rooms hold and follows them, and goes on at another node when one fails.
//
//	c, err := client.New(client.Options{
//		Endpoints: []string{"http://10.0.0.1:12380", "http://10.0.0.2:12380"},
//		User:      "ann",
//	})
//	…
//	defer c.Close()
//	m, err := c.Send(ctx, "general", "hello")
//	for event, err := range c.Subscribe(ctx, client.SubscribeOptions{Rooms: []string{"general"}}) {
//		…
//	}
//
// # Contract
//
// All methods of a [Client] may be called concurrently. Every call takes as
// long as it needs: it goes from node to node, with growing pauses once all of
// them have been tried, until one answers for good or the context ends. A
// context without an end therefore waits out any outage; give calls a deadline.
//
// Nodes are tried in the order of [Options.Endpoints], beginning with the one
// that answered last. Addresses of further members that a node names when it
// ends a stream are tried after those.
//
// An answer "for good" is a success or a refusal that no other node would
// decide differently (bad input, a conflict). A refusal is an [*Error] with the
// stable code of the server. Nodes that cannot be reached, know no leader, are
// stopping, overloaded or broken are passed over; when the context ends before
// one could answer, the error matches [ErrUnavailable] and the context's error.
//
// A message has one client message id over all attempts at sending it, so it is
// stored at most once however often it had to be sent. When the context ends
// while an attempt may have been stored, the error is an [*OutcomeUnknownError].
//
// A subscription delivers every message of its rooms once and in order, over
// any number of connections and nodes. What cannot be delivered, because it was
// dropped before this reader came to it, is told as a [Gap].
//
// # Goroutines
//
// None is left behind by a call. A subscription runs on the goroutine that
// ranges over it: who takes its time over a message slows only the own stream.
// [Client.Status] asks the nodes at the same time and waits for all of them.
package client
