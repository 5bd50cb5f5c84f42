package strangers

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Stranger attacks one node.
type Stranger struct {
	Addr    string // of its peer listener
	Cluster uint64 // the cluster's id
	To      uint64 // the node's id
	As      uint64 // the id of another member, which the stranger pretends to be
	AsURL   string // that member's peer URL
	AsWho   string // that member's incarnation

	AsStarts string // that member's starts

	mu   sync.Mutex
	open []net.Conn
}

// Kind is one way to trouble a node.
type Kind struct {
	Name string
	// Send does it for the i-th time.
	Send func(s *Stranger, i int) error
}

const (
	another  = "0123456789abcdef0123456789abcdef" // a directory's incarnation, or a secret
	patience = time.Second
)

// Kinds lists every kind.
func Kinds() []Kind {
	member := func(format string) func(*Stranger, int) error {
		return func(s *Stranger, i int) error { return s.post(callPath, "application/json", s.fill(format, i)) }
	}
	hello := func(format string, headers ...string) func(*Stranger, int) error {
		return func(s *Stranger, i int) error {
			return s.post(helloPath, "application/json", s.fill(format, i), headers...)
		}
	}
	raft := func(edit func(m *raftpb.Message, i int)) func(*Stranger, int) error {
		return func(s *Stranger, i int) error {
			m := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(s.As), To: new(s.To), Term: new(uint64(100))}
			edit(m, i)
			b, err := proto.Marshal(m)
			if err != nil {
				return err
			}
			return s.post("/raft", "application/protobuf", string(b), s.forged()...)
		}
	}
	stream := func(path string, headers ...string) func(*Stranger, int) error {
		return func(s *Stranger, _ int) error {
			return s.exchange("GET", fmt.Sprintf(path, s.As), append(s.forged(), headers...), "")
		}
	}
	return []Kind{
		{"hello that claims a wipe", hello(`{"version":2,"to":TO,"from":99,"joining":true,"expected":"` + another + `"}`)},
		{"hello that claims a wipe, of the version before", hello(`{"version":1,"to":TO,"from":99,"joining":true,"expected":"` + another + `"}`)},
		{"hello of a member that claims a wipe", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"peer_url":"URL","incarnation":"WHO","starts":"STARTS","expected":"` + another + `","secret":"SECRET"}`)},
		{"hello of a member", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"peer_url":"URL","incarnation":"WHO","starts":"STARTS","secret":"SECRET"}`)},
		{"hello of an older copy of a member", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"peer_url":"URL","incarnation":"WHO","secret":"SECRET"}`)},
		{"hello of a member that has met a later start", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"peer_url":"URL","incarnation":"WHO","starts":"STARTS","expected_start":7,"secret":"SECRET"}`)},
		{"hello of a member without a secret", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"peer_url":"URL","incarnation":"WHO"}`)},
		{"hello of the node itself", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":TO,"peer_url":"URL","incarnation":"WHO","secret":"SECRET"}`)},
		{"hello of ever new members", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":1INDEX,"peer_url":"http://127.0.0.1:1","incarnation":"WHO","secret":"SECRET"}`)},
		{"hello of an id that raft keeps", hello(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":18446744073709551614,"peer_url":"http://127.0.0.1:1","incarnation":"WHO","secret":"SECRET"}`)},
		{"hello of a joining member", hello(`{"version":2,"to":TO,"from":AS,"joining":true,"peer_url":"URL","incarnation":"WHO"}`)},
		{"hello from a page", hello(`{"version":2,"to":TO,"from":99,"joining":true,"expected":"`+another+`"}`, "Origin: http://evil.example", "Sec-Fetch-Site: cross-site")},
		{"hello as text", func(s *Stranger, i int) error {
			return s.post(helloPath, "text/plain", s.fill(`{"version":2,"to":TO,"from":99,"joining":true,"expected":"`+another+`"}`, i))
		}},
		{"hello that is no JSON", hello(`{"version":`)},
		{"hello of numbers out of bounds", hello(`{"version":2,"cluster_id":1e400,"to":-1,"from":99999999999999999999}`)},
		{"hello of a megabyte", func(s *Stranger, _ int) error {
			return s.post(helloPath, "application/json", strings.Repeat(" ", 1<<20))
		}},
		{"confirm", func(s *Stranger, i int) error {
			return s.post("/member/v1/confirm", "application/json", s.fill(`{"version":2,"cluster_id":CLUSTER,"to":TO,"from":AS,"challenge":"SECRET"}`, i))
		}},
		{"call to add a member", member(`{"cluster_id":CLUSTER,"to":TO,"from":AS,"incarnation":"WHO","secret":"SECRET","op":"add","id":9,"peer_url":"http://127.0.0.1:1"}`)},
		{"call to remove a member", member(`{"cluster_id":CLUSTER,"to":TO,"from":AS,"incarnation":"WHO","secret":"SECRET","op":"remove","id":AS}`)},
		{"call to move the leadership", member(`{"cluster_id":CLUSTER,"to":TO,"from":AS,"incarnation":"WHO","op":"transfer","id":AS}`)},

		{"commit 10⁹", raft(func(m *raftpb.Message, _ int) { m.Commit = new(uint64(1e9)) })},
		{"the highest term", raft(func(m *raftpb.Message, _ int) { m.Type, m.Term = raftpb.MsgAppResp.Enum(), new(uint64(math.MaxUint64)) })},
		{"a vote", raft(func(m *raftpb.Message, i int) { m.Type, m.Term = raftpb.MsgVote.Enum(), new(uint64(100+i)) })},
		{"entries", raft(func(m *raftpb.Message, i int) {
			m.Type, m.Index, m.LogTerm = raftpb.MsgApp.Enum(), new(uint64(i)), new(uint64(2))
			m.Entries = []*raftpb.Entry{{Term: new(uint64(100)), Index: new(uint64(i + 1)), Data: []byte("forged")}}
		})},
		{"timeout now", raft(func(m *raftpb.Message, _ int) { m.Type = raftpb.MsgTimeoutNow.Enum() })},
		{"of a negative type", raft(func(m *raftpb.Message, _ int) { m.Type = raftpb.MessageType(-1).Enum() })},
		{"of an id that raft keeps", raft(func(m *raftpb.Message, _ int) { m.From = new(uint64(math.MaxUint64)) })},
		{"no raft message", func(s *Stranger, _ int) error {
			return s.post("/raft", "application/protobuf", "\xff\xff\xff", s.forged()...)
		}},
		{"snapshot", func(s *Stranger, i int) error {
			m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(s.As), To: new(s.To), Term: new(uint64(109)),
				Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1e6 + i)), Term: new(uint64(9))}}}
			b, err := proto.Marshal(m)
			if err != nil {
				return err
			}
			body := append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
			return s.post("/raft/snapshot", "application/octet-stream", string(body)+"RAFTCHAT", s.forged()...)
		}},
		{"stream of appends", stream("/raft/stream/msgapp/%x")},
		{"stream of messages", stream("/raft/stream/message/%x")},
		{"stream of another address", stream("/raft/stream/msgapp/%x", "X-PeerURLs: http://127.0.0.1:1")},
		{"stream of no version", stream("/raft/stream/msgapp/%x", "X-Server-Version: x")},
		{"probing", func(s *Stranger, _ int) error { return s.exchange("GET", "/raft/probing", nil, "") }},
		{"other paths", func(s *Stranger, i int) error {
			method := []string{"GET", "PUT", "DELETE", "OPTIONS", "CONNECT"}[i%5]
			return s.exchange(method, []string{"/", "/member/v1/hello", "/raft", "/debug/pprof/", "/raft/stream/x"}[i%5], nil, "")
		}},
		{"no HTTP", func(s *Stranger, i int) error {
			return s.say([]string{"\x16\x03\x01\x02\x00\x01", "SSH-2.0-x\r\n", "\x00\x00"}[i%3]+"\r\n\r\n", true)
		}},
		{"a header without an end", func(s *Stranger, _ int) error {
			return s.say("GET / HTTP/1.1\r\nHost: "+s.Addr+"\r\nX: "+strings.Repeat("x", 64<<10), true)
		}},

		{"a declared megabyte that never comes", func(s *Stranger, _ int) error {
			return s.say("POST "+helloPath+" HTTP/1.1\r\nHost: "+s.Addr+"\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n{", false)
		}},
		{"half a body", func(s *Stranger, _ int) error {
			return s.say("POST "+callPath+" HTTP/1.1\r\nHost: "+s.Addr+"\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"+strings.Repeat(" ", 60<<10), false)
		}},
		{"half a chunk", func(s *Stranger, _ int) error {
			return s.say("POST "+callPath+" HTTP/1.1\r\nHost: "+s.Addr+"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n ", false)
		}},
		{"half a header", func(s *Stranger, _ int) error { return s.say("POST "+helloPath+" HTTP/1.1\r\nHost: ", false) }},
		{"nothing", func(s *Stranger, _ int) error { return s.say("", false) }},
	}
}

const (
	helloPath = "/member/v1/hello"
	callPath  = "/member/v1/call"
)

// fill puts what the stranger knows into a request.
func (s *Stranger) fill(format string, i int) string {
	return strings.NewReplacer("CLUSTER", fmt.Sprint(s.Cluster), "TO", fmt.Sprint(s.To), "AS", fmt.Sprint(s.As), "URL", s.AsURL, "WHO", s.AsWho, "STARTS", s.AsStarts,
		"INDEX", fmt.Sprint(i), "SECRET", fmt.Sprintf("%032x", uint64(i+1))).Replace(format)
}

// forged are the headers by which rafthttp knows a member.
func (s *Stranger) forged() []string {
	return []string{fmt.Sprintf("X-Server-From: %x", s.As), "X-Server-Version: 3.7.0", "X-Min-Cluster-Version: 3.0.0",
		fmt.Sprintf("X-Etcd-Cluster-ID: %x", s.Cluster), fmt.Sprintf("X-Raft-To: %x", s.To), "X-Raft-Chat-Secret: " + another}
}

func (s *Stranger) post(path, contentType, body string, headers ...string) error {
	return s.exchange("POST", path, append(headers, "Content-Type: "+contentType, fmt.Sprint("Content-Length: ", len(body))), body)
}

func (s *Stranger) exchange(method, path string, headers []string, body string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, path, s.Addr)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return s.say(b.String(), true)
}

// say sends text, and waits for the end of the answer or leaves the connection
// open.
func (s *Stranger) say(text string, answered bool) error {
	c, err := net.DialTimeout("tcp", s.Addr, 10*patience)
	if err != nil {
		return err
	}
	if !answered {
		s.mu.Lock()
		s.open = append(s.open, c)
		s.mu.Unlock()
	} else {
		defer c.Close()
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil || !answered {
		return nil // closed by the node: it does not want to hear it
	}
	_, _ = io.Copy(io.Discard, c) // a reset is an answer, too
	return nil
}

// Close closes what was left open.
func (s *Stranger) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close() // the node may have done it already
	}
	s.open = nil
}
