package chat

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The payload of a log entry is a chatpb.Batch. It is encoded and decoded here
// instead of by the generated code for two reasons: an entry holds up to a few
// hundred small commands, and building objects for each costs more than
// applying it; and a replica must refuse what it does not understand, where
// protobuf would skip it.

const (
	envelopeVersion = 1
	// featureLevel is the newest level this build understands.
	featureLevel = 1
)

// Field numbers of chatpb.
const (
	fieldVersion      protowire.Number = 1
	fieldFeatureLevel protowire.Number = 2
	fieldTimeUS       protowire.Number = 3
	fieldCommands     protowire.Number = 4

	fieldPost       protowire.Number = 1
	fieldCreateRoom protowire.Number = 2
	fieldTrim       protowire.Number = 3
	fieldPurge      protowire.Number = 4
	fieldSettings   protowire.Number = 5

	fieldPostRoom      protowire.Number = 1
	fieldPostUser      protowire.Number = 2
	fieldPostPayload   protowire.Number = 3
	fieldPostClientID  protowire.Number = 4
	fieldPostMustExist protowire.Number = 5

	fieldCreateRoomRoom protowire.Number = 1
	fieldCreateRoomName protowire.Number = 2

	fieldTrimRoom  protowire.Number = 1
	fieldTrimBelow protowire.Number = 2

	fieldPurgeBeforeUS protowire.Number = 1

	fieldSettingsDedupWindowUS protowire.Number = 1
)

// maxEnvelopeHeader is more than the header of an entry needs.
const maxEnvelopeHeader = 32

type commandKind uint8

const (
	kindPost commandKind = iota + 1
	kindCreateRoom
	kindTrim
	kindPurge
	kindSettings
)

// command is one decoded command; the field that kind names is set.
type command struct {
	kind       commandKind
	post       postCommand
	createRoom createRoomCommand
	trim       trimCommand
	purge      purgeCommand
	settings   settingsCommand
	// texts are the command's strings, as parts of entry.text, until all of the
	// entry was read.
	texts [3]span
}

// entry is one decoded log entry.
type entry struct {
	level    uint32
	timeUS   int64
	commands []command
	text     []byte // scratch: the strings of all commands
}

var errEntry = errors.New("log entry cannot be understood by this build")

func badEntry(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errEntry, fmt.Sprintf(format, args...))
}

// appendHeader appends all of a Batch but its commands.
func appendHeader(b []byte, timeUS int64) []byte {
	b = protowire.AppendTag(b, fieldVersion, protowire.VarintType)
	b = protowire.AppendVarint(b, envelopeVersion)
	b = protowire.AppendTag(b, fieldFeatureLevel, protowire.VarintType)
	b = protowire.AppendVarint(b, featureLevel)
	if timeUS == 0 {
		return b // as proto3 does
	}
	b = protowire.AppendTag(b, fieldTimeUS, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(timeUS))
}

// newCommand begins a field "commands" of a Batch that holds one command, whose
// kind has size bytes. The result has room for them and not for more.
func newCommand(kind protowire.Number, size int) []byte {
	inner := 1 + uvarintLen(uint64(size)) + size
	b := make([]byte, 0, 1+uvarintLen(uint64(inner))+inner)
	b = appendMessageField(b, fieldCommands, inner)
	return appendMessageField(b, kind, size)
}

// appendMessageField appends a field that holds size bytes of message, up to
// those bytes themselves.
func appendMessageField(b []byte, num protowire.Number, size int) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// appendStringField leaves empty fields away, as proto3 does.
func appendStringField[S string | []byte](b []byte, num protowire.Number, v S) []byte {
	if len(v) == 0 {
		return b
	}
	b = appendMessageField(b, num, len(v))
	return append(b, v...)
}

func stringFieldLen[S string | []byte](v S) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + uvarintLen(uint64(len(v))) + len(v)
}

// reset decodes data into e, reusing its memory. Strings and payloads of the
// commands are copies that outlive data and e. There is one copy of all strings
// and one of all payloads, so keeping one command's keeps the entry's.
func (e *entry) reset(data []byte) error {
	e.level, e.timeUS, e.commands = 0, 0, e.commands[:0]
	s := scanner{data: append(make([]byte, 0, len(data)), data...), text: e.text[:0]}
	all := span{0, len(data)}
	var version uint64
	for all.len() > 0 && s.err == nil {
		num, typ := s.tag(&all)
		switch {
		case num == fieldVersion && typ == protowire.VarintType:
			version = s.varint(&all)
		case num == fieldFeatureLevel && typ == protowire.VarintType:
			v := s.varint(&all)
			if v > featureLevel {
				s.refuse("feature level %d, this build knows %d", v, featureLevel)
			}
			e.level = uint32(v)
		case num == fieldTimeUS && typ == protowire.VarintType:
			e.timeUS = int64(s.varint(&all))
		case num == fieldCommands && typ == protowire.BytesType:
			e.commands = append(e.commands, command{})
			s.command(s.bytes(&all), &e.commands[len(e.commands)-1])
		default:
			s.unknown("entry", num, typ)
		}
	}
	switch {
	case s.err != nil:
	case version != envelopeVersion:
		s.refuse("version %d, this build knows %d", version, envelopeVersion)
	case e.level == 0:
		s.refuse("no feature level")
	case len(e.commands) == 0:
		s.refuse("no commands")
	}
	e.text = s.text
	if s.err != nil {
		return s.err
	}
	text := string(s.text)
	for i := range e.commands {
		switch c := &e.commands[i]; c.kind {
		case kindPost:
			c.post.room = c.texts[0].of(text)
			c.post.user = c.texts[1].of(text)
			c.post.clientID = c.texts[2].of(text)
		case kindCreateRoom:
			c.createRoom.room = c.texts[0].of(text)
			c.createRoom.name = c.texts[1].of(text)
		case kindTrim:
			c.trim.room = c.texts[0].of(text)
		}
	}
	return nil
}

// span is a part of an entry, by its offsets.
type span struct{ from, to int }

func (p span) len() int { return p.to - p.from }

func (p span) of(text string) string { return text[p.from:p.to] }

// scanner walks through one entry. Its first fault stays in err, and everything
// read after that is empty.
type scanner struct {
	data []byte // the entry
	text []byte // its strings
	err  error
}

func (s *scanner) refuse(format string, args ...any) {
	if s.err == nil {
		s.err = badEntry(format, args...)
	}
}

func (s *scanner) unknown(where string, num protowire.Number, typ protowire.Type) {
	s.refuse("unknown field %d (type %d) of %s", num, typ, where)
}

func (s *scanner) command(in span, c *command) {
	if s.err != nil {
		return
	}
	num, typ := s.tag(&in)
	if s.err == nil && typ != protowire.BytesType {
		s.unknown("command", num, typ)
	}
	body := s.bytes(&in)
	if in.len() != 0 {
		s.refuse("a command of more than one kind")
	}
	switch {
	case s.err != nil:
	case num == fieldPost:
		c.kind = kindPost
		s.post(body, c)
	case num == fieldCreateRoom:
		c.kind = kindCreateRoom
		s.createRoom(body, c)
	case num == fieldTrim:
		c.kind = kindTrim
		s.trim(body, c)
	case num == fieldPurge:
		c.kind = kindPurge
		s.purge(body, c)
	case num == fieldSettings:
		c.kind = kindSettings
		s.settings(body, c)
	default:
		s.unknown("command", num, typ)
	}
}

func (s *scanner) tag(in *span) (protowire.Number, protowire.Type) {
	if s.err != nil {
		return 0, 0
	}
	num, typ, n := protowire.ConsumeTag(s.data[in.from:in.to])
	if n < 0 {
		s.refuse("broken field tag")
		return 0, 0
	}
	in.from += n
	return num, typ
}

func (s *scanner) varint(in *span) uint64 {
	if s.err != nil {
		return 0
	}
	v, n := protowire.ConsumeVarint(s.data[in.from:in.to])
	if n < 0 {
		s.refuse("broken number")
		return 0
	}
	in.from += n
	return v
}

func (s *scanner) bytes(in *span) span {
	n := s.varint(in)
	if s.err != nil {
		return span{}
	}
	if n > uint64(in.len()) {
		s.refuse("a field longer than what holds it")
		return span{}
	}
	out := span{in.from, in.from + int(n)}
	in.from = out.to
	return out
}

// string reads a field that protobuf defines as text, as a part of s.text.
func (s *scanner) string(in *span) span {
	p := s.bytes(in)
	v := s.data[p.from:p.to]
	if !utf8.Valid(v) {
		s.refuse("text that is not UTF-8")
		return span{}
	}
	from := len(s.text)
	s.text = append(s.text, v...)
	return span{from, len(s.text)}
}

// payload reads a field of bytes. The capacity ends with it, so that appending
// to it can never reach the next command.
func (s *scanner) payload(in *span) []byte {
	p := s.bytes(in)
	return s.data[p.from:p.to:p.to]
}
