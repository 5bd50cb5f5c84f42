package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// scanLog reads every segment before anything may write to the log, and
// tells a torn tail from damage. etcd's own reader takes a zeroed length for
// the end of the log and drops what follows, fsynced or not.
//
// A torn tail is what a crash leaves of the last Save, which nobody was told
// of; its sectors may have reached the disk in any order. Every Save that is
// synced ends with a hard state record, and each record's checksum runs over
// all records before it. So if, beyond the point where reading stops, there is
// a hard state record followed by a record whose checksum continues its own,
// a later Save was begun after the one that lies broken had been synced: that
// is damage, and the log is refused by file and offset.
//
// What remains is damage that reaches to the very last Save: that looks like
// a torn tail here, and is found by the high-water record unless it is less
// than highWaterLag old.
//
// scanLog returns where reading ends.
func scanLog(dir string, id *identity) (end logEnd, err error) {
	segs, err := segments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return end, damaged(dir, -1, err)
	}
	if err != nil {
		return end, err
	}
	if len(segs) == 0 {
		return end, damaged(dir, -1, errors.New("it has no segment"))
	}
	check := &recordCheck{inc: id.Incarnation, metadata: id.walMetadata()}
	if first := segs[0].first; first > 0 {
		check.started, check.last = true, first-1
	}
	for i, s := range segs {
		if i > 0 && s.sequence != segs[i-1].sequence+1 {
			return end, damaged(s.path, 0, fmt.Errorf("the segment between it and %s is missing", segs[i-1].path))
		}
		if end, err = scanSegment(s.path, end.crc, check, i == len(segs)-1); err != nil {
			return end, err
		}
	}
	return end, nil
}

// logEnd is the point behind the last whole record.
type logEnd struct {
	path   string
	offset int64
	crc    uint32
}

func scanSegment(path string, crc uint32, check *recordCheck, last bool) (end logEnd, err error) {
	f, err := os.Open(path)
	if err != nil {
		return end, fmt.Errorf("scan the log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return end, fmt.Errorf("scan the log: %w", err)
	}
	dec := wal.NewDecoder(fileutil.NewFileReader(f))
	rec := &walpb.Record{}
	heads := 0
	for n := 0; ; n++ {
		at := dec.LastOffset()
		if err = dec.Decode(rec); err != nil {
			break
		}
		// A segment gets its name when its head is on the disk.
		typ := rec.GetType()
		if (n == 0) != (typ == wal.CrcType) || (n == 1) != (typ == wal.MetadataType) || typ < wal.MetadataType || typ > wal.SnapshotType {
			return end, damaged(path, at, fmt.Errorf("record of type %d", typ))
		}
		if typ == wal.CrcType {
			if crc != 0 && rec.Validate(crc) != nil {
				return end, damaged(path, at, errors.New("it does not continue the segment before it"))
			}
			dec.UpdateCRC(rec.GetCrc())
		}
		if err := check.check(rec); err != nil {
			var other *IdentityError
			if errors.As(err, &other) {
				return end, err
			}
			return end, damaged(path, at, err)
		}
		crc = dec.LastCRC()
		heads = n + 1
	}
	stop := dec.LastOffset()
	if heads < 2 {
		return end, damaged(path, stop, errors.New("the segment has no head"))
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return end, damaged(path, stop, err)
	}
	if !last {
		// A closed segment was cut to its length and synced as a whole.
		if stop != info.Size() {
			return end, damaged(path, stop, errors.New("the segment ends early"))
		}
		return logEnd{path, stop, crc}, nil
	}
	// Records begin at multiples of 8; a damaged frame can end anywhere.
	from := stop &^ 7
	rest, err := readUsed(f, from, info.Size())
	if err != nil {
		return end, fmt.Errorf("scan the log: %w", err)
	}
	if at := laterSave(rest, check); at >= 0 {
		return end, damaged(path, stop, fmt.Errorf("records of a later write follow at offset %d", from+int64(at)))
	}
	return logEnd{path, stop, crc}, nil
}

// readUsed returns what lies from offset on up to the last byte that is not
// zero: a segment is preallocated, and most of its tail was never written.
func readUsed(f io.ReaderAt, offset, size int64) ([]byte, error) {
	chunk := make([]byte, 1<<20)
	used := offset
	for off := offset; off < size; off += int64(len(chunk)) {
		n, err := f.ReadAt(chunk[:min(int64(len(chunk)), size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if k := len(bytes.TrimRight(chunk[:n], "\x00")); k > 0 {
			used = off + int64(k)
		}
	}
	// The last record's own bytes and padding may end in zeroes.
	b := make([]byte, min(used-offset+16, size-offset))
	_, err := f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// laterSave looks for a hard state record of ours and a record that continues
// its checksum, at any 8-byte boundary of b; it returns the offset of the first
// or -1.
func laterSave(b []byte, check *recordCheck) int {
	for off := 0; off+8 <= len(b); off += 8 {
		if bytes.Equal(b[off:off+8], zeroes[:]) {
			continue
		}
		rec, next := recordAt(b, off)
		if rec == nil || !check.isState(rec) {
			continue
		}
		if follow, _ := recordAt(b, next); follow != nil && follow.GetType() != wal.CrcType &&
			crc32.Update(rec.GetCrc(), castagnoli, follow.GetData()) == follow.GetCrc() {
			return off
		}
	}
	return -1
}

var zeroes [8]byte

// recordAt parses the frame at off; nil if there is none. next is the offset
// behind it.
func recordAt(b []byte, off int) (rec *walpb.Record, next int) {
	if off+8 > len(b) {
		return nil, 0
	}
	frame := binary.LittleEndian.Uint64(b[off:])
	size := frame &^ (0xff << 56)
	pad := uint64(0)
	if frame>>63 == 1 {
		pad = frame >> 56 & 0x7
	}
	if size == 0 || size > uint64(len(b)-off-8) || size+pad > uint64(len(b)-off-8) {
		return nil, 0
	}
	rec = &walpb.Record{}
	if proto.Unmarshal(b[off+8:off+8+int(size)], rec) != nil || rec.Type == nil || rec.Crc == nil {
		return nil, 0
	}
	return rec, off + 8 + int(size+pad)
}
