package chat

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// StoreOptions configures a Store. The zero value is fine.
type StoreOptions struct {
	// FS is where the store lives. nil: the operating system's.
	FS vfs.FS
	// Logger; nil: nothing is logged.
	Logger *slog.Logger
	// Fatal is told, once and on its own goroutine, the first error after which
	// the store does not go on: a failed write or fsync, or damage. From then on
	// Apply, Flush and Restore return that error. nil: nobody is told.
	Fatal func(error)
	// Budget bounds the encodings of recent messages, besides 16 MiB. nil: nothing
	// does.
	Budget *budget.Budget
	// Inline does everything in the goroutine that asks for it: Apply wakes
	// subscribers itself, the engine flushes when it is told to and compacts
	// never. Equal calls then leave equal bytes on FS, which a simulation needs;
	// it is not for use.
	Inline bool

	// planted is for tests, see applier.
	planted func(data []byte, c *command)
}

// ErrClosed is returned by methods of a Store that was closed, or that could not
// be opened again in the middle of Restore.
var ErrClosed = errors.New("store is closed")

// Store is the replicated state on this node: rooms, messages and their
// indexes. It is changed by Apply and Restore only, and knows the index of the
// last log entry it holds. All methods may be called concurrently; Apply,
// Restore and Close wait for each other.
//
// Apply does not make anything durable; Flush does. After a crash the store is
// as it was after some Apply that is not older than the last Flush.
type Store struct {
	disk    vfs.FS
	fs      vfs.FS // disk until something fails, see frozenFS
	dir     string
	log     *slog.Logger
	trouble *trouble
	inline  bool
	hub     *hub
	recent  *recent
	closing sync.Once
	closed  chan struct{} // closed by closing

	// writing is held by whoever changes the content.
	writing sync.Mutex
	applier *applier

	// mu guards which database is open: readers and Apply hold it shared for as
	// long as they use db, Restore and Close exclusively while they exchange it.
	// Nobody holds it while waiting for a client or a peer.
	mu    sync.RWMutex
	db    *pebble.DB         // nil: closed
	views map[*view]struct{} // open snapshots; guarded by viewsMu
	// viewsMu guards views; taken after mu.
	viewsMu sync.Mutex

	// published is what was committed last.
	published atomic.Pointer[published]
	hashes    hashes

	// flushing makes Flush calls take turns and is held by Restore and Close;
	// durable is the index the last Flush reached.
	flushing sync.Mutex
	durable  uint64

	pacer pacer // used under writing

	planted      func(data []byte, c *command)
	restoreTable uint64        // tests make the tables of Restore shorter
	poisoned     atomic.Uint64 // commands that made apply panic, since the store was opened
}

// published is the state that goes with a commit, for readers.
type published struct {
	counters
	meta []byte
}

// OpenStore opens or makes the store in dir, which is the store's own; its
// parent is there, and durable. A swap that a crash interrupted is finished first.
func OpenStore(dir string, opts StoreOptions) (*Store, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	t := newTrouble(opts.Logger, opts.Fatal)
	s := &Store{
		disk: opts.FS, fs: &frozenFS{FS: opts.FS, trouble: t}, dir: dir, log: opts.Logger, trouble: t, inline: opts.Inline,
		recent: newRecent(maxRecentMessages, maxRecentBytes, opts.Budget.Account(budget.Cache)),
		closed: make(chan struct{}),
		views:  make(map[*view]struct{}),

		planted: opts.planted,
	}
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// Without this a crash could take the directory itself away.
	if err := syncDir(s.fs, s.fs.PathDir(dir)); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := finishSwap(s.fs, dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	p, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.hashes.reset(p.applied, p.hash)
	s.published.Store(p)
	s.hub = newHub(opts.Inline)
	return s, nil
}

// open opens the database in place and gives what is to be published of it. mu
// is held exclusively, or nobody else has the Store yet.
func (s *Store) open() (*published, error) {
	db, err := s.openEngine(s.fs.PathJoin(s.dir, storeName))
	if err != nil {
		return nil, err
	}
	p, err := loadPublished(db)
	if err == nil {
		err = syncDir(s.fs, s.dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeEngine(db))
	}
	s.db, s.pacer = db, newPacer(s.inline)
	s.applier = newApplier(db, p.counters, s.poison)
	s.applier.planted = s.planted
	s.durable = p.applied
	return p, nil
}

// loadPublished reads the counters and the meta blob.
func loadPublished(r pebble.Reader) (*published, error) {
	p := &published{counters: counters{nextRoom: 1}}
	err := get(r, countersKey(), func(value []byte) (err error) {
		p.counters, err = decodeCounters(value)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = get(r, metaKey(), func(value []byte) error {
		if len(value) == 0 || value[0] != formatMeta {
			return badRecord("member records")
		}
		p.meta = append([]byte{}, value[1:]...)
		return nil
	})
	return p, err
}

// Applied returns the index of the last log entry in the store and the meta blob
// saved with it or before: (0, nil) for a fresh store. The caller must not
// change the blob.
func (s *Store) Applied() (index uint64, meta []byte) {
	p := s.published.Load()
	return p.applied, p.meta
}

// head is the newest ID that can be read.
func (s *Store) head() uint64 { return s.published.Load().id }

// Apply applies entries (log index and payload, indexes ascending and above the
// applied one) in order as one atomic batch, together with applied index = last
// and, if meta is not nil, the meta blob. results[i] belongs to the i-th entry;
// it is meant for the Service that proposed it. entries may be nil or empty.
//
// A rejected command is a result, also one that made the decision on it panic.
// An error means that nothing was applied and
// the node must stop: an entry cannot be understood, or the store is broken.
func (s *Store) Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) (results []any, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	if entries == nil {
		entries = func(func(uint64, []byte) bool) {}
	}
	if err := s.pacer.wait(s.db, s.trouble); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	a, before := s.applier, s.published.Load()
	a.batch = s.db.NewBatch()
	results, err = a.run(entries, last)
	batch, dropped := a.batch, a.dropped
	defer batch.Close()
	p := &published{counters: a.now, meta: before.meta}
	if err == nil && meta != nil {
		p.meta = append([]byte{}, meta...)
		err = batch.Set(metaKey(), append([]byte{formatMeta}, meta...), nil)
	}
	if err == nil && meta == nil && p.counters == before.counters {
		a.finish()
		return results, nil // there was nothing to apply
	}
	// Committing a large batch takes its content away.
	batchBytes, batchKeys := batch.Len(), int(batch.Count())
	if err == nil {
		if err = s.db.Apply(batch, pebble.NoSync); err == nil {
			// Pebble reports some failures to its logger alone.
			err = s.trouble.err()
		}
		if err != nil {
			s.trouble.fail(err)
		}
	}
	if err != nil {
		a.rollback(before.counters)
		return nil, fmt.Errorf("apply: %w", err)
	}

	// Whoever sees the new head must find its messages, and whoever is woken
	// must see the new head.
	s.recent.add(a.messages)
	if dropped > 0 {
		s.recent.cut(dropped)
	}
	s.hashes.add(a.hashes, p.applied)
	s.hub.posted(a.touched, func() { s.published.Store(p) })
	a.finish()
	s.pacer.wrote(batchBytes, batchKeys)
	return results, nil
}

// poison notes a panic that apply has survived: it is a defect of ours that
// somebody has to hear of, and all that is known of it is known here.
func (s *Store) poison(index uint64, command int, reason any) {
	s.poisoned.Add(1)
	s.log.Error("command rejected: it made apply panic", "index", index, "command", command, "panic", reason, "stack", string(debug.Stack()))
}

// Poisoned is how many commands made Apply panic since the store was opened.
// Each was rejected, as on every other replica.
func (s *Store) Poisoned() uint64 { return s.poisoned.Load() }

// usable says why the store cannot be used. mu is held.
func (s *Store) usable() error {
	if s.db == nil {
		return ErrClosed
	}
	return s.trouble.err()
}

// Close closes the store without flushing it: what was not flushed is in the
// log. Streams end, and a Restore that is still reading. A second Close does
// nothing.
func (s *Store) Close() (err error) {
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	close(s.closed) // ends a Flush that waits
	s.writing.Lock()
	defer s.writing.Unlock()
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	s.endViews(ErrClosed)
	var err error
	if s.db != nil { // it is nil after a swap that failed
		err = s.closeEngine(s.db)
		s.db = nil
	}
	s.mu.Unlock()
	s.hub.close()
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
