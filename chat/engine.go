package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Sizes of the storage engine. They are what keeps a node small: nearly all of
// the engine's memory counts as cache. With cgo it is C's, without (a release)
// it is of Go's heap, as large, and the collector leaves as much garbage again.
//
// Beside it there are two compactions at most, of some blocks each; a batch of
// Apply that is too large for a memtable, which raft bounds; and what is read,
// which nobody holds while waiting for a client.
const (
	memTableBytes = 16 << 20
	// cacheBytes are 32 MiB for blocks on top of the memtables (the current one
	// and those pacer lets wait for a flush), whose memory the engine takes out
	// of the cache: without that, filters would be read from disk each time.
	cacheBytes   = 32<<20 + (1+maxFlushes)*memTableBytes
	maxOpenFiles = 500
	bloomBits    = 10
)

// openEngine opens a database in dir. Unlike Pebble's own Open it returns when
// the disk fails, be it full.
func (s *Store) openEngine(dir string) (db *pebble.DB, err error) {
	opened := make(chan *pebble.DB, 1)
	err = s.trouble.guard(func() error {
		db, err := pebble.Open(dir, engineOptions(&frozenFS{s.disk, s.trouble, true}, s.trouble, s.inline))
		opened <- db
		return err
	})
	select {
	case db = <-opened:
	default: // left behind
	}
	if err != nil && db != nil {
		err = errors.Join(err, s.closeEngine(db))
		db = nil
	}
	return db, err
}

// closeEngine closes db without waiting for what it does in the background.
func (s *Store) closeEngine(db *pebble.DB) error {
	s.trouble.closing.Store(true)
	defer s.trouble.closing.Store(false)
	return s.trouble.guard(db.Close)
}

// engineOptions are Pebble's options for a store on fs, which reports to t. See
// StoreOptions for inline.
func engineOptions(fs vfs.FS, t *trouble, inline bool) *pebble.Options {
	o := &pebble.Options{
		FS:                         fs,
		Logger:                     t,
		FormatMajorVersion:         pebble.FormatNewest,
		DisableWAL:                 true, // the Raft log is the log
		CacheSize:                  cacheBytes,
		MaxOpenFiles:               maxOpenFiles,
		MemTableSize:               memTableBytes,
		L0CompactionThreshold:      4,
		LBaseMaxBytes:              64 << 20,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		// Pebble's own write stalls are switched off, because they do not end
		// when a flush fails. pacer stalls instead.
		MemTableStopWritesThreshold: 1 << 10,
		L0StopWritesThreshold:       1 << 20,
		DisableAutomaticCompactions: inline,
		DisableTableStats:           inline,
		EventListener: &pebble.EventListener{
			BackgroundError: t.background,
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				t.fail(fmt.Errorf("store is damaged: %s: %w", i.Path, i.Details))
			},
			DiskSlow: func(i pebble.DiskSlowInfo) {
				t.log.Warn("disk is slow", "what", i.String())
			},
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	return o
}

// trouble remembers the first error after which the store must not go on.
// Pebble ends the process for such errors by default and retries others for
// ever; here both end in one report to the node, which then stops with its own
// message, and until it does nothing is written any more (see frozenFS).
//
// It is Pebble's Logger, too, since that is where Pebble reports.
type trouble struct {
	log    *slog.Logger
	report func(error)
	once   sync.Once
	failed chan struct{} // closed once first is set
	first  atomic.Pointer[error]
	// closing is set while the database is being closed, which would wait for
	// the ends of its compactions: their next writes are refused with errClosing.
	closing atomic.Bool
}

var errClosing = errors.New("the database is being closed")

func newTrouble(log *slog.Logger, report func(error)) *trouble {
	return &trouble{log: log, report: report, failed: make(chan struct{})}
}

// fail records err if it is the first. Pebble calls it with its locks held, so
// the report runs on a goroutine of its own.
func (t *trouble) fail(err error) {
	first := false
	t.once.Do(func() {
		first = true
		err = fmt.Errorf("store: %w", err)
		t.first.Store(&err)
		close(t.failed)
		t.log.Error("store failed", "error", err)
		if t.report != nil {
			go t.report(err)
		}
	})
	if !first {
		// Pebble tries again at once and for ever, often without a look at the
		// disk: this is all that keeps it from burning a core.
		time.Sleep(frozenPause)
	}
}

// guard calls f, which waits in the engine, and returns its error, or that of
// the store as soon as there is one: Open waits for a flush that is tried again
// for ever. f is left behind then, which does no harm: nothing is written any
// more, and the process is about to end.
func (t *trouble) guard(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	var err error
	select {
	case err = <-done:
	case <-t.failed:
		timer := time.NewTimer(guardGrace)
		defer timer.Stop()
		select { // what can end does so soon
		case err = <-done:
		case <-timer.C:
		}
	}
	return cmp.Or(t.err(), err)
}

// guardGrace is how long guard waits for f once the store has failed.
const guardGrace = 200 * time.Millisecond

// err is the error recorded, or nil.
func (t *trouble) err() error {
	if p := t.first.Load(); p != nil {
		return *p
	}
	return nil
}

func (t *trouble) background(err error) {
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, errClosing) {
		return // a compaction gave way to another change or to Close; nothing is wrong
	}
	t.fail(fmt.Errorf("background work: %w", err))
}

// Infof implements pebble.Logger.
func (t *trouble) Infof(format string, args ...any) {
	if t.log.Enabled(context.Background(), slog.LevelDebug) {
		t.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (t *trouble) Errorf(format string, args ...any) {
	t.log.Error(fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. Unlike Pebble expects it returns: the node
// ends itself in good order.
func (t *trouble) Fatalf(format string, args ...any) {
	e := &engineError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			e.cause = cause
		}
	}
	t.fail(e)
}

// engineError is what the engine says when it would end the process.
type engineError struct {
	text  string
	cause error // nil: not known
}

func (e *engineError) Error() string { return e.text }
func (e *engineError) Unwrap() error { return e.cause }
