package raftnode

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

var update = flag.Bool("update", false, "write the golden output into testdata")

// TestMembershipScript runs testdata/membership.txt: each line that begins
// with "> " is an operation, and the lines below it are its outcome and the
// member records after it.
func TestMembershipScript(t *testing.T) {
	const path = "testdata/membership.txt"
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	m := &membership{Version: membershipVersion}
	for line := range strings.Lines(string(script)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
			continue
		}
		command, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue // golden output
		}
		out.WriteString(line + "\n")
		before := string(m.encode())
		next, rejected := runMembershipCommand(t, m, command)
		if string(m.encode()) != before {
			t.Fatalf("%s: changed the records that others may be reading", command)
		}
		if rejected != nil {
			fmt.Fprintf(&out, "  rejected %s: %s\n", rejected.Code, rejected.Detail)
			continue
		}
		m = next
		fmt.Fprintf(&out, "  voters %v, learners %v, removed %v\n", m.Voters, m.Learners, m.Removed)
		for _, x := range m.Members {
			fmt.Fprintf(&out, "  %d %s", x.ID, x.PeerURL)
			if !x.Incarnation.IsZero() {
				fmt.Fprintf(&out, " %s…", x.Incarnation.String()[:4])
			}
			if x.Name != "" {
				fmt.Fprintf(&out, " %s", x.Name)
			}
			if x.AutoPromote {
				out.WriteString(" to be promoted")
			}
			out.WriteString("\n")
		}
		checkMembership(t, command, m)
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out.String() != string(script) {
		t.Errorf("%s (run with -update to accept):\n%s", path, firstDifference(string(script), out.String()))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\n want %s\n got  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func runMembershipCommand(t *testing.T, m *membership, command string) (*membership, *Error) {
	t.Helper()
	f := strings.Fields(command)
	id := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return n
	}
	switch f[0] {
	case "bootstrap":
		var peers []Peer
		for _, s := range f[1:] {
			n, u, _ := strings.Cut(s, "=")
			pid, err := strconv.ParseUint(n, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			peers = append(peers, Peer{pid, u})
		}
		return bootstrapMembership(peers), nil
	case "learner":
		return m.change(raftpb.ConfChangeAddLearnerNode, id(1), confContext{PeerURL: f[2]})
	case "voter": // by way of a learner
		return m.change(raftpb.ConfChangeAddLearnerNode, id(1), confContext{PeerURL: f[2], AutoPromote: true})
	case "promote":
		return m.change(raftpb.ConfChangeAddNode, id(1), confContext{})
	case "remove":
		return m.change(raftpb.ConfChangeRemoveNode, id(1), confContext{})
	case "update":
		return m.change(raftpb.ConfChangeUpdateNode, id(1), confContext{})
	case "register":
		var inc Incarnation
		if err := inc.UnmarshalText([]byte(f[2] + strings.Repeat("0", 32-len(f[2])))); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return m.register(id(1), inc, Attributes{Name: f[3]})
	}
	t.Fatalf("unknown command %q", command)
	return nil, nil
}

// checkMembership states what holds for all member records.
func checkMembership(t *testing.T, when string, m *membership) {
	t.Helper()
	if len(m.Voters) == 0 || slices.Contains(m.Voters, 0) || slices.Contains(m.Learners, 0) {
		t.Errorf("%s: voters %v, learners %v", when, m.Voters, m.Learners)
	}
	if len(m.Members) != len(m.Voters)+len(m.Learners) {
		t.Errorf("%s: %d members, %d voters, %d learners", when, len(m.Members), len(m.Voters), len(m.Learners))
	}
	urls := map[string]bool{}
	for i, x := range m.Members {
		if m.isVoter(x.ID) == m.isLearner(x.ID) {
			t.Errorf("%s: member %d is voter and learner, or neither", when, x.ID)
		}
		if m.isRemoved(x.ID) {
			t.Errorf("%s: member %d is removed", when, x.ID)
		}
		if urls[x.PeerURL] {
			t.Errorf("%s: two members at %s", when, x.PeerURL)
		}
		urls[x.PeerURL] = true
		if i > 0 && m.Members[i-1].ID >= x.ID {
			t.Errorf("%s: members are not sorted", when)
		}
		if x.AutoPromote && m.isVoter(x.ID) {
			t.Errorf("%s: voter %d is still to be promoted", when, x.ID)
		}
	}
	if !slices.IsSorted(m.Voters) || !slices.IsSorted(m.Learners) || !slices.IsSorted(m.Removed) {
		t.Errorf("%s: ids are not sorted", when)
	}
}

// Raft takes node 0 for "nothing changed": records with such a member would
// differ from raft's own configuration.
func TestMemberZeroIsNeverAdded(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://127.0.0.1:1"}})
	if _, rejected := m.change(raftpb.ConfChangeAddLearnerNode, 0, confContext{PeerURL: "http://127.0.0.1:2"}); rejected == nil {
		t.Error("accepted")
	}
}

// Equal records are equal bytes, by whatever way they came about.
func TestMembershipEncodingIsDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	peers := []Peer{{1, "http://127.0.0.1:1"}, {2, "http://127.0.0.1:2"}, {3, "http://127.0.0.1:3"}, {10, "http://127.0.0.1:10"}, {200, "http://127.0.0.1:200"}}
	var want []byte
	for range 50 {
		list := slices.Clone(peers)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		m := bootstrapMembership(list)
		ids := []uint64{20, 21, 22, 23}
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		for _, id := range ids {
			m = mustChange(t, m, raftpb.ConfChangeAddLearnerNode, id, confContext{PeerURL: fmt.Sprint("http://127.0.0.1:", id)})
		}
		for _, id := range ids {
			switch id {
			case 20, 21:
				m = mustChange(t, m, raftpb.ConfChangeAddNode, id, confContext{})
			case 23:
				m = mustChange(t, m, raftpb.ConfChangeRemoveNode, id, confContext{})
			}
		}
		m = mustChange(t, m, raftpb.ConfChangeRemoveNode, 3, confContext{})
		got := m.encode()
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s\nand\n%s", got, want)
		}
		back, err := decodeMembership(got)
		if err != nil || !bytes.Equal(back.encode(), got) {
			t.Fatal("not the same after decoding", err)
		}
	}
}

func mustChange(t *testing.T, m *membership, typ raftpb.ConfChangeType, id uint64, cc confContext) *membership {
	t.Helper()
	next, rejected := m.change(typ, id, cc)
	if rejected != nil {
		t.Fatal(rejected)
	}
	return next
}

// Random operations keep the records well-formed, and raft's configuration
// equal to them.
func TestRandomMembershipChanges(t *testing.T) {
	types := []raftpb.ConfChangeType{raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeAddNode, raftpb.ConfChangeRemoveNode}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := bootstrapMembership([]Peer{{1, "http://127.0.0.1:1"}})
		removed := map[uint64]bool{}
		for range 200 {
			typ, id := types[r.IntN(3)], r.Uint64N(12)+1
			next, rejected := m.change(typ, id, confContext{PeerURL: fmt.Sprint("http://127.0.0.1:", r.IntN(15))})
			if rejected != nil {
				continue
			}
			if typ == raftpb.ConfChangeRemoveNode {
				removed[id] = true
			} else if removed[id] {
				t.Fatalf("id %d is used again", id)
			}
			m = next
			checkMembership(t, fmt.Sprint(typ, id), m)
		}
	}
}

func TestMemberRecordsOfAnUnknownVersionAreRefused(t *testing.T) {
	for _, s := range []string{`{"version":2}`, `{}`, `[]`, `{"version":1`, `x`} {
		if _, err := decodeMembership([]byte(s)); err == nil {
			t.Errorf("%s: accepted", s)
		}
	}
	if m, err := decodeMembership(nil); err != nil || m.Version != membershipVersion || len(m.Members) != 0 {
		t.Error("no record at all is the empty one", m, err)
	}
}

// What is a peer URL is tested in internal/peeraddr.
func TestParsePeerURL(t *testing.T) {
	if got, err := ParsePeerURL(" HTTP://Node-1:080/ "); err != nil || got != "http://node-1:80" {
		t.Errorf("%q, %v", got, err)
	}
	var refused *Error
	if got, err := ParsePeerURL("https://a:1"); got != "" || !errors.As(err, &refused) || refused.Code != CodeMemberURL {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzParsePeerURL(f *testing.F) {
	for _, s := range []string{"", "http://127.0.0.1:7001", "https://[::1]:443/", "HTTP://A:1", "http://%41:1", "http://ä:1", "http://a,b=c:1", "//a:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParsePeerURL(s)
		if err != nil {
			if got != "" {
				t.Fatalf("%q: %q and %v", s, got, err)
			}
			return
		}
		again, err := ParsePeerURL(got)
		if err != nil || again != got {
			t.Fatalf("%q gives %q, which gives %q, %v", s, got, again, err)
		}
		if u, err := url.Parse(got); err != nil || u.Hostname() == "" || u.Port() == "" {
			t.Fatalf("%q gives %q: %v", s, got, err)
		}
	})
}

func FuzzDecodeMembership(f *testing.F) {
	f.Add([]byte{})
	f.Add(bootstrapMembership([]Peer{{1, "http://127.0.0.1:1"}, {2, "http://127.0.0.1:2"}}).encode())
	f.Add([]byte(`{"version":1,"voters":[1,1,0],"learners":[1],"members":[{"id":1},{"id":1}],"removed":[1]}`))
	f.Add([]byte(`{"version":1,"members":[{"id":1,"incarnation":"00"}]}`))
	f.Add([]byte(`{"version":1,"members":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMembership(b)
		if err != nil {
			return
		}
		encoded := m.encode()
		back, err := decodeMembership(encoded)
		if err != nil || !bytes.Equal(back.encode(), encoded) {
			t.Fatalf("%s does not survive: %v", encoded, err)
		}
		if back.confState() == nil {
			t.Fatal("no configuration")
		}
		for id := range uint64(3) {
			for _, typ := range []raftpb.ConfChangeType{raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeAddNode, raftpb.ConfChangeRemoveNode} {
				m.change(typ, id, confContext{PeerURL: "http://127.0.0.1:9"})
			}
			m.register(id, Incarnation{1}, Attributes{})
		}
		if !bytes.Equal(m.encode(), encoded) {
			t.Fatal("a change altered the records it began with")
		}
	})
}
