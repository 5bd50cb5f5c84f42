package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"strings"
)

// bodyKind is what a body is by its declared type.
type bodyKind int

const (
	bodyUndeclared bodyKind = iota // what it begins with decides
	bodyJSON
	bodyText
)

// formType is what curl -d declares, so it says nothing.
const formType = "application/x-www-form-urlencoded"

// kindOf returns what a body is declared to be. A type that is neither JSON nor plain text is refused, and so is text in
// another encoding than UTF-8.
func kindOf(h http.Header) (bodyKind, *problem) {
	declared := h["Content-Type"]
	switch {
	case len(declared) == 0 || len(declared) == 1 && (declared[0] == "" || declared[0] == formType):
		return bodyUndeclared, nil
	case len(declared) > 1:
		return 0, newProblem(codeMediaType, "the header Content-Type is given more than once")
	case declared[0] == "application/json":
		return bodyJSON, nil
	}
	mediaType, params, err := mime.ParseMediaType(declared[0])
	if err != nil {
		return 0, newProblem(codeMediaType, "the header Content-Type cannot be read")
	}
	switch charset := strings.ToLower(params["charset"]); charset {
	case "", "utf-8", "utf8", "us-ascii":
	default:
		return 0, newProblem(codeMediaType, "text is taken in UTF-8 only")
	}
	switch {
	case mediaType == "application/json", strings.HasSuffix(mediaType, "+json"):
		return bodyJSON, nil
	case mediaType == "text/plain":
		return bodyText, nil
	case mediaType == formType:
		return bodyUndeclared, nil
	}
	return 0, newProblem(codeMediaType, "bodies are application/json or text/plain")
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

// withoutMark returns body without a byte order mark, which says that it is UTF-8.
func withoutMark(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\ufeff")) }

// encodingDetail says of bytes that are not UTF-8 what they are.
func encodingDetail(what string, body []byte) string {
	if bytes.HasPrefix(body, []byte("\xff\xfe")) || bytes.HasPrefix(body, []byte("\xfe\xff")) {
		return what + " begins with the byte order mark of UTF-16; text is taken in UTF-8 only"
	}
	return what + " is not valid UTF-8"
}

// jsonDetail says in a client's words why what, a body or a frame, is not the JSON that was asked for.
func jsonDetail(what string, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		value, _, _ := strings.Cut(kind.Value, " ") // a number comes with all its digits
		switch {
		case kind.Field == "":
			return fmt.Sprintf("the %s is a JSON %s and should be an object", what, value)
		case kind.Type.Kind() == reflect.Uint64 && value == "number":
			return kind.Field + " is a whole number from 0 to 18446744073709551615"
		case kind.Type.Kind() == reflect.Uint64:
			return fmt.Sprintf("%s is a number and cannot be a JSON %s", kind.Field, value)
		}
		return fmt.Sprintf("%s cannot be a JSON %s", kind.Field, value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("the %s is not one JSON object: %v (at byte %d)", what, syntax, syntax.Offset)
	}
	return "the " + what + " is not one JSON object"
}

// surrogateDetail says what is wrong with the half of a surrogate pair that begins at byte at of a JSON text.
func surrogateDetail(what string, text []byte, at int) string {
	return fmt.Sprintf(`the %s has %s at byte %d, half of a surrogate pair: no text can hold that`, what, text[at:at+6], at)
}
