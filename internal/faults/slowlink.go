//go:build linux

package faults

import (
	"errors"
	"net"
	"sync"
	"time"
)

// slowLink passes TCP connections on and holds back all that flows through
// them for a while. Bytes keep their order; how many are on their way is
// bounded.
//
// Goroutines: one accepts, four serve each connection. close ends and waits
// for all of them.
type slowLink struct {
	listener net.Listener
	target   string
	delay    func() time.Duration // of each piece; called concurrently

	mu    sync.Mutex
	conns map[net.Conn]bool // nil: closed
	wg    sync.WaitGroup
}

// openSlowLink listens on addr, port 0 takes a free one.
func openSlowLink(addr, target string, delay func() time.Duration) (*slowLink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &slowLink{listener: l, target: target, delay: delay, conns: map[net.Conn]bool{}}
	s.wg.Go(s.accept)
	return s, nil
}

func (s *slowLink) accept() {
	for {
		in, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { s.serve(in) })
	}
}

func (s *slowLink) serve(in net.Conn) {
	defer in.Close()
	if !s.keep(in) {
		return
	}
	defer s.forget(in)
	out, err := net.DialTimeout("tcp", s.target, 5*time.Second)
	if err != nil {
		return
	}
	defer out.Close()
	if !s.keep(out) {
		return
	}
	defer s.forget(out)
	var both sync.WaitGroup
	both.Go(func() { s.flow(out, in) })
	both.Go(func() { s.flow(in, out) })
	both.Wait()
}

// piece is what one read gave, and when it may go on.
type piece struct {
	bytes []byte
	due   time.Time
}

// flow copies one direction. When it ends, so does the other.
func (s *slowLink) flow(to, from net.Conn) {
	pieces := make(chan piece, 256)
	var writer sync.WaitGroup
	writer.Go(func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for p := range pieces {
			timer.Reset(time.Until(p.due))
			<-timer.C
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close() // ends the reads below
				for range pieces {
					continue
				}
				return
			}
		}
	})
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{buffer[:n], time.Now().Add(s.delay())}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writer.Wait()
	_, _ = to.Close(), from.Close()
}

func (s *slowLink) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *slowLink) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// close breaks all connections.
func (s *slowLink) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		if cerr := c.Close(); !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return err
}
