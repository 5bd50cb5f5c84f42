package chat

import (
	"context"
	"slices"
	"sync"
)

// Lane posts the messages of one client in the order given, without waiting for
// one before the next is handed to the log. Its methods may be called
// concurrently, but then the order is anybody's.
//
// A post that is refused leaves the others as they are. One whose entry got lost,
// as on a change of leader, is proposed again if it has a client message id, once
// those before it are settled; posts that come meanwhile queue up behind it, but
// those that were under way already can overtake it.
type Lane struct {
	service *Service

	mu     sync.Mutex // guards the rest
	open   []*turn    // of posts that are not settled, oldest first
	behind int        // how many of these go only when it is their turn
}

// turn is the place of a post in its lane.
type turn struct {
	came   chan struct{} // closed when nothing before is open
	behind bool          // the post counts in Lane.behind
}

// NewLane makes a Lane.
func (s *Service) NewLane() *Lane { return &Lane{service: s} }

// Post begins to post a message and never blocks. wait must be called, once; it
// returns what Service.Post would.
func (l *Lane) Post(ctx context.Context, _ Actor, r PostRequest) (wait func() (m *Message, deduplicated bool, err error)) {
	s := l.service
	c, err := validatePost(&r, s.opt.MaxMessage)
	if err != nil {
		return func() (*Message, bool, error) { return nil, false, err }
	}
	command := c.encode()
	ctx, cancel := context.WithTimeout(ctx, s.opt.RequestTimeout)
	first := newProposal(command)
	t, straight, err := l.enter(first)
	return func() (*Message, bool, error) {
		defer cancel()
		res, err := s.settle(ctx, c.clientID != "", func(attempt int) (commandResult, bool, error) {
			if straight && attempt == 0 {
				if err != nil {
					return commandResult{}, false, err
				}
				return s.outcomeOf(ctx, first)
			}
			l.fallBehind(t)
			select {
			case <-t.came:
			case <-ctx.Done():
				return commandResult{}, false, notSent(ctx)
			}
			return s.await(ctx, newProposal(command))
		})
		l.leave(t)
		if err != nil {
			return nil, false, err
		}
		return res.posted()
	}
}

// enter gives a post its place, and hands it over straight away unless others are
// behind already.
func (l *Lane) enter(p *proposal) (t *turn, straight bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t = &turn{came: make(chan struct{})}
	l.open = append(l.open, t)
	if len(l.open) == 1 {
		close(t.came)
	}
	if l.behind > 0 {
		t.behind = true
		l.behind++
		return t, false, nil
	}
	return t, true, l.service.batcher.enqueue(p)
}

// fallBehind makes later posts wait for this one.
func (l *Lane) fallBehind(t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !t.behind {
		t.behind = true
		l.behind++
	}
}

// leave ends a post's part in the lane.
func (l *Lane) leave(t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.open, t)
	l.open = slices.Delete(l.open, at, at+1)
	if at == 0 && len(l.open) > 0 {
		close(l.open[0].came)
	}
	if t.behind {
		l.behind--
	}
}
