package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

// post is what a body says of a message. The fields do not alias the body.
type post struct {
	user            string
	payload         []byte
	clientMessageID string
}

// decodePost reads the body of POST /rooms/{room}. What starts with { is JSON whatever the Content-Type says, because
// curl -d declares a form; a body declared as JSON must be JSON; any other text is the message itself, with author and
// client message id in X-User and X-Client-Message-ID.
func decodePost(h http.Header, body []byte) (post, *problem) {
	if p := checkContentEncoding(h); p != nil {
		return post{}, p
	}
	if len(body) > 0 && body[0] == '{' {
		return decodePostJSON(body)
	}
	declaredJSON, p := checkMediaType(h)
	if p != nil {
		return post{}, p
	}
	if declaredJSON {
		return decodePostJSON(body)
	}
	if !utf8.Valid(body) {
		return post{}, newProblem(codeMessageInvalidUTF8, "the message is not valid UTF-8")
	}
	user := h.Get("X-User")
	if user == "" {
		return post{}, newProblem(codeUserNameInvalid, "a plain-text message needs its author in the X-User header")
	}
	return post{user: user, payload: bytes.Clone(body), clientMessageID: h.Get("X-Client-Message-Id")}, nil
}

// checkContentEncoding refuses a compressed body.
func checkContentEncoding(h http.Header) *problem {
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(value, "identity") {
			return newProblem(codeContentEncoding, "request bodies are taken without a content encoding")
		}
	}
	return nil
}

// checkMediaType reports whether the declared type of a body is JSON, and refuses types that can be neither JSON nor text.
func checkMediaType(h http.Header) (isJSON bool, p *problem) {
	declared := h["Content-Type"]
	if len(declared) == 0 || declared[0] == "" || declared[0] == "application/x-www-form-urlencoded" {
		return false, nil
	}
	if declared[0] == "application/json" {
		return true, nil
	}
	mediaType, params, err := mime.ParseMediaType(declared[0])
	if err != nil {
		return false, newProblem(codeMediaType, "the Content-Type header cannot be read")
	}
	switch charset := strings.ToLower(params["charset"]); charset {
	case "", "utf-8", "utf8", "us-ascii":
	default:
		return false, newProblem(codeMediaType, "text is taken in UTF-8 only")
	}
	switch {
	case mediaType == "application/json", strings.HasSuffix(mediaType, "+json"):
		return true, nil
	case strings.HasPrefix(mediaType, "text/"), mediaType == "application/x-www-form-urlencoded":
		return false, nil
	}
	return false, newProblem(codeMediaType, "send the message as JSON or as plain text")
}

// decodePostJSON reads {"Message","User","ClientMessageID"}. Unknown keys are ignored, the last of two equal keys wins,
// and bytes or escapes that are not Unicode text are refused rather than replaced.
func decodePostJSON(body []byte) (post, *problem) {
	if !utf8.Valid(body) {
		return post{}, newProblem(codeBodyInvalidUTF8, "the body is not valid UTF-8")
	}
	if p, ok := scanPost(body); ok {
		return p, nil
	}
	if hasLoneSurrogate(body) {
		return post{}, newProblem(codeBodyInvalidUTF8, `a \u escape is half of a surrogate pair`)
	}
	var fields struct {
		Message         string
		User            string
		ClientMessageID string
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return post{}, newProblem(codeJSONInvalid, jsonDetail(err))
	}
	return post{user: fields.User, payload: []byte(fields.Message), clientMessageID: fields.ClientMessageID}, nil
}

// jsonDetail says in a client's words why a body is not the JSON that was asked for.
func jsonDetail(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Sprintf("%s cannot be a JSON %s", kind.Field, kind.Value)
	case errors.As(err, &kind):
		return fmt.Sprintf("the body is a JSON %s and should be an object", kind.Value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("the body is not one JSON object: %v (at byte %d)", syntax, syntax.Offset)
	}
	return "the body is not one JSON object"
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

// hasLoneSurrogate reports whether a \u escape in body is half of a UTF-16 pair. encoding/json would replace it by U+FFFD
// and so store something else than was sent. body need not be valid JSON.
func hasLoneSurrogate(body []byte) bool {
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
		i += 4
		switch {
		case unit >= 0xdc00 && unit <= 0xdfff:
			return true
		case unit >= 0xd800 && unit <= 0xdbff:
			if i+2 >= len(body) || body[i+1] != '\\' || body[i+2] != 'u' {
				return true
			}
			low, ok := hex4(body, i+3)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 6
		}
	}
	return false
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
