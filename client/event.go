package client

// Event is what a subscription delivers: a *[Message], a *[Gap] or a *[Status].
// A case for anything else, a Message without the star included, does not compile:
//
//	switch e := event.(type) {
//	case *client.Message:
//	case *client.Gap:
//	case *client.Status:
//	}
type Event interface{ event() }

func (*Message) event() {}
func (*Gap) event()     {}
func (*Status) event()  {}

// Gap says that messages of a room were dropped before this reader came to
// them. It comes before the messages behind it.
type Gap struct {
	Room string
	// FirstSeq and LastSeq are the first and the last message that is missing.
	FirstSeq, LastSeq uint64
	// ID is the cursor behind the gap.
	ID uint64
	// Beyond, if not "", says that nothing was dropped, and why: the subscription
	// was to begin beyond the newest message of the cluster and goes on from there.
	// What was read of messages up to LastSeq, 0 if there are none, may be of
	// another history.
	Beyond string
}

// StatusKind says what has changed about a subscription.
type StatusKind int

const (
	// Connected: a node has taken the subscription. Messages stored from now on
	// will be delivered, whatever happens to the node.
	Connected StatusKind = iota + 1
	// Disconnected: the stream has ended or could not begin. Another node will
	// be tried.
	Disconnected
	// LeaderLost: the node knows no leader. It delivers nothing new until it
	// does.
	LeaderLost
	// LeaderBack: the node knows a leader again.
	LeaderBack
)

// String gives the kind in words.
func (k StatusKind) String() string {
	switch k {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case LeaderLost:
		return "leader lost"
	case LeaderBack:
		return "leader back"
	}
	return "unknown"
}

// Status tells how a subscription fares. A reader may ignore it: whatever it
// says, no message is lost.
type Status struct {
	Kind StatusKind
	// Endpoint is the node it is about.
	Endpoint string
	// Err is why the stream ended; nil unless Kind is Disconnected.
	Err error
}
