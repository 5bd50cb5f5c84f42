package chat

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"
)

// trimCommand is chatpb.Trim.
type trimCommand struct {
	room  string
	below uint64
}

// validateTrim turns arguments into a command with a normalised name.
func validateTrim(room string, below uint64) (c trimCommand, err error) {
	c.below = below
	c.room, err = NormalizeRoomName(room)
	return c, err
}

// encode gives c as a field "commands" of chatpb.Batch.
func (c *trimCommand) encode() []byte {
	size := stringFieldLen(c.room)
	if c.below > 0 {
		size += 1 + uvarintLen(c.below)
	}
	b := newCommand(fieldTrim, size)
	b = appendStringField(b, fieldTrimRoom, c.room)
	if c.below > 0 {
		b = protowire.AppendTag(b, fieldTrimBelow, protowire.VarintType)
		b = protowire.AppendVarint(b, c.below)
	}
	return b
}

func (s *scanner) trim(in span, c *command) {
	for in.len() > 0 && s.err == nil {
		num, typ := s.tag(&in)
		switch {
		case num == fieldTrimRoom && typ == protowire.BytesType:
			c.texts[0] = s.string(&in)
		case num == fieldTrimBelow && typ == protowire.VarintType:
			c.trim.below = s.varint(&in)
		default:
			s.unknown("trim", num, typ)
		}
	}
}

// maxTrimMessages bounds what one command drops. It is part of the command's
// meaning: replicas must agree on it.
const maxTrimMessages = 4096

type trimDecision struct {
	// first is the Seq the room is to begin with, if dropping up to there does
	// not take too many bytes.
	first uint64
	code  Code
}

// decideTrim is the whole rule of trimming, but for the bound in bytes. It is
// pure.
func decideTrim(c *trimCommand, exists bool, st roomState) trimDecision {
	switch {
	case !exists:
		return trimDecision{code: CodeRoomNotFound}
	case st.last == 0:
		return trimDecision{}
	}
	first := max(st.first, min(c.below, st.last+1))
	return trimDecision{first: min(first, st.first+maxTrimMessages)}
}

// trim applies one trim.
func (a *applier) trim(cmd *command) (res commandResult, err error) {
	c := &cmd.trim
	rm, err := a.room(c.room)
	if err != nil {
		return res, err
	}
	var st roomState
	if rm != nil {
		st = rm.roomState
	}
	d := trimDecision{code: CodeCommandFailed}
	a.guard(cmd, func() { d = decideTrim(c, rm != nil, st) })
	if d.code != "" {
		res.code = d.code
		return res, nil
	}
	if d.first > rm.first {
		if err := a.drop(rm, d.first); err != nil {
			return res, err
		}
	}
	info := rm.info()
	res.room = &info
	return res, nil
}

// Trim drops the messages of a room with a Seq below the given one, all that it
// has now if that is more, and returns the room as it is then. Seqs go on. The
// client message ids of dropped messages are remembered for the dedup window, see
// SetDedupWindow: older ones are forgotten now, and can be used again. A room that
// does not exist gives CodeRoomNotFound.
//
// It works in steps, each of which is committed for itself. After an error some
// of them may have been done; repeating the call does the rest.
func (s *Service) Trim(ctx context.Context, _ Actor, room string, below uint64) (RoomInfo, error) {
	c, err := validateTrim(room, below)
	if err != nil {
		return RoomInfo{}, err
	}
	// A step is much work for Apply: no more than one of this node at a time.
	select {
	case s.trimming <- struct{}{}:
		defer func() { <-s.trimming }()
	case <-ctx.Done():
		return RoomInfo{}, notSent(ctx)
	case <-s.stop:
		return RoomInfo{}, fail(CodeStopping, "this node is shutting down")
	}
	for {
		res, err := s.propose(ctx, c.encode(), true, true)
		if err != nil {
			return RoomInfo{}, err
		}
		switch res.code {
		case "":
		case CodeRoomNotFound:
			return RoomInfo{}, fail(CodeRoomNotFound, "there is no such room")
		default:
			return RoomInfo{}, rejected(res.code)
		}
		// What is posted while this goes on is not meant.
		c.below = min(c.below, res.room.LastSeq+1)
		if res.room.LastSeq == 0 || res.room.FirstSeq >= c.below {
			s.purge(ctx)
			return *res.room, nil
		}
	}
}
