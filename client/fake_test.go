package client_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/client"
)

// fakeCluster keeps messages for any number of nodes and answers as a node
// does, as far as the client can tell. Tests put faults into its nodes.
type fakeCluster struct {
	mu       sync.Mutex // guards the rest
	messages []stored   // in order of ID
	dropped  map[string]uint64
	changed  chan struct{} // closed and replaced with every message
	nodes    []*fakeNode
	stopping chan struct{}
}

type stored struct {
	Room            string
	Seq, ID         uint64
	User            string
	Message         string
	PostedAt        time.Time
	ClientMessageID string `json:",omitempty"`
}

// fakeNode is one node; its hooks may be nil.
type fakeNode struct {
	cluster *fakeCluster
	server  *httptest.Server

	// fault sees every request first; true means that it has dealt with it.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// events sees the query of every stream.
	events func(query map[string][]string)
	// cut ends each stream after that many messages, as a killed node would; 0
	// never does.
	cut int
	// end is sent before a stream that is cut.
	end string
	// begin is sent at the start of each stream.
	begin string
}

// startFake starts a cluster of n nodes; close ends it.
func startFake(n int) *fakeCluster {
	c := &fakeCluster{dropped: map[string]uint64{}, changed: make(chan struct{}), stopping: make(chan struct{})}
	for range n {
		node := &fakeNode{cluster: c}
		node.server = httptest.NewServer(node)
		c.nodes = append(c.nodes, node)
	}
	return c
}

func (c *fakeCluster) close() {
	close(c.stopping)
	for _, n := range c.nodes {
		n.server.CloseClientConnections()
		n.server.Close()
	}
}

func (c *fakeCluster) endpoints() []string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, n.server.URL)
	}
	return list
}

// client returns a client of all nodes.
func (c *fakeCluster) client() *client.Client {
	cl, err := client.New(client.Options{Endpoints: c.endpoints(), User: "ann"})
	if err != nil {
		panic(err)
	}
	return cl
}

// post stores a message, unless its client message id is there already.
func (c *fakeCluster) post(room, user, text, id string) (m stored, repeated bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m = stored{Room: room, ID: uint64(len(c.messages)) + 1, User: user, Message: text, ClientMessageID: id,
		PostedAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, old := range c.messages {
		if old.Room != room {
			continue
		}
		if id != "" && old.ClientMessageID == id {
			return old, true
		}
		m.Seq = old.Seq
	}
	m.Seq++
	c.messages = append(c.messages, m)
	close(c.changed)
	c.changed = make(chan struct{})
	return m, false
}

// trim drops the messages of a room below a Seq.
func (c *fakeCluster) trim(room string, below uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped[room] = below
}

// texts returns what a room holds.
func (c *fakeCluster) texts(room string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, m := range c.messages {
		if m.Room == room && m.Seq >= c.dropped[room] {
			list = append(list, m.Message)
		}
	}
	return list
}

// after returns the messages of rooms behind an ID, and the gaps before them.
func (c *fakeCluster) after(rooms []string, id uint64) (found []stored, gaps []client.Gap, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := map[string]client.Gap{}
	for _, m := range c.messages {
		switch {
		case m.ID <= id || !slices.Contains(rooms, m.Room):
		case m.Seq < c.dropped[m.Room]:
			g := missing[m.Room]
			if g.FirstSeq == 0 {
				g.FirstSeq = m.Seq
			}
			g.Room, g.LastSeq = m.Room, m.Seq
			missing[m.Room] = g
		default:
			found = append(found, m)
		}
	}
	for _, room := range rooms {
		if g, ok := missing[room]; ok {
			gaps = append(gaps, g)
		}
	}
	return found, gaps, c.changed
}

// refuse answers with a problem document.
func refuse(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"about:blank","status":%d,"code":%q,"detail":%q}`, status, code, detail)
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.fault != nil && n.fault(w, r) {
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 3 && parts[0] == "rooms" && parts[2] == "events":
		n.stream(w, r, strings.Split(parts[1], ","))
	case len(parts) == 2 && parts[0] == "rooms" && r.Method == http.MethodPost:
		n.send(w, r, parts[1])
	case len(parts) == 2 && parts[0] == "rooms":
		n.history(w, r, parts[1])
	case r.URL.Path == "/rooms":
		n.rooms(w, r)
	case r.URL.Path == "/raft":
		fmt.Fprint(w, `[{"ID":1,"Name":"one","PeerURL":"http://127.0.0.1:12379","ClientURL":"http://127.0.0.1:12380","GRPCAddr":"","Role":"leader","Match":7,"Lag":0,"Active":true},`+
			`{"ID":2,"Name":"two","Role":"follower","Match":5,"Lag":2,"Active":false}]`)
	case r.URL.Path == "/health":
		fmt.Fprint(w, `{"node_id":"one","role":"leader","is_leader":true,"leader_id":"one"}`)
	case r.URL.Path == "/readyz":
		fmt.Fprint(w, "ok\n")
	default:
		refuse(w, http.StatusNotFound, "not_found", "nothing is served at this URL")
	}
}

func (n *fakeNode) send(w http.ResponseWriter, r *http.Request, room string) {
	var body struct{ User, Message, ClientMessageID string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, "json_invalid", err.Error())
		return
	}
	if room == "." {
		refuse(w, http.StatusBadRequest, "room_name_invalid", `a room name must not be "." or ".."`)
		return
	}
	m, repeated := n.cluster.post(room, body.User, body.Message, body.ClientMessageID)
	if repeated && (m.User != body.User || m.Message != body.Message) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"code":"client_message_id_conflict","detail":"taken","Seq":%d}`, m.Seq)
		return
	}
	if !repeated {
		w.WriteHeader(http.StatusCreated)
	}
	writeObject(w, m)
}

func writeObject(w io.Writer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(append(b, '\n'))
}

func (n *fakeNode) history(w http.ResponseWriter, r *http.Request, room string) {
	q := r.URL.Query()
	all, _, _ := n.cluster.after([]string{room}, 0)
	limit := 100
	if q.Has("limit") {
		limit, _ = strconv.Atoi(q.Get("limit"))
	}
	low, high := 0, len(all)
	if q.Has("before") {
		before, _ := strconv.ParseUint(q.Get("before"), 10, 64)
		high = slices.IndexFunc(all, func(m stored) bool { return m.Seq >= before })
	}
	if q.Has("after") {
		after, _ := strconv.ParseUint(q.Get("after"), 10, 64)
		for low < high && all[low].Seq <= after {
			low++
		}
		high = min(high, low+limit)
	} else {
		low = max(low, high-limit)
	}
	if low > 0 {
		w.Header().Add("Link", fmt.Sprintf(`</rooms/%s?before=%d>; rel="prev"`, room, all[low].Seq))
	}
	if high < len(all) {
		w.Header().Add("Link", fmt.Sprintf(`</rooms/%s?after=%d>; rel="next"`, room, all[high-1].Seq))
	}
	writeObject(w, append([]stored{}, all[low:high]...))
}

func (n *fakeNode) rooms(w http.ResponseWriter, r *http.Request) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	counts := map[string]uint64{}
	var names []string
	for _, m := range n.cluster.messages {
		if counts[m.Room]++; counts[m.Room] == 1 {
			names = append(names, m.Room)
		}
	}
	slices.Sort(names)
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	list := []map[string]any{}
	for _, name := range names {
		if name <= q.Get("after") || !strings.HasPrefix(name, q.Get("prefix")) {
			continue
		}
		if limit > 0 && len(list) == limit {
			w.Header().Add("Link", `</rooms?after=x>; rel="next"`)
			break
		}
		list = append(list, map[string]any{"Name": name, "Messages": counts[name], "FirstSeq": 1, "LastSeq": counts[name]})
	}
	writeObject(w, list)
}

// stream is GET /rooms/{rooms}/events.
func (n *fakeNode) stream(w http.ResponseWriter, r *http.Request, rooms []string) {
	q := r.URL.Query()
	if n.events != nil {
		n.events(q)
	}
	cursor := uint64(0)
	switch since := q.Get("since"); since {
	case "all":
	case "latest":
		n.cluster.mu.Lock()
		cursor = uint64(len(n.cluster.messages))
		n.cluster.mu.Unlock()
	default:
		if _, err := time.ParseDuration(since); err == nil && since != "0" {
			break // every message is young enough
		}
		var err error
		if cursor, err = strconv.ParseUint(since, 10, 64); err != nil {
			refuse(w, http.StatusBadRequest, "cursor_invalid", "since is wrong")
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	fmt.Fprint(w, "retry: 1000\n\n: keepalive\n\n"+n.begin)
	flush := w.(http.Flusher).Flush
	flush()
	sent := 0
	for {
		found, gaps, changed := n.cluster.after(rooms, cursor)
		for _, g := range gaps {
			fmt.Fprintf(w, "event: gap\nid: %d\ndata: {\"Room\":%q,\"FirstSeq\":%d,\"LastSeq\":%d}\n\n", cursor, g.Room, g.FirstSeq, g.LastSeq)
		}
		for _, m := range found {
			if n.cut > 0 && sent == n.cut {
				if n.end != "" {
					fmt.Fprint(w, n.end)
					flush()
					return
				}
				flush()
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, "id: %d\ndata: ", m.ID)
			writeObject(w, m)
			fmt.Fprint(w, "\n")
			sent++
			cursor = m.ID
		}
		flush()
		if q.Get("poll") == "1" {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-n.cluster.stopping:
			return
		}
	}
}
