package httpapi

import (
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fill takes from the headers what the body leaves out. What both say must be the same.
func (m *post) fill(h http.Header) *problem {
	user, p := nameHeader(h, "X-User", codeUserNameInvalid)
	if p != nil {
		return p
	}
	id, p := nameHeader(h, "X-Client-Message-Id", codeClientMessageIDInvalid)
	if p != nil {
		return p
	}
	key, p := nameHeader(h, "Idempotency-Key", codeClientMessageIDInvalid)
	if p != nil {
		return p
	}
	key = unquoted(key)
	switch {
	case user != "" && m.user != "" && norm.NFC.String(user) != norm.NFC.String(m.user):
		return newProblem(codeUserNameInvalid, "the header X-User and User in the body name two authors")
	case id != "" && key != "" && id != key:
		return newProblem(codeClientMessageIDInvalid, "the headers X-Client-Message-ID and Idempotency-Key are two ids of one message")
	}
	if id == "" {
		id = key
	}
	if id != "" && m.clientMessageID != "" && id != m.clientMessageID {
		return newProblem(codeClientMessageIDInvalid, "ClientMessageID in the body and the header with the client message id differ")
	}
	if user != "" {
		m.user = user
	}
	if id != "" {
		m.clientMessageID = id
	}
	return nil
}

// nameHeader returns the name in a header, "" if there is none. HTTP has no encoding for what is not ASCII: encoded words
// (RFC 2047) are decoded, other bytes are UTF-8 or, if they cannot be, Latin-1.
func nameHeader(h http.Header, key, code string) (string, *problem) {
	values := h[key]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", newProblem(code, "the header "+key+" is given more than once")
	}
	value := values[0]
	if !utf8.ValidString(value) {
		var b strings.Builder
		for i := range len(value) {
			b.WriteRune(rune(value[i]))
		}
		value = b.String()
	}
	if !strings.Contains(value, "=?") {
		return value, nil
	}
	decoded, err := new(mime.WordDecoder).DecodeHeader(value)
	if err != nil {
		return "", newProblem(code, "the header "+key+" has an encoded word in a charset that is neither UTF-8, ISO-8859-1 nor US-ASCII")
	}
	return decoded, nil
}

// unquoted returns the value of an Idempotency-Key, which may be a quoted string as RFC 8941 has them, or bare.
func unquoted(key string) string {
	if len(key) < 2 || key[0] != '"' || key[len(key)-1] != '"' {
		return key
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(key[1 : len(key)-1])
}
