package chat

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// createRoomCommand is chatpb.CreateRoom. An empty room asks for one named
// after the index of the log entry, which must hold nothing else.
type createRoomCommand struct {
	room, name string
}

// validateCreateRoom turns arguments into a command with normalised names.
func validateCreateRoom(room, name string) (c createRoomCommand, err error) {
	if room != "" {
		if c.room, err = newRoomName(room); err != nil {
			return c, err
		}
	}
	c.name, err = normalizeDisplayName(name)
	return c, err
}

// encode gives c as a field "commands" of chatpb.Batch.
func (c *createRoomCommand) encode() []byte {
	b := newCommand(fieldCreateRoom, stringFieldLen(c.room)+stringFieldLen(c.name))
	b = appendStringField(b, fieldCreateRoomRoom, c.room)
	return appendStringField(b, fieldCreateRoomName, c.name)
}

func (s *scanner) createRoom(in span, c *command) {
	for in.len() > 0 && s.err == nil {
		num, typ := s.tag(&in)
		switch {
		case num == fieldCreateRoomRoom && typ == protowire.BytesType:
			c.texts[0] = s.string(&in)
		case num == fieldCreateRoomName && typ == protowire.BytesType:
			c.texts[1] = s.string(&in)
		default:
			s.unknown("create_room", num, typ)
		}
	}
}

// assignedRoom is the name of a room whose creator gave none.
func assignedRoom(index uint64) string {
	return "channel-" + strconv.FormatUint(index, 10)
}

type createRoomDecision struct {
	create bool
	code   Code // why not, "" if the room is there already
}

// decideCreateRoom is the whole rule of making a room. It is pure.
func decideCreateRoom(c *createRoomCommand, alone, exists bool) createRoomDecision {
	switch {
	case c.room == "" && !alone:
		return createRoomDecision{code: CodeRoomNameInvalid}
	case exists:
		return createRoomDecision{}
	}
	return createRoomDecision{create: true}
}

// createRoom applies one creation.
func (a *applier) createRoom(cmd *command, index uint64, alone bool) (res commandResult, err error) {
	c := &cmd.createRoom
	name := c.room
	if name == "" {
		name = assignedRoom(index)
	}
	rm, err := a.room(name)
	if err != nil {
		return res, err
	}
	d := createRoomDecision{code: CodeCommandFailed}
	a.guard(cmd, func() { d = decideCreateRoom(c, alone, rm != nil) })
	if d.code != "" {
		res.code = d.code
		return res, nil
	}
	if d.create {
		rm = a.makeRoom(name, c.name)
		res.created = true
	}
	info := rm.info()
	res.room = &info
	return res, nil
}
