package raftnode

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// Incarnation is the random name of one data directory.
type Incarnation [16]byte

func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// IsZero reports that no incarnation is known.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// MarshalText and UnmarshalText give the hexadecimal form.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText accepts the empty text as "not known".
func (i *Incarnation) UnmarshalText(b []byte) error {
	*i = Incarnation{}
	if len(b) == 0 {
		return nil
	}
	if len(b) != 2*len(i) {
		return errors.New("incarnation: want 32 hexadecimal digits")
	}
	_, err := hex.Decode(i[:], b)
	return err
}

// entryKind says whose payload follows the header of a log entry.
type entryKind byte

const (
	kindApplication entryKind = 1 // the state machine's
	kindAttributes  entryKind = 2 // a member states its own addresses and incarnation
	kindConfChange  entryKind = 3 // the context of a raft configuration change
)

const (
	entryVersion    = 1
	entryHeaderSize = 2 + len(Incarnation{}) + 8
)

// requestID names one proposal for ever: the data directory that made it and
// a number that this directory never uses again, also not after a restart.
type requestID struct {
	proposer Incarnation
	sequence uint64
}

// appendEntry lays out version, kind, proposer, sequence (big-endian) and the
// payload, see docs/formats.md.
func appendEntry(b []byte, kind entryKind, id requestID, payload []byte) []byte {
	b = append(b, entryVersion, byte(kind))
	b = append(b, id.proposer[:]...)
	b = binary.BigEndian.AppendUint64(b, id.sequence)
	return append(b, payload...)
}

var errEntry = errors.New("log entry of an unknown format")

// decodeEntry is the inverse of appendEntry; payload aliases b.
func decodeEntry(b []byte) (kind entryKind, id requestID, payload []byte, err error) {
	if len(b) < entryHeaderSize || b[0] != entryVersion {
		return 0, id, nil, errEntry
	}
	kind = entryKind(b[1])
	if kind < kindApplication || kind > kindConfChange {
		return 0, id, nil, errEntry
	}
	copy(id.proposer[:], b[2:])
	id.sequence = binary.BigEndian.Uint64(b[2+len(id.proposer):])
	return kind, id, b[entryHeaderSize:], nil
}
