package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/raftnode"
)

// Close stops the node in good order; ctx bounds handing over and draining,
// not the writes to disk. Calling it twice is fine.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Server) close(ctx context.Context) error {
	var errs []error
	if s.node != nil && s.node.Err() == nil {
		s.node.HandOver(ctx)
	}
	s.drain(ctx)
	if s.node != nil {
		err := s.node.Close(ctx)
		errs = append(errs, err)
		if errors.Is(err, raftnode.ErrStuck) {
			return errors.Join(errs...) // the store is still in use
		}
		s.watching.Wait()
	}
	if s.store != nil {
		// What is in memory only would have to be replayed from the log.
		if s.node != nil && s.node.Err() == nil {
			_, err := s.store.Flush()
			errs = append(errs, err)
		}
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// drain ends what clients have under way, and the service. All fronts stop at the
// same time; who is not done when three quarters of what ctx leaves have passed is
// cut off, which is no fault: a client that does not read, or does not send, would
// decide how long a stop takes.
func (s *Server) drain(ctx context.Context) {
	patience, cancel := ctx, context.CancelFunc(func() {})
	if end, bounded := ctx.Deadline(); bounded {
		patience, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
	}
	defer cancel()
	var fronts sync.WaitGroup
	if s.api != nil {
		fronts.Go(s.api.Shutdown)
	}
	if s.grpc != nil {
		fronts.Go(func() { s.grpc.Shutdown(patience) })
	}
	for _, hs := range s.listeners {
		fronts.Go(func() { s.drainHTTP(patience, hs) })
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		fronts.Wait()
	}()
	select {
	case <-drained:
	case <-patience.Done():
		s.logger.Warn("stopping: clients that were still busy are cut off")
		if s.api != nil {
			s.api.CutStreams()
		}
	}
	if s.service != nil {
		s.service.Close() // also ends what requests wait for
	}
	<-drained
	s.serving.Wait()
	if s.gate != nil {
		s.gate.parting.Wait() // lingerTime at most
	}
}

// drainHTTP lets requests finish until patience ends.
func (s *Server) drainHTTP(patience context.Context, hs *http.Server) {
	// On a node that failed nothing that is still under way can succeed.
	if s.Failed() || hs.Shutdown(patience) != nil {
		_ = hs.Close() // of connections that are cut
	}
}
