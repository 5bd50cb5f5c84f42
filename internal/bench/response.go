package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxHeaderLines and the reader's buffer (the longest line) bound a header.
	maxHeaderLines = 128
	// maxErrorBody is how much of a refusal is kept to find its code in.
	maxErrorBody = 16 << 10
)

// response is an answer without its headers.
type response struct {
	status int
	// body is kept for other answers than 2xx, cut at maxErrorBody.
	body []byte
	// closing is set when the server ends the connection after this answer.
	closing bool
}

var (
	errMalformed   = errors.New("malformed HTTP answer")
	errLineTooLong = errors.New("line in HTTP answer too long")
)

// readResponse reads one final HTTP/1.1 answer to a POST, passing over interim
// ones. It is stricter than HTTP asks for: what would leave it in doubt where
// the body ends is an error. Any error leaves r at an unknown place.
func readResponse(r *bufio.Reader) (response, error) {
	for {
		resp, length, err := readHead(r)
		if err != nil {
			return response{}, err
		}
		if resp.status < 200 {
			if resp.status == 101 {
				return response{}, errMalformed
			}
			continue
		}
		if resp.status == 204 || resp.status == 304 {
			return resp, nil
		}
		var kept *bytes.Buffer
		if resp.status > 299 {
			kept = new(bytes.Buffer)
		}
		switch length {
		case lengthChunked:
			err = readChunked(r, kept)
		case lengthUnknown:
			// The body ends with the connection.
			resp.closing = true
			err = readUntilEOF(r, kept)
		default:
			err = readN(r, length, kept)
		}
		if err != nil {
			return response{}, err
		}
		if kept != nil {
			resp.body = kept.Bytes()
		}
		return resp, nil
	}
}

// What readHead returns for a body whose length the header does not state.
const (
	lengthUnknown = -1
	lengthChunked = -2
)

// readHead reads the status line and the header fields.
func readHead(r *bufio.Reader) (resp response, length int64, err error) {
	line, err := readLine(r)
	if err != nil {
		return resp, 0, err
	}
	// "HTTP/1.x NNN" and, where a server bothers, a space and a reason.
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return resp, 0, errMalformed
	}
	if line[7] != '0' && line[7] != '1' {
		return resp, 0, errMalformed
	}
	old := line[7] == '0'
	resp.closing = old
	for _, b := range line[9:12] {
		if b < '0' || b > '9' {
			return resp, 0, errMalformed
		}
		resp.status = resp.status*10 + int(b-'0')
	}
	if resp.status < 100 {
		return resp, 0, errMalformed
	}

	length = lengthUnknown
	for range maxHeaderLines {
		if line, err = readLine(r); err != nil {
			return resp, 0, err
		}
		if len(line) == 0 {
			return resp, length, nil
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return resp, 0, errMalformed
		}
		// The first letter spares the comparison for most fields.
		switch name[0] | 0x20 {
		case 'c':
			switch {
			case bytes.EqualFold(name, []byte("Content-Length")):
				if length != lengthUnknown {
					return resp, 0, errMalformed
				}
				if length, err = parseLength(bytes.TrimSpace(value)); err != nil {
					return resp, 0, err
				}
			case bytes.EqualFold(name, []byte("Connection")):
				resp.closing = resp.closing || bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
			}
		case 't':
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				// HTTP/1.0 has no chunks; who sends them has another idea of the end.
				if old || length != lengthUnknown || !bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked")) {
					return resp, 0, errMalformed
				}
				length = lengthChunked
			}
		}
	}
	return resp, 0, errMalformed
}

// readLine returns the next line without its end. It is valid until the next
// read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errLineTooLong
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

func parseLength(s []byte) (int64, error) {
	n, err := strconv.ParseUint(string(s), 10, 62)
	if err != nil {
		return 0, errMalformed
	}
	return int64(n), nil
}

// readChunked reads a chunked body and its trailer.
func readChunked(r *bufio.Reader, kept *bytes.Buffer) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return unexpected(err)
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 62)
		if err != nil {
			return errMalformed
		}
		if n == 0 {
			break
		}
		if err := readN(r, int64(n), kept); err != nil {
			return err
		}
		if line, err = readLine(r); err != nil {
			return unexpected(err)
		}
		if len(line) != 0 {
			return errMalformed
		}
	}
	for range maxHeaderLines {
		line, err := readLine(r)
		if err != nil {
			return unexpected(err)
		}
		if len(line) == 0 {
			return nil
		}
	}
	return errMalformed
}

// readN takes n bytes of body from r and appends them to kept, which may be
// nil, as far as they fit.
func readN(r *bufio.Reader, n int64, kept *bytes.Buffer) error {
	if kept != nil {
		keep := min(n, int64(maxErrorBody-kept.Len()))
		if _, err := io.CopyN(kept, r, keep); err != nil {
			return unexpected(err)
		}
		n -= keep
	}
	_, err := io.CopyN(io.Discard, r, n)
	return unexpected(err)
}

func readUntilEOF(r *bufio.Reader, kept *bytes.Buffer) error {
	if kept != nil {
		if _, err := io.CopyN(kept, r, maxErrorBody); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// unexpected turns an end of the stream in the middle of an answer into an
// error of its own.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// code returns the stable code of a problem document (RFC 9457 with the "code"
// member), or "" when the body is none.
func (r response) code() string {
	var problem struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(r.body, &problem); err != nil || len(problem.Code) > 64 {
		return ""
	}
	return problem.Code
}

// kind names a refusal for the report: "503 no_leader", or "502" when the
// answer does not carry a code.
func (r response) kind() string {
	if code := r.code(); code != "" {
		return fmt.Sprintf("%d %s", r.status, code)
	}
	return strconv.Itoa(r.status)
}
