package chat

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Flush makes everything applied before the call durable and returns the index
// reached, which is at least the applied index at the call. It may run
// concurrently with Apply.
func (s *Store) Flush() (index uint64, err error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	done, index, err := s.startFlush()
	if err != nil {
		return 0, fmt.Errorf("flush store: %w", err)
	}
	if done == nil {
		return index, nil
	}
	select {
	case <-done:
	case <-s.trouble.failed: // Pebble would try again for ever
	case <-s.closed:
		return 0, fmt.Errorf("flush store: %w", ErrClosed)
	}
	if err := s.trouble.err(); err != nil {
		return 0, fmt.Errorf("flush store: %w", err)
	}
	s.durable = index
	return index, nil
}

// startFlush begins a flush of all that is applied; done is nil if that is
// durable already.
func (s *Store) startFlush() (done <-chan struct{}, index uint64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return nil, 0, err
	}
	index = s.published.Load().applied
	if index <= s.durable {
		return nil, s.durable, nil
	}
	done, err = s.db.AsyncFlush()
	return done, index, err
}

// MemoryBytes is how much memory the engine's memtables and cache take now. It
// stays below 96 MiB, whatever is written and read.
func (s *Store) MemoryBytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return 0
	}
	m := s.db.Metrics()
	return int64(m.MemTable.Size+m.MemTable.ZombieSize) + m.BlockCache.Size
}

const (
	// pacedBytes is how much is written between two rotations of the memtable.
	// It is below memTableBytes, since the memtable has overhead for each key.
	pacedBytes = 10 << 20
	// pacedKeyBytes is about that overhead.
	pacedKeyBytes = 64
	// maxFlushes is how many memtables may be on their way to disk.
	maxFlushes = 2
	// maxSublevels is the depth of L0 at which Apply waits for compactions.
	maxSublevels = 40
	// compactionPoll is how often a waiting Apply looks again.
	compactionPoll = 20 * time.Millisecond
)

// pacer holds Apply back while the disk is behind, which bounds the memory of
// the engine and the cost of reads. Unlike the engine's own stalls its waits end
// when the store fails.
type pacer struct {
	inline  bool              // see StoreOptions
	limit   int               // of bytes
	bytes   int               // written since the last rotation
	flushes []<-chan struct{} // rotations that are not flushed, oldest first
}

// inlineBytes is pacedBytes for an inline store: less than the first memtable,
// which the engine would flush by itself when it is full.
const inlineBytes = 64 << 10

func newPacer(inline bool) pacer {
	if inline {
		return pacer{inline: true, limit: inlineBytes}
	}
	return pacer{limit: pacedBytes}
}

// wrote counts a committed batch.
func (p *pacer) wrote(bytes, keys int) { p.bytes += bytes + keys*pacedKeyBytes }

// wait returns once there is room for another batch.
func (p *pacer) wait(db *pebble.DB, t *trouble) error {
	if p.bytes < p.limit {
		return nil
	}
	for len(p.flushes) > 0 {
		select {
		case <-p.flushes[0]:
			p.flushes = p.flushes[1:]
			continue
		default:
		}
		if len(p.flushes) < maxFlushes {
			break
		}
		select {
		case <-p.flushes[0]:
		case <-t.failed:
			return t.err()
		}
	}
	for !p.inline && db.Metrics().Levels[0].Sublevels >= maxSublevels {
		timer := time.NewTimer(compactionPoll)
		select {
		case <-timer.C:
		case <-t.failed:
			timer.Stop()
			return t.err()
		}
	}
	done, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	p.bytes = 0
	if p.inline {
		select {
		case <-done:
		case <-t.failed:
		}
		return t.err()
	}
	p.flushes = append(p.flushes, done)
	return nil
}
