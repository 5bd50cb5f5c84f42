package chat

import (
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// frozenPause slows down the engine's retries after a failure.
const frozenPause = 50 * time.Millisecond

// frozenFS is the file system of a store until something fails, and a read-only
// one from then on. A failed write or fsync must not be tried again, since the
// second try may succeed without what the first one lost; the engine does try
// again, so it is stopped here. What is on disk then stays as the failure left
// it, which is what a crash at that moment would have left.
type frozenFS struct {
	vfs.FS
	trouble *trouble
	engine  bool // it is the engine's, see frozenDir
}

// frozen is why nothing may be written, or nil.
func (f *frozenFS) frozen() error {
	err := f.trouble.err()
	if err != nil {
		time.Sleep(frozenPause)
	}
	return err
}

// Unwrap implements vfs.FS.
func (f *frozenFS) Unwrap() vfs.FS { return f.FS }

// Create implements vfs.FS.
func (f *frozenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.frozen(); err != nil {
		return nil, err
	}
	return f.file(c)(f.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (f *frozenFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.frozen(); err != nil {
		return nil, err
	}
	return f.file(c)(f.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (f *frozenFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.frozen(); err != nil {
		return nil, err
	}
	return f.file(c)(f.FS.ReuseForWrite(oldname, newname, c))
}

// OpenDir implements vfs.FS; a directory can be synced.
func (f *frozenFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.file(vfs.WriteCategoryUnspecified)(f.FS.OpenDir(name))
	if err == nil && f.engine {
		dir = frozenDir{dir}
	}
	return dir, err
}

// frozenDir is a directory whose sync seems to succeed always, since the engine
// panics if one does not. The store has failed then, which whoever waits for the
// engine looks at, and nothing that builds on the sync is written any more.
type frozenDir struct{ vfs.File }

// Sync implements vfs.File.
func (d frozenDir) Sync() error {
	_ = d.File.Sync()
	return nil
}

// Link implements vfs.FS.
func (f *frozenFS) Link(oldname, newname string) error {
	if err := f.frozen(); err != nil {
		return err
	}
	return f.FS.Link(oldname, newname)
}

// Remove implements vfs.FS.
func (f *frozenFS) Remove(name string) error {
	if err := f.frozen(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (f *frozenFS) RemoveAll(name string) error {
	if err := f.frozen(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (f *frozenFS) Rename(oldname, newname string) error {
	if err := f.frozen(); err != nil {
		return err
	}
	return f.FS.Rename(oldname, newname)
}

// MkdirAll implements vfs.FS.
func (f *frozenFS) MkdirAll(dir string, perm os.FileMode) error {
	if err := f.frozen(); err != nil {
		return err
	}
	return f.FS.MkdirAll(dir, perm)
}

func (f *frozenFS) file(c vfs.DiskWriteCategory) func(file vfs.File, err error) (vfs.File, error) {
	return func(file vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &frozenFile{file, f.trouble, c == "pebble-compaction" || c == "pebble-memtable-flush"}, nil
	}
}

// frozenFile fails the store with its first failed write or sync.
type frozenFile struct {
	vfs.File
	trouble *trouble
	table   bool // written by a flush or compaction, which Close does not wait for
}

func (f *frozenFile) check(err error) error {
	if err != nil {
		f.trouble.fail(err)
	}
	return err
}

// Write implements io.Writer.
func (f *frozenFile) Write(p []byte) (int, error) {
	if err := f.trouble.err(); err != nil {
		return 0, err
	}
	if f.table && f.trouble.closing.Load() {
		return 0, errClosing
	}
	n, err := f.File.Write(p)
	return n, f.check(err)
}

// WriteAt implements io.WriterAt.
func (f *frozenFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.trouble.err(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.check(err)
}

// Sync implements vfs.File.
func (f *frozenFile) Sync() error {
	if err := f.trouble.err(); err != nil {
		return err
	}
	return f.check(f.File.Sync())
}

// SyncData implements vfs.File.
func (f *frozenFile) SyncData() error {
	if err := f.trouble.err(); err != nil {
		return err
	}
	return f.check(f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *frozenFile) SyncTo(length int64) (bool, error) {
	if err := f.trouble.err(); err != nil {
		return false, err
	}
	full, err := f.File.SyncTo(length)
	return full, f.check(err)
}
