package chat

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Actor is who asks. Today it is nobody in particular; it is an argument of
// every method so that permissions will have one place.
type Actor struct{}

// ServiceOptions configures a Service. Zero values mean the defaults.
type ServiceOptions struct {
	// RequestTimeout bounds Post, CreateRoom, a step of Trim and a linearizable read, unless
	// the context ends earlier. 5 s.
	RequestTimeout time.Duration
	// MaxMessage is the longest payload in bytes. 64 KiB.
	MaxMessage int
	// MaxBatchCommands and MaxBatchBytes bound one log entry; a single command
	// may be longer. 256 commands and 256 KiB.
	MaxBatchCommands, MaxBatchBytes int
	// MaxPending and MaxPendingBytes bound what waits for the log or for its
	// outcome; more is refused as overloaded. 8,192 commands and 32 MiB.
	MaxPending, MaxPendingBytes int
	// Now is the clock that messages are dated by. time.Now.
	Now func() time.Time
}

func (o ServiceOptions) withDefaults() ServiceOptions {
	set(&o.RequestTimeout, 5*time.Second)
	set(&o.MaxMessage, MaxMessage)
	set(&o.MaxBatchCommands, 256)
	set(&o.MaxBatchBytes, 256<<10)
	set(&o.MaxPending, 8192)
	set(&o.MaxPendingBytes, 32<<20)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func set[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Page bounds of Messages and Rooms.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	// maxPageBytes bounds a page besides its limit; a page that ends for it
	// says that there is more.
	maxPageBytes = 4 << 20
)

// Service is what every API calls: it validates, proposes, waits and reads. All
// methods may be called concurrently. Every error is an *Error.
type Service struct {
	log     Log
	store   *Store
	opt     ServiceOptions
	batcher *batcher

	trimming chan struct{} // one slot: a Trim is under way

	stop    chan struct{}
	closing sync.Once
}

// NewService makes a Service over a log that applies to store. Both must outlive
// it; Close it first.
func NewService(log Log, store *Store, opts ServiceOptions) *Service {
	opts = opts.withDefaults()
	return &Service{
		log: log, store: store, opt: opts,
		batcher:  newBatcher(log, opts),
		trimming: make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
}

// Close refuses new requests, ends those that wait (what was handed to the log
// is answered outcome_unknown) and all streams, and waits for the service's
// goroutines. A second Close does nothing.
func (s *Service) Close() {
	s.closing.Do(func() {
		close(s.stop)
		s.batcher.close()
	})
}

// Post appends a message and returns it once it is committed and applied here.
// With a ClientMessageID that the room holds already, it returns the first
// message and deduplicated (Trimmed if it was dropped since), or CodeClientMessageIDConflict with that message's
// Seq if author or payload differ.
//
// CodeOutcomeUnknown says that the message may or may not be posted: repeat the
// request with the same ClientMessageID. With such an id Post itself repeats it
// until the request's deadline.
func (s *Service) Post(ctx context.Context, _ Actor, r PostRequest) (m *Message, deduplicated bool, err error) {
	c, err := validatePost(&r, s.opt.MaxMessage)
	if err != nil {
		return nil, false, err
	}
	res, err := s.propose(ctx, c.encode(), c.clientID != "", false)
	if err != nil {
		return nil, false, err
	}
	return res.posted()
}

// posted is the outcome of a post.
func (res *commandResult) posted() (m *Message, deduplicated bool, err error) {
	switch res.code {
	case "":
		return res.message, res.repeated, nil
	case CodeRoomNotFound:
		return nil, false, fail(CodeRoomNotFound, "there is no such room")
	case CodeClientMessageIDConflict:
		e := fail(res.code, "the room holds another message with this client message id")
		e.Seq = res.seq
		return nil, false, e
	}
	return nil, false, rejected(res.code)
}

// rejected is the error of a command that was refused for a reason of its own
// that the caller cannot be told more about.
func rejected(code Code) *Error {
	if code == CodeCommandFailed {
		return fail(code, "the server has a defect that this command meets: it was rejected and has changed nothing; the log of the nodes says more")
	}
	return fail(code, "the command was rejected")
}

// assignAttempts is how often CreateRoom tries to find an assigned name that is
// free; a taken one is no accident, so few are enough.
const assignAttempts = 3

// CreateRoom makes a room without a message; created is false if it was there.
// room may be "": it is then named "channel-<log index>". name is what to show
// for it and may be "".
func (s *Service) CreateRoom(ctx context.Context, _ Actor, room, name string) (info RoomInfo, created bool, err error) {
	c, err := validateCreateRoom(room, name)
	if err != nil {
		return RoomInfo{}, false, err
	}
	for range assignAttempts {
		// A room with a name may be made twice without harm; one without would
		// be two rooms.
		res, err := s.propose(ctx, c.encode(), c.room != "", c.room == "")
		if err != nil {
			return RoomInfo{}, false, err
		}
		if res.code != "" {
			return RoomInfo{}, false, rejected(res.code)
		}
		info, created = *res.room, res.created
		if created || c.room != "" {
			break
		}
	}
	return info, created, nil
}

// retryBackoff is the wait before a command is proposed again, for each time
// it was tried.
var retryBackoff = [...]time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}

// propose brings an encoded command into the log and returns its result. repeatable says
// that applying it twice does no harm: then an unknown outcome is no answer as
// long as there is time to propose it again. solo asks for an entry of its own.
func (s *Service) propose(ctx context.Context, command []byte, repeatable, solo bool) (commandResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.RequestTimeout)
	defer cancel()
	return s.settle(ctx, repeatable, func(int) (commandResult, bool, error) {
		p := newProposal(command)
		p.solo = solo
		return s.await(ctx, p)
	})
}

// settle makes attempts, numbered from 0, until one has an outcome, no other may be
// made, or ctx ends. sent says that an attempt was handed to the log.
func (s *Service) settle(ctx context.Context, repeatable bool, try func(attempt int) (res commandResult, sent bool, err error)) (commandResult, error) {
	unknown := false // some attempt may have been proposed
	for attempt := 0; ; attempt++ {
		res, sent, err := try(attempt)
		if err == nil {
			return res, nil
		}
		code := CodeOf(err)
		// What may be in the log is more than this node can tell about: no
		// later refusal takes that back.
		unknown = unknown || (sent && !refused(code))
		if !unknown {
			return commandResult{}, wrap(err)
		}
		if !repeatable || code == CodeStopping || code == CodeInternal || !s.pause(ctx, attempt) {
			return commandResult{}, &Error{
				Code: CodeOutcomeUnknown, RetryAfter: retryAfter, Err: err,
				Detail: "it is not known whether this took effect; repeat it with the same client message id",
			}
		}
	}
}

// refused reports whether a code of the log says that nothing was proposed.
func refused(code Code) bool {
	switch code {
	case CodeNoLeader, CodeOverloaded, CodeStopping, CodeClockSkew, CodeDiskFull, CodeTimeoutNotSent:
		return true
	}
	return false
}

// await proposes p once. sent says that it was handed to the log.
func (s *Service) await(ctx context.Context, p *proposal) (res commandResult, sent bool, err error) {
	if ctx.Err() != nil {
		return res, false, notSent(ctx)
	}
	if err := s.batcher.submit(ctx, p); err != nil {
		return res, false, err
	}
	return s.outcomeOf(ctx, p)
}

// outcomeOf waits for what becomes of p, which the batcher has.
func (s *Service) outcomeOf(ctx context.Context, p *proposal) (res commandResult, sent bool, err error) {
	select {
	case o := <-p.outcome:
		return o.result, true, o.err
	case <-ctx.Done():
		if s.batcher.withdraw(p) {
			return res, false, notSent(ctx)
		}
		err = ctx.Err()
	case <-s.stop:
		if s.batcher.withdraw(p) {
			return res, false, fail(CodeStopping, "this node is shutting down")
		}
		err = fail(CodeOutcomeUnknown, "this node is shutting down")
	}
	// The outcome may have arrived at the same moment, and is better.
	select {
	case o := <-p.outcome:
		return o.result, true, o.err
	default:
		return res, true, err
	}
}

func notSent(ctx context.Context) *Error {
	e := fail(CodeTimeoutNotSent, "the request ended before anything was proposed")
	e.Err = ctx.Err()
	return e
}

// pause waits before the next attempt; false if there is no time for one.
func (s *Service) pause(ctx context.Context, attempt int) bool {
	d := retryBackoff[min(attempt, len(retryBackoff)-1)]
	if d == 0 {
		return ctx.Err() == nil
	}
	// Requests that lost the same leader must not come back in one step.
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-s.stop:
	}
	return false
}

// MaxMessage returns how many bytes a payload may have.
func (s *Service) MaxMessage() int { return s.opt.MaxMessage }

// Head returns the newest ID that can be read here, 0 before the first message.
func (s *Service) Head() uint64 { return s.store.head() }

// StateHash returns the index that is applied here and the rolling hash of the
// state at it, as [Store.StateHash] does.
func (s *Service) StateHash() (index, hash uint64) { return s.store.StateHash() }

// Barrier waits until everything that was committed anywhere before the call can
// be read here, for at most RequestTimeout. The error is CodeNoLeader,
// CodeTimeoutNotSent or another of the log's.
func (s *Service) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.RequestTimeout)
	defer cancel()
	err := s.log.ReadIndex(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && CodeOf(err) == CodeOutcomeUnknown {
		// A read has no outcome: all that is unknown is the time.
		e := fail(CodeTimeoutNotSent, "the read could not be confirmed in time; consistency=stale does not need that")
		e.Err = err
		return e
	}
	return wrap(err)
}

// read waits until reading here is linearizable, unless stale, and reads.
func (s *Service) read(ctx context.Context, stale bool, f func(r pebble.Reader) error) error {
	if !stale {
		if err := s.Barrier(ctx); err != nil {
			return err
		}
	}
	if err := s.store.readAtOnce(f); err != nil {
		return wrap(err)
	}
	return nil
}

// checkLimit gives the limit to use: 0 means the default.
func checkLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return DefaultLimit, nil
	case limit < 0 || limit > MaxLimit:
		return 0, fail(CodeLimitInvalid, "limit must be 1 to 1000")
	}
	return limit, nil
}
