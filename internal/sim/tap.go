package sim

import "github.com/cockroachdb/pebble/v2/vfs"

// tap is the file system of a store whose writes and syncs count as steps of
// the machine, so that a crash can come at any of them. Removals do not count:
// the engine does them on a goroutine of its own, and nothing depends on them.
type tap struct {
	vfs.FS
	machine *machine
}

// Unwrap implements vfs.FS.
func (t tap) Unwrap() vfs.FS { return t.FS }

// Create implements vfs.FS.
func (t tap) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	t.machine.step()
	return t.file(t.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (t tap) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return t.file(t.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (t tap) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	t.machine.step()
	return t.file(t.FS.ReuseForWrite(oldname, newname, c))
}

// OpenDir implements vfs.FS: a directory can be synced.
func (t tap) OpenDir(name string) (vfs.File, error) { return t.file(t.FS.OpenDir(name)) }

// Link implements vfs.FS.
func (t tap) Link(oldname, newname string) error {
	t.machine.step()
	return t.FS.Link(oldname, newname)
}

// Rename implements vfs.FS.
func (t tap) Rename(oldname, newname string) error {
	t.machine.step()
	return t.FS.Rename(oldname, newname)
}

func (t tap) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return tappedFile{f, t.machine}, nil
}

type tappedFile struct {
	vfs.File
	machine *machine
}

// Write implements io.Writer.
func (f tappedFile) Write(p []byte) (int, error) {
	f.machine.step()
	return f.File.Write(p)
}

// Sync implements vfs.File.
func (f tappedFile) Sync() error {
	f.machine.step()
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f tappedFile) SyncData() error {
	f.machine.step()
	return f.File.SyncData()
}
