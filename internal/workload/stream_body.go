package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// body is a form that is the body of an HTTP answer.
type body struct {
	http      *http.Client
	path      string
	request   func(*http.Request, Place)
	delimiter string // ends every unit
	decode    func(unit []byte) ([]Event, error)

	answer io.ReadCloser
	units  *bufio.Scanner
}

func (f *body) Connect(ctx context.Context, urls []string, from Place) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, urls[0]+f.path, http.NoBody)
	if err != nil {
		return err
	}
	f.request(r, from)
	answer, err := f.http.Do(r)
	if err != nil {
		return err
	}
	f.answer = answer.Body
	if answer.StatusCode != http.StatusOK {
		return refused(answer)
	}
	f.units = bufio.NewScanner(f.answer)
	f.units.Buffer(nil, mostFrame)
	f.units.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.Index(data, []byte(f.delimiter)); i >= 0 {
			return i + len(f.delimiter), data[:i], nil
		}
		if atEOF {
			return len(data), nil, nil // half a unit is none
		}
		return 0, nil, nil
	})
	return nil
}

func (f *body) Next() ([]Event, error) {
	for f.units.Scan() {
		if len(f.units.Bytes()) > 0 {
			return f.decode(f.units.Bytes())
		}
	}
	if err := f.units.Err(); err != nil {
		return nil, err
	}
	return nil, ErrOver
}

func (f *body) Close() {
	if f.answer != nil {
		_ = f.answer.Close()
		f.answer = nil
	}
}

func sinceQuery(r *http.Request, from Place) { r.URL.RawQuery = fmt.Sprint("since=", from.ID) }

// lastEventID resumes as a browser does.
func lastEventID(r *http.Request, from Place) {
	r.Header.Set("Last-Event-ID", strconv.FormatUint(from.ID, 10))
}

// decodeServerEvent reads one server-sent event without the empty line behind
// it.
func decodeServerEvent(unit []byte) ([]Event, error) {
	fields := map[string]string{}
	for line := range strings.SplitSeq(string(unit), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		fields[name] = value
	}
	switch fields["event"] {
	case "":
		if fields["data"] == "" {
			return nil, nil // retry, or a comment
		}
		events, err := decodeMessage([]byte(fields["data"]))
		if err == nil && fields["id"] != fmt.Sprint(events[0].ID) {
			return nil, fmt.Errorf("%w: the id does not belong to the message: %s", ErrSenseless, unit)
		}
		return events, err
	case "gap":
		g := new(Gap)
		id, err := strconv.ParseUint(fields["id"], 10, 64)
		if err == nil {
			err = json.Unmarshal([]byte(fields["data"]), g)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrSenseless, unit, err)
		}
		g.ID = id
		return []Event{{Gap: g}}, nil
	case "status":
		return nil, nil
	case "end":
		return nil, ErrOver
	}
	return nil, fmt.Errorf("%w: an unknown event: %s", ErrSenseless, unit)
}
