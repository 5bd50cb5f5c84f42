package chat

import (
	"strconv"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Limits on what a client may send. All are in bytes of the normalised form.
const (
	MaxRoomName        = 128
	MaxUserName        = 64
	MaxClientMessageID = 128
	MaxDisplayName     = 128
	// MaxMessage is the default of ServiceOptions.MaxMessage.
	MaxMessage = 64 << 10
)

// maxRawName bounds what is normalised at all. Composing shortens text, so a
// name may be longer than its limit before, but not by this much.
const maxRawName = 1 << 10

// NormalizeRoomName gives the form a room name is stored and looked up under:
// NFC, 1 to MaxRoomName bytes, no control characters (Unicode Cc), no '/' and
// no ',', neither "." nor "..". The error has CodeRoomNameInvalid.
//
// It is for reading, and for trims: rooms of before can have names that
// newRoomName refuses.
//
// Names are normalised here and never while a log entry is applied, because
// Unicode tables differ between builds and replicas must not.
func NormalizeRoomName(name string) (string, error) {
	out, why := normalize(name, MaxRoomName)
	if why == "" {
		switch out {
		case ".", "..":
			why = `must not be "." or ".."`
		}
		for i := 0; i < len(out); i++ {
			if out[i] == '/' || out[i] == ',' {
				why = `must not hold "/" or ","`
			}
		}
	}
	if why != "" {
		return "", fail(CodeRoomNameInvalid, "a room name "+why)
	}
	return out, nil
}

// newRoomName is NormalizeRoomName for what is written: everything in the name
// can be seen, see NameFault. A room of before whose name is not so can be read,
// but takes no more messages.
func newRoomName(name string) (string, error) {
	out, err := NormalizeRoomName(name)
	if err != nil {
		return "", err
	}
	if why := NameFault(out); why != "" {
		return "", fail(CodeRoomNameInvalid, "a room name "+why)
	}
	return out, nil
}

// NormalizeUserName gives the form a user name is stored under: NFC, 1 to
// MaxUserName bytes, no control characters, and everything in it can be seen,
// see NameFault. The error has CodeUserNameInvalid.
func NormalizeUserName(name string) (string, error) {
	out, why := normalize(name, MaxUserName)
	if why == "" {
		why = NameFault(out)
	}
	if why != "" {
		return "", fail(CodeUserNameInvalid, "a user name "+why)
	}
	return out, nil
}

// normalizeDisplayName is for the optional title of a room.
func normalizeDisplayName(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	out, why := normalize(name, MaxDisplayName)
	if why == "" {
		why = NameFault(out)
	}
	if why != "" {
		return "", fail(CodeRoomNameInvalid, "the display name of a room "+why)
	}
	return out, nil
}

// checkClientMessageID takes the id as it is: it is an opaque key of the
// client, so normalising it could make two of its ids one.
func checkClientMessageID(id string) error {
	if id == "" {
		return nil
	}
	why := ""
	if len(id) > MaxClientMessageID {
		why = "must have at most " + strconv.Itoa(MaxClientMessageID) + " bytes"
	} else if why = faults(id); why == "" {
		why = NameFault(id) // it is shown, and typed again
	}
	if why != "" {
		return fail(CodeClientMessageIDInvalid, "a client message id "+why)
	}
	return nil
}

// normalize gives name in NFC, or why it cannot be a name of at most max bytes.
func normalize(name string, max int) (out, why string) {
	switch {
	case name == "":
		return "", "must not be empty"
	case len(name) > maxRawName:
		return "", "must have at most " + strconv.Itoa(max) + " bytes"
	}
	if why := faults(name); why != "" {
		return "", why
	}
	// String returns its argument when that is in NFC already.
	out = norm.NFC.String(name)
	if len(out) > max {
		return "", "must have at most " + strconv.Itoa(max) + " bytes"
	}
	return out, ""
}

// faults says what disqualifies s in any name: it is not UTF-8 or holds a
// control character.
func faults(s string) string {
	ascii := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			ascii = false
			break
		}
		if c < ' ' || c == 0x7f {
			return "must not hold control characters"
		}
	}
	if ascii {
		return ""
	}
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return "must not hold control characters"
		}
	}
	return ""
}
