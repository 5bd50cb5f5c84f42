package chat

import (
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// postCommand is chatpb.Post.
type postCommand struct {
	room, user string
	payload    []byte
	clientID   string
	mustExist  bool
}

// PostRequest is what Service.Post takes.
type PostRequest struct {
	// Room is made by its first message, unless MustExist asks for
	// CodeRoomNotFound when it is absent.
	Room string
	// User is who writes.
	User string
	// Payload has 1 to ServiceOptions.MaxMessage bytes and shows something.
	Payload []byte
	// ClientMessageID makes a repeat of this request harmless: the same id in
	// the same room gives the first message. "" for none.
	ClientMessageID string
	MustExist       bool
	// AllowBytes takes a Payload that is not UTF-8.
	AllowBytes bool
}

// validatePost turns a request into a command with normalised names.
func validatePost(r *PostRequest, maxMessage int) (c postCommand, err error) {
	if c.room, err = newRoomName(r.Room); err != nil {
		return c, err
	}
	if c.user, err = NormalizeUserName(r.User); err != nil {
		return c, err
	}
	if err = checkClientMessageID(r.ClientMessageID); err != nil {
		return c, err
	}
	switch {
	case len(r.Payload) == 0:
		return c, fail(CodeMessageEmpty, "a message must not be empty")
	case len(r.Payload) > maxMessage:
		return c, fail(CodeMessageTooLarge, "a message must have at most "+strconv.Itoa(maxMessage)+" bytes")
	case !r.AllowBytes && !utf8.Valid(r.Payload):
		return c, fail(CodeMessageInvalidUTF8, "a message must be valid UTF-8")
	case blank(r.Payload):
		return c, fail(CodeMessageEmpty, "a message must show something: this one is white space and invisible characters only")
	}
	c.payload, c.clientID, c.mustExist = r.Payload, r.ClientMessageID, r.MustExist
	return c, nil
}

// encode gives c as a field "commands" of chatpb.Batch.
func (c *postCommand) encode() []byte {
	size := stringFieldLen(c.room) + stringFieldLen(c.user) + stringFieldLen(c.payload) + stringFieldLen(c.clientID)
	if c.mustExist {
		size += 2
	}
	b := newCommand(fieldPost, size)
	b = appendStringField(b, fieldPostRoom, c.room)
	b = appendStringField(b, fieldPostUser, c.user)
	b = appendStringField(b, fieldPostPayload, c.payload)
	b = appendStringField(b, fieldPostClientID, c.clientID)
	if c.mustExist {
		b = protowire.AppendTag(b, fieldPostMustExist, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

func (s *scanner) post(in span, c *command) {
	for in.len() > 0 && s.err == nil {
		num, typ := s.tag(&in)
		switch {
		case num == fieldPostRoom && typ == protowire.BytesType:
			c.texts[0] = s.string(&in)
		case num == fieldPostUser && typ == protowire.BytesType:
			c.texts[1] = s.string(&in)
		case num == fieldPostPayload && typ == protowire.BytesType:
			c.post.payload = s.payload(&in)
		case num == fieldPostClientID && typ == protowire.BytesType:
			c.texts[2] = s.string(&in)
		case num == fieldPostMustExist && typ == protowire.VarintType:
			c.post.mustExist = s.varint(&in) != 0
		default:
			s.unknown("post", num, typ)
		}
	}
}

// postFacts is all of the state that decides about a post.
type postFacts struct {
	roomExists bool
	// prior is the record of the same client message id, also of a message that was
	// dropped; its seq is 0 if there is none. hash is that of this command and is set if it has such an id.
	prior dedupRecord
	hash  authorHash
}

type postVerdict uint8

const (
	postReject postVerdict = iota // code says why
	postAppend                    // a new message; the room is made if it is absent
	postRepeat                    // the prior message is the answer
)

type postDecision struct {
	verdict postVerdict
	code    Code
}

// decidePost is the whole rule of posting. It is pure: everything it may look
// at is in its arguments, and it changes nothing.
func decidePost(c *postCommand, f postFacts) postDecision {
	switch {
	case c.room == "":
		return postDecision{code: CodeRoomNameInvalid}
	case !f.roomExists && c.mustExist:
		return postDecision{code: CodeRoomNotFound}
	case f.prior.seq == 0:
		return postDecision{verdict: postAppend}
	case f.prior.hash == f.hash:
		return postDecision{verdict: postRepeat}
	}
	return postDecision{code: CodeClientMessageIDConflict}
}

// post applies one post.
func (a *applier) post(cmd *command) (res commandResult, err error) {
	c := &cmd.post
	var f postFacts
	rm, err := a.room(c.room)
	if err != nil {
		return res, err
	}
	f.roomExists = rm != nil
	if c.clientID != "" {
		f.hash, a.scratch = hashAuthor(a.scratch, c.user, c.payload)
		if rm != nil {
			if f.prior, err = a.prior(rm, c.clientID); err != nil {
				return res, err
			}
		}
	}
	d := postDecision{code: CodeCommandFailed}
	a.guard(cmd, func() { d = decidePost(c, f) })
	switch d.verdict {
	case postAppend:
		if rm == nil {
			rm = a.makeRoom(c.room, "")
		}
		res.message = a.appendMessage(rm, c, f.hash)
	case postRepeat:
		res.repeated = true
		if f.prior.dropped {
			res.message = f.prior.message(rm, c)
		} else {
			res.message, err = a.stored(rm, f.prior.seq)
		}
	default:
		res.code, res.seq = d.code, f.prior.seq
	}
	return res, err
}
