package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"unicode/utf8"
)

// post is what a body says of a message. The fields do not alias the body.
type post struct {
	user            string
	payload         []byte
	clientMessageID string
}

// decodePost reads POST /rooms/{room}: JSON, or text that is the message itself. The declared type says which; where it
// says nothing, an opening brace does. The headers X-User and X-Client-Message-ID or Idempotency-Key give what the body
// does not.
func decodePost(h http.Header, body []byte) (m post, p *problem) {
	if p := checkContentEncoding(h); p != nil {
		return post{}, p
	}
	declared, p := kindOf(h)
	if p != nil {
		return post{}, p
	}
	body, kind := withoutMark(body), declared
	if kind == bodyUndeclared {
		kind = bodyText
		if i := skipSpace(body, 0); i < len(body) && body[i] == '{' {
			kind = bodyJSON
		}
	}
	if kind == bodyJSON {
		if m, p = decodePostJSON(body); p != nil {
			if declared == bodyUndeclared {
				p.detail += "; to send it as text, declare Content-Type: text/plain"
			}
			return post{}, p
		}
	} else {
		if !utf8.Valid(body) {
			return post{}, newProblem(codeMessageInvalidUTF8, encodingDetail("the message", body))
		}
		m.payload = bytes.Clone(body)
	}
	if p := m.fill(h); p != nil {
		return post{}, p
	}
	if m.user == "" {
		return post{}, newProblem(codeUserNameInvalid, "a message needs its author: User in a JSON body, or the header X-User")
	}
	return m, nil
}

// decodePostJSON reads {"Message","User","ClientMessageID"}. Unknown keys are ignored, the last of two equal keys wins,
// and bytes or escapes that are not Unicode text are refused rather than replaced.
func decodePostJSON(body []byte) (post, *problem) {
	if !utf8.Valid(body) {
		return post{}, newProblem(codeBodyInvalidUTF8, encodingDetail("the body", body))
	}
	if p, ok := scanPost(body); ok {
		return p, nil
	}
	if at := loneSurrogate(body); at >= 0 {
		return post{}, newProblem(codeJSONInvalid, surrogateDetail("body", body, at))
	}
	var fields struct {
		Message         string
		User            string
		ClientMessageID string
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return post{}, newProblem(codeJSONInvalid, jsonDetail("body", err))
	}
	return post{user: fields.User, payload: []byte(fields.Message), clientMessageID: fields.ClientMessageID}, nil
}

// scanPost decodes the shape that nearly every client sends: one flat object whose keys are exactly the three known
// names and whose values are strings without \u escapes. It says false to anything else, wrong or merely unusual, and
// leaves the verdict to encoding/json. Where it says true it agrees with encoding/json; a fuzz test compares the two.
func scanPost(body []byte) (p post, ok bool) {
	i := skipSpace(body, 0)
	if i == len(body) || body[i] != '{' {
		return post{}, false
	}
	i++
	for {
		key, next, ok := scanString(body, skipSpace(body, i))
		if !ok {
			return post{}, false
		}
		i = skipSpace(body, next)
		if i == len(body) || body[i] != ':' {
			return post{}, false
		}
		value, next, ok := scanString(body, skipSpace(body, i+1))
		if !ok {
			return post{}, false
		}
		switch string(key) {
		case "Message":
			p.payload = unescape(value)
		case "User":
			p.user = string(unescapeShared(value))
		case "ClientMessageID":
			p.clientMessageID = string(unescapeShared(value))
		default:
			return post{}, false
		}
		i = skipSpace(body, next)
		if i == len(body) {
			return post{}, false
		}
		if body[i] == ',' {
			i++
			continue
		}
		return p, body[i] == '}' && skipSpace(body, i+1) == len(body)
	}
}

// skipSpace returns the index of the first byte at or after i that is not JSON white space.
func skipSpace(body []byte, i int) int {
	for i < len(body) && (body[i] == ' ' || body[i] == '\n' || body[i] == '\t' || body[i] == '\r') {
		i++
	}
	return i
}

// scanString returns what stands between the quotes of the JSON string at i, and the index after it. Only two-byte
// escapes are taken.
func scanString(body []byte, i int) (raw []byte, next int, ok bool) {
	if i >= len(body) || body[i] != '"' {
		return nil, 0, false
	}
	i++
	for j := i; j < len(body); j++ {
		switch c := body[j]; {
		case c == '"':
			return body[i:j], j + 1, true
		case c < ' ':
			return nil, 0, false
		case c == '\\':
			j++
			if j == len(body) || unescaped(body[j]) == 0 {
				return nil, 0, false
			}
		}
	}
	return nil, 0, false
}

// unescaped returns the byte that a backslash and c stand for, or 0 when they are not a two-byte escape.
func unescaped(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// unescape returns a copy of what scanString returned with the escapes replaced.
func unescape(raw []byte) []byte {
	b := make([]byte, 0, len(raw))
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(b, raw...)
		}
		b = append(b, raw[:i]...)
		b = append(b, unescaped(raw[i+1]))
		raw = raw[i+2:]
	}
}

// unescapeShared is unescape for a caller that copies the result itself: without escapes it returns raw.
func unescapeShared(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return unescape(raw)
}

// loneSurrogate returns where in body a \u escape is half of a UTF-16 pair, -1 if none is. encoding/json would replace it
// by U+FFFD and so store something else than was sent. body need not be valid JSON.
func loneSurrogate(body []byte) int {
	for i := 0; i+1 < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		i++
		if body[i] != 'u' {
			continue
		}
		unit, ok := hex4(body, i+1)
		if !ok {
			continue
		}
		start := i - 1
		i += 4
		switch {
		case unit >= 0xdc00 && unit <= 0xdfff:
			return start
		case unit >= 0xd800 && unit <= 0xdbff:
			if i+2 >= len(body) || body[i+1] != '\\' || body[i+2] != 'u' {
				return start
			}
			low, ok := hex4(body, i+3)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return start
			}
			i += 6
		}
	}
	return -1
}

// hex4 reads the four hexadecimal digits at i.
func hex4(body []byte, i int) (unit uint32, ok bool) {
	if i+4 > len(body) {
		return 0, false
	}
	for _, c := range body[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		unit = unit<<4 | uint32(c)
	}
	return unit, true
}
