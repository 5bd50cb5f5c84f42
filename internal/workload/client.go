package workload

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// Message is one message as the REST API writes it.
type Message struct {
	Room            string
	Seq             uint64
	ID              uint64
	User            string
	Message         string
	Payload         string `json:",omitempty"` // base64, in place of a Message that is not UTF-8
	PostedAt        time.Time
	ClientMessageID string `json:",omitempty"`
}

// Oracle gives the message as the oracle is told of it.
func (m *Message) Oracle() oracle.Message {
	told := oracle.Message{Room: m.Room, Seq: m.Seq, ID: m.ID, User: m.User, Body: m.Message, ClientID: m.ClientMessageID}
	if body, err := base64.StdEncoding.DecodeString(m.Payload); m.Payload != "" && err == nil {
		told.Body = string(body)
	}
	if !m.PostedAt.IsZero() {
		told.PostedUS = m.PostedAt.UnixMicro()
	}
	return told
}

// Member is one line of GET /raft.
type Member struct {
	ID        uint64
	PeerURL   string
	ClientURL string
	Role      string
	Match     uint64
	Lag       uint64
	Active    bool
}

// Refusal is an answer of 400 and above, as an error.
type Refusal struct {
	Status int
	Code   string // the problem document's
	Detail string
}

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.Status, r.Code, r.Detail) }

// CodeOf returns the code of a Refusal that is or is wrapped by err, or "".
func CodeOf(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// Client speaks the REST API. Every method takes the URL of the node to ask
// and may be called concurrently.
type Client struct{ http *http.Client }

// NewClient returns a client that sends requests with http.
func NewClient(http *http.Client) *Client { return &Client{http} }

// Do sends one request and returns the status and body of an answer below 400;
// anything above is a *Refusal.
func (c *Client) Do(ctx context.Context, method, url, body string) (status int, answer []byte, err error) {
	status, answer, _, err = c.do(ctx, method, url, body)
	return status, answer, err
}

func (c *Client) do(ctx context.Context, method, url, body string) (int, []byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode >= 400 {
		refusal := &Refusal{Status: resp.StatusCode}
		if err := json.Unmarshal(answer, refusal); err != nil {
			refusal.Detail = "no problem document: " + string(answer)
		}
		refusal.Status = resp.StatusCode
		return resp.StatusCode, nil, nil, refusal
	}
	return resp.StatusCode, answer, resp.Header, nil
}

// Post posts m.Message to m.Room. It returns the stored message, and whether
// the room held it already.
func (c *Client) Post(ctx context.Context, node string, m Message) (stored Message, repeated bool, err error) {
	body, err := json.Marshal(struct {
		Message, User   string
		ClientMessageID string `json:",omitempty"`
	}{m.Message, m.User, m.ClientMessageID})
	if err != nil {
		return Message{}, false, err
	}
	status, answer, err := c.Do(ctx, http.MethodPost, roomURL(node, m.Room), string(body))
	if err != nil {
		return Message{}, false, err
	}
	if err := json.Unmarshal(answer, &stored); err != nil {
		return Message{}, false, fmt.Errorf("answer to a post: %w", err)
	}
	return stored, status == http.StatusOK, nil
}

func roomURL(node, room string) string { return node + "/rooms/" + url.PathEscape(room) }

// Messages reads all messages of a room, page by page.
func (c *Client) Messages(ctx context.Context, node, room string) ([]Message, error) {
	return c.messages(ctx, node, room, "")
}

// messages adds more to the query of each page.
func (c *Client) messages(ctx context.Context, node, room, more string) ([]Message, error) {
	var all []Message
	for after := uint64(0); ; after = all[len(all)-1].Seq {
		page, err := c.Page(ctx, node, room, "after="+strconv.FormatUint(after, 10)+"&limit=1000"+more)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			return all, nil
		}
		all = append(all, page...)
	}
}

// Page reads one page of a room. query has the form of a URL's, or is "".
func (c *Client) Page(ctx context.Context, node, room, query string) ([]Message, error) {
	_, answer, err := c.Do(ctx, http.MethodGet, roomURL(node, room)+"?"+query, "")
	if err != nil {
		return nil, err
	}
	var page []Message
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields() // a field this type misses would not be compared
	if err := decoder.Decode(&page); err != nil {
		return nil, fmt.Errorf("page of room %s: %w", room, err)
	}
	return page, nil
}

// Rooms lists all rooms.
func (c *Client) Rooms(ctx context.Context, node string) ([]string, error) {
	return c.rooms(ctx, node, "")
}

func (c *Client) rooms(ctx context.Context, node, more string) ([]string, error) {
	var all []string
	for after := ""; ; after = all[len(all)-1] {
		_, answer, err := c.Do(ctx, http.MethodGet, node+"/rooms?limit=1000&after="+url.QueryEscape(after)+more, "")
		if err != nil {
			return nil, err
		}
		var rooms []string
		if err := json.Unmarshal(answer, &rooms); err != nil {
			return nil, fmt.Errorf("rooms: %w", err)
		}
		if len(rooms) == 0 {
			return all, nil
		}
		all = append(all, rooms...)
	}
}

// Everything reads all messages of all rooms.
func (c *Client) Everything(ctx context.Context, node string) ([]Message, error) {
	rooms, err := c.Rooms(ctx, node)
	if err != nil {
		return nil, err
	}
	var all []Message
	for _, room := range rooms {
		messages, err := c.Messages(ctx, node, room)
		if err != nil {
			return nil, err
		}
		all = append(all, messages...)
	}
	return all, nil
}

// Ready returns nil when the node says that it can serve.
func (c *Client) Ready(ctx context.Context, node string) error {
	_, _, err := c.Do(ctx, http.MethodGet, node+"/readyz", "")
	return err
}

// Health is what GET /health says.
type Health struct {
	NodeID       string `json:"node_id"`
	Role         string `json:"role"`
	IsLeader     bool   `json:"is_leader"`
	LeaderID     string `json:"leader_id"`
	AppliedIndex uint64 `json:"applied_index"`
	StateHash    string `json:"state_hash"` // 16 hex digits
}

// Health asks a node how it is.
func (c *Client) Health(ctx context.Context, node string) (h Health, err error) {
	_, answer, err := c.Do(ctx, http.MethodGet, node+"/health", "")
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(answer, &h)
}

// Members lists the members as a node knows them.
func (c *Client) Members(ctx context.Context, node string) ([]Member, error) {
	_, answer, err := c.Do(ctx, http.MethodGet, node+"/raft", "")
	if err != nil {
		return nil, err
	}
	var members []Member
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	return members, nil
}

// AddMember adds a voter.
func (c *Client) AddMember(ctx context.Context, node string, id uint64, peerURL string) error {
	_, _, err := c.Do(ctx, http.MethodPost, node+"/raft/"+strconv.FormatUint(id, 10), peerURL)
	return err
}

// RemoveMember removes a member.
func (c *Client) RemoveMember(ctx context.Context, node string, id uint64) error {
	_, _, err := c.Do(ctx, http.MethodDelete, node+"/raft/"+strconv.FormatUint(id, 10), "")
	return err
}
