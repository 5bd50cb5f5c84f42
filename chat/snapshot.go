package chat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names within the directory of a store. Restore builds the new database under
// tmpName; only a complete and durable one gets newName, and from then on it is
// the store, whatever happens: OpenStore finishes the swap.
const (
	storeName = "store"
	newName   = "store.new"
	tmpName   = "store.new.tmp"
)

// The content of a snapshot: contentMagic with a version as its last byte; then
// every record, keys ascending, as the lengths of key and value (uvarint), key
// and value; then a key length of 0 and the number of records (uvarint).
const contentMagic = "rcstore\x01"

const (
	// maxContentKey and maxContentValue bound what Restore believes; both are
	// far above what the store writes.
	maxContentKey   = 4 << 10
	maxContentValue = 256 << 20
	// contentChunk is how much is read from the store at a time.
	contentChunk = 128 << 10
)

// ErrReplaced ends the reading of a snapshot whose store was replaced by
// Restore.
var ErrReplaced = errors.New("store was replaced while its snapshot was read")

var errContent = errors.New("snapshot content is damaged or of an unknown version")

// Snapshot calls f with a consistent view: its applied index and meta blob, and
// a source that writes the whole content, however large, in pieces. The view is
// released when f returns. It runs concurrently with Apply and does not delay
// Restore or Close: these end it, and content then fails with ErrReplaced or
// ErrClosed.
func (s *Store) Snapshot(f func(index uint64, meta []byte, content io.WriterTo) error) error {
	v, err := s.newView()
	if err != nil {
		return fmt.Errorf("snapshot store: %w", err)
	}
	defer v.close()
	var p *published
	if err := v.read(func(r *pebble.Snapshot) (err error) {
		p, err = loadPublished(r)
		return err
	}); err != nil {
		return fmt.Errorf("snapshot store: %w", err)
	}
	return f(p.applied, p.meta, v)
}

// view is a snapshot of the database. Restore and Close end it from outside.
type view struct {
	store *Store
	snap  *pebble.Snapshot // nil: ended; guarded by store.viewsMu
	why   error            // why it was ended
}

func (s *Store) newView() (*view, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	v := &view{store: s, snap: s.db.NewSnapshot()}
	s.viewsMu.Lock()
	defer s.viewsMu.Unlock()
	s.views[v] = struct{}{}
	return v, nil
}

// read calls f with the snapshot, which cannot be ended meanwhile. f must not
// wait for anybody.
func (v *view) read(f func(r *pebble.Snapshot) error) error {
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	v.store.viewsMu.Lock()
	snap, why := v.snap, v.why
	v.store.viewsMu.Unlock()
	if snap == nil {
		return why
	}
	return f(snap)
}

func (v *view) close() {
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	v.end(ErrClosed)
}

func (v *view) end(why error) {
	v.store.viewsMu.Lock()
	defer v.store.viewsMu.Unlock()
	if v.snap == nil {
		return
	}
	// Close of a snapshot has no failure that matters: it only forgets.
	_ = v.snap.Close()
	v.snap, v.why = nil, why
	delete(v.store.views, v)
}

// endViews ends all views. mu is held exclusively, so none is being read.
func (s *Store) endViews(why error) {
	s.viewsMu.Lock()
	all := make([]*view, 0, len(s.views))
	for v := range s.views {
		all = append(all, v)
	}
	s.viewsMu.Unlock()
	for _, v := range all {
		v.end(why)
	}
}

// WriteTo implements io.WriterTo: it writes the content. Between two pieces it
// holds nothing of the store but the snapshot, so w may be slow.
func (v *view) WriteTo(w io.Writer) (n int64, err error) {
	write := func(b []byte) error {
		m, err := w.Write(b)
		n += int64(m)
		return err
	}
	buf := append(make([]byte, 0, contentChunk+4096), contentMagic...)
	var next []byte // first key not written yet
	var records uint64
	for more := true; more; {
		err := v.read(func(r *pebble.Snapshot) (err error) {
			buf, next, more, err = appendContent(r, buf, next, &records)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("read store: %w", err)
		}
		if err := write(buf); err != nil {
			return n, err
		}
		buf = buf[:0]
	}
	buf = binary.AppendUvarint(append(buf, 0), records)
	return n, write(buf)
}

// appendContent appends records from key from on, until buf is full.
func appendContent(r pebble.Reader, buf, from []byte, records *uint64) (out, next []byte, more bool, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from})
	if err != nil {
		return buf, nil, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		if len(buf) >= contentChunk {
			return buf, append([]byte{}, key...), true, nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return buf, nil, false, err
		}
		buf = binary.AppendUvarint(buf, uint64(len(key)))
		buf = binary.AppendUvarint(buf, uint64(len(value)))
		buf = append(append(buf, key...), value...)
		*records++
	}
	return buf, nil, false, it.Error()
}

// Restore replaces the whole content by what Snapshot's content wrote, and makes
// it durable before it returns. The caller has verified that content is what was
// sent; Restore itself only refuses what does not have the form. Readers see the
// old content or the new one. Streams go on.
//
// After an error before the swap the old content is still there; after a later
// one the store is closed in all but name. Both mean that the node must stop.
func (s *Store) Restore(content io.Reader) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.RLock()
	err := s.usable()
	s.mu.RUnlock()
	if err == nil {
		err = s.stage(content)
	}
	if err == nil {
		err = s.swap()
	}
	if err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	return nil
}

// stage builds the new database and gives it the name that makes it count.
func (s *Store) stage(content io.Reader) (err error) {
	tmp := s.fs.PathJoin(s.dir, tmpName)
	defer func() {
		if err != nil {
			// It is worth nothing, and what it takes of a disk that is full may
			// be what the next start needs. s.fs does not allow it any more.
			_ = s.disk.RemoveAll(tmp)
		}
	}()
	if err := s.fs.RemoveAll(tmp); err != nil {
		return err
	}
	if err := s.build(tmp, content); err != nil {
		return err
	}
	if err := syncDir(s.fs, tmp); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, s.fs.PathJoin(s.dir, newName)); err != nil {
		return err
	}
	return syncDir(s.fs, s.dir)
}

// build makes a database of content in dir. The records are sorted, so they are
// written as tables that the engine takes in as they are: nothing of them goes
// through its memory.
func (s *Store) build(dir string, content io.Reader) error {
	db, err := s.openEngine(dir)
	if err != nil {
		return err
	}
	tables := newTableWriter(s.fs, dir, db.TableFormat(), engineOptions(s.fs, s.trouble, s.inline))
	if s.restoreTable > 0 {
		tables.limit = s.restoreTable
	}
	err = readContent(content, func(key, value []byte) error {
		select {
		case <-s.closed:
			return ErrClosed
		default:
			return tables.set(key, value)
		}
	})
	if err = errors.Join(err, tables.finish()); err == nil && len(tables.paths) > 0 {
		err = s.trouble.guard(func() error { return db.Ingest(context.Background(), tables.paths) })
	}
	if err == nil {
		_, err = loadPublished(db)
	}
	return errors.Join(err, s.closeEngine(db))
}

// tableWriter writes sorted records into tables for the engine.
type tableWriter struct {
	fs      vfs.FS
	dir     string
	options sstable.WriterOptions
	limit   uint64   // bytes of a table
	paths   []string // of all tables
	table   *sstable.Writer
}

// restoreTable is about how long a table is: while it is written, its index and
// filter are in memory.
const restoreTable = 32 << 20

func newTableWriter(fs vfs.FS, dir string, format sstable.TableFormat, o *pebble.Options) *tableWriter {
	o.EnsureDefaults()
	lowest := len(o.Levels) - 1
	return &tableWriter{fs: fs, dir: dir, limit: restoreTable, options: o.MakeWriterOptions(lowest, format)}
}

func (t *tableWriter) set(key, value []byte) error {
	if t.table == nil {
		path := t.fs.PathJoin(t.dir, fmt.Sprintf("restored-%06d", len(t.paths)))
		file, err := t.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		t.paths = append(t.paths, path)
		t.table = sstable.NewWriter(objstorageprovider.NewFileWritable(file), t.options)
	}
	if err := t.table.Set(key, value); err != nil {
		return err
	}
	if t.table.Raw().EstimatedSize() < t.limit {
		return nil
	}
	return t.finish()
}

// finish makes the table that is being written durable.
func (t *tableWriter) finish() error {
	if t.table == nil {
		return nil
	}
	table := t.table
	t.table = nil
	return table.Close()
}

// swap exchanges the databases.
func (s *Store) swap() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endViews(ErrReplaced)
	err := s.closeEngine(s.db)
	s.db = nil
	if err != nil {
		return err
	}
	if err := finishSwap(s.fs, s.dir); err != nil {
		return err
	}
	p, err := s.open()
	if err != nil {
		return err
	}
	s.recent.reset()
	s.hashes.reset(p.applied, p.hash)
	s.hub.reset(func() { s.published.Store(p) })
	return nil
}

// finishSwap puts a complete new database in the place of the old one, and
// removes an incomplete one. It may be repeated after a crash at any point.
func finishSwap(fs vfs.FS, dir string) error {
	if err := fs.RemoveAll(fs.PathJoin(dir, tmpName)); err != nil {
		return err
	}
	complete := fs.PathJoin(dir, newName)
	if _, err := fs.Stat(complete); err != nil {
		if isNotExist(err) {
			return nil
		}
		return err
	}
	place := fs.PathJoin(dir, storeName)
	if err := fs.RemoveAll(place); err != nil {
		return err
	}
	if err := fs.Rename(complete, place); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// readContent calls set with each record.
func readContent(content io.Reader, set func(key, value []byte) error) error {
	in := bufio.NewReaderSize(content, contentChunk)
	var magic [len(contentMagic)]byte
	if _, err := io.ReadFull(in, magic[:]); err != nil {
		return contentError(err)
	}
	if string(magic[:]) != contentMagic {
		return errContent
	}
	var records uint64
	var key, last, value []byte
	for {
		keyLen, err := binary.ReadUvarint(in)
		if err != nil {
			return contentError(err)
		}
		if keyLen == 0 {
			break
		}
		valueLen, err := binary.ReadUvarint(in)
		if err != nil {
			return contentError(err)
		}
		if keyLen > maxContentKey || valueLen > maxContentValue {
			return errContent
		}
		if key, err = readN(in, key, int(keyLen)); err != nil {
			return contentError(err)
		}
		if value, err = readN(in, value, int(valueLen)); err != nil {
			return contentError(err)
		}
		if bytes.Compare(key, last) <= 0 || key[0] >= prefixEnd {
			return errContent
		}
		last = append(last[:0], key...)
		if err := set(key, value); err != nil {
			return err
		}
		records++
	}
	if count, err := binary.ReadUvarint(in); err != nil {
		return contentError(err)
	} else if count != records {
		return errContent
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return errContent
	}
	return nil
}

// readN reads n bytes into b's memory. It allocates as bytes arrive, so that a
// made-up length costs nothing.
func readN(in io.Reader, b []byte, n int) ([]byte, error) {
	b = b[:0]
	for len(b) < n {
		step := min(n-len(b), contentChunk)
		from := len(b)
		b = append(b, make([]byte, step)...)
		if _, err := io.ReadFull(in, b[from:]); err != nil {
			return b, err
		}
	}
	return b, nil
}

// contentError makes an early end a fault of the content.
func contentError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", errContent)
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist)
}
