package raftnode

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"os"

	"go.etcd.io/raft/v3/raftpb"
)

// A snapshot file is
//
//	magic, version (1 byte), codec (1 byte, 0 = plain), header length (4), header (JSON), CRC-32C of all this
//	blocks: length (4), CRC-32C of the data (4), data
//	end: length 0 (4), content bytes (8), CRC-64/ECMA of the content (8)
//
// with big-endian numbers. It is written and read as a stream.
const (
	snapMagic   = "RAFTCHAT"
	snapVersion = 1
	snapBlock   = 256 << 10
	maxSnapHead = 16 << 20
)

var crc64Table = crc64.MakeTable(crc64.ECMA)

// snapHeader says what the content is.
type snapHeader struct {
	ClusterID    uint64          `json:"cluster_id"`
	Index        uint64          `json:"index"`
	Term         uint64          `json:"term"`
	FeatureLevel uint32          `json:"feature_level"`
	Membership   json.RawMessage `json:"membership"`
}

// announced returns an error unless h is of the snapshot that a message told of.
func (h *snapHeader) announced(clusterID uint64, meta *raftpb.SnapshotMetadata) error {
	if h.ClusterID != clusterID || h.Index != meta.GetIndex() || h.Term != meta.GetTerm() {
		return fmt.Errorf("%w: it is not the snapshot that was announced", errSnapshotFile)
	}
	members, err := decodeMembership(h.Membership)
	if err != nil {
		return err
	}
	// Raft goes by the message, all else by the records.
	if err := members.confState().Equivalent(meta.GetConfState()); err != nil {
		return fmt.Errorf("%w: its members are not those that were announced: %w", errSnapshotFile, err)
	}
	return nil
}

// featureLevel is what this build can write; it grows when replicas must
// agree on a change of behaviour.
const featureLevel = 1

func writeSnapshot(w io.Writer, h snapHeader, content io.WriterTo) error {
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("snapshot header: %w", err)
	}
	b := append([]byte(snapMagic), snapVersion, 0)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(head))), head...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	blocks := &blockWriter{w: w, total: crc64.New(crc64Table)}
	buffered := bufio.NewWriterSize(blocks, snapBlock)
	if _, err := content.WriteTo(buffered); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	b = binary.BigEndian.AppendUint32(b[:0], 0)
	b = binary.BigEndian.AppendUint64(b, blocks.bytes)
	b = binary.BigEndian.AppendUint64(b, blocks.total.Sum64())
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// blockWriter makes each write a block of its own or several.
type blockWriter struct {
	w     io.Writer
	total hash.Hash64
	bytes uint64
}

func (b *blockWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		block := p[:min(len(p), snapBlock)]
		var head [8]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(block)))
		binary.BigEndian.PutUint32(head[4:], crc32.Checksum(block, castagnoli))
		if _, err := b.w.Write(head[:]); err != nil {
			return n, err
		}
		if _, err := b.w.Write(block); err != nil {
			return n, err
		}
		_, _ = b.total.Write(block) // a hash never fails
		b.bytes += uint64(len(block))
		n += len(block)
		p = p[len(block):]
	}
	return n, nil
}

var errSnapshotFile = errors.New("snapshot file is damaged")

func readSnapHeader(r io.Reader) (h snapHeader, err error) {
	b := make([]byte, len(snapMagic)+2+4)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, fmt.Errorf("%w: %w", errSnapshotFile, err)
	}
	if string(b[:len(snapMagic)]) != snapMagic {
		return h, fmt.Errorf("%w: it does not begin with %s", errSnapshotFile, snapMagic)
	}
	if v, codec := b[len(snapMagic)], b[len(snapMagic)+1]; v != snapVersion || codec != 0 {
		return h, fmt.Errorf("snapshot file of version %d, codec %d: not known to this build", v, codec)
	}
	n := binary.BigEndian.Uint32(b[len(snapMagic)+2:])
	if n > maxSnapHead {
		return h, fmt.Errorf("%w: header of %d bytes", errSnapshotFile, n)
	}
	head := make([]byte, n+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return h, fmt.Errorf("%w: %w", errSnapshotFile, err)
	}
	if crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, head[:n]) != binary.BigEndian.Uint32(head[n:]) {
		return h, fmt.Errorf("%w: header checksum", errSnapshotFile)
	}
	if err := json.Unmarshal(head[:n], &h); err != nil {
		return h, fmt.Errorf("%w: %w", errSnapshotFile, err)
	}
	if h.FeatureLevel > featureLevel {
		return h, fmt.Errorf("snapshot file of feature level %d: this build knows %d", h.FeatureLevel, featureLevel)
	}
	return h, nil
}

// blockReader gives the content behind the header. It returns io.EOF only
// when every block and the total were right.
type blockReader struct {
	r     io.Reader
	buf   []byte
	rest  []byte
	total hash.Hash64
	bytes uint64
	done  bool
}

func newBlockReader(r io.Reader) *blockReader {
	return &blockReader{r: r, buf: make([]byte, snapBlock), total: crc64.New(crc64Table)}
}

func (b *blockReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.done {
			return 0, io.EOF
		}
		if err := b.next(); err != nil {
			return 0, fmt.Errorf("%w: %w", errSnapshotFile, err)
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *blockReader) next() error {
	full := func(p []byte) error {
		_, err := io.ReadFull(b.r, p)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	var head [16]byte
	if err := full(head[:4]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 {
		if err := full(head[:16]); err != nil {
			return err
		}
		if binary.BigEndian.Uint64(head[:]) != b.bytes || binary.BigEndian.Uint64(head[8:]) != b.total.Sum64() {
			return errors.New("total checksum")
		}
		if k, _ := b.r.Read(head[:1]); k != 0 {
			return errors.New("bytes behind the end")
		}
		b.done = true
		return nil
	}
	if n > snapBlock {
		return fmt.Errorf("block of %d bytes", n)
	}
	if err := full(head[:4]); err != nil {
		return err
	}
	data := b.buf[:n]
	if err := full(data); err != nil {
		return err
	}
	if crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(head[:]) {
		return fmt.Errorf("block checksum after %d bytes", b.bytes)
	}
	_, _ = b.total.Write(data) // a hash never fails
	b.bytes += uint64(n)
	b.rest = data
	return nil
}

// verifySnapshot reads the whole file once, or until stop is closed.
func verifySnapshot(path string, stop <-chan struct{}) (h snapHeader, err error) {
	err = withSnapshot(path, func(head snapHeader, content io.Reader) error {
		h = head
		return drain(untilStop{content, stop})
	})
	return h, err
}

// untilStop is a reader that ends with errStopping once stop is closed: a
// snapshot can take minutes, and a node that is to end does not wait for it.
type untilStop struct {
	r    io.Reader
	stop <-chan struct{}
}

func (u untilStop) Read(p []byte) (int, error) {
	select {
	case <-u.stop:
		return 0, errStopping
	default:
		return u.r.Read(p)
	}
}

// drain reads content to its end, where its checksums are judged.
func drain(content io.Reader) error {
	_, err := io.Copy(io.Discard, content)
	return err
}

func withSnapshot(path string, f func(h snapHeader, content io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer file.Close()
	return readSnapshotFile(file, f)
}

// readSnapshotFile calls f with the parts of a snapshot file.
func readSnapshotFile(file io.Reader, f func(h snapHeader, content io.Reader) error) error {
	r := bufio.NewReaderSize(file, snapBlock)
	h, err := readSnapHeader(r)
	if err != nil {
		return err
	}
	return f(h, newBlockReader(r))
}
