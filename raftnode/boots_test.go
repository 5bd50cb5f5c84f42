package raftnode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBootList(t *testing.T) {
	var l BootList
	for i := range BootID(maxBoots + 3) {
		before := slices.Clone(l)
		next := l.With(i + 1)
		if !slices.Equal(l, before) {
			t.Fatal("With changes the list")
		}
		l = next
	}
	if len(l) != maxBoots || l[0] != 4 || l[maxBoots-1] != maxBoots+3 || l.Has(3) || !l.Has(4) || !l.Has(0) {
		t.Errorf("%d starts from %d to %d", len(l), l[0], l[len(l)-1])
	}
	for _, want := range []BootList{nil, {1}, l, {1 << 63, 2}} {
		b, err := json.Marshal(want)
		var got BootList
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", b, got, err)
		}
	}
	if b, _ := json.Marshal(helloRequest{Starts: l, PeerURL: "http://" + strings.Repeat("a", 600)}); len(b) > maxRequestBytes/2 {
		t.Errorf("a hello takes %d of %d bytes", len(b), maxRequestBytes)
	}
	long, _ := append(l, 9).MarshalText()
	for name, text := range map[string]string{"no base64": "?", "half of a start": "AAAA", "a start that is zero": "AAAAAAAAAAA=", "too many": string(long), "a line break": "AAAAAAAA\nAAE="} {
		if err := new(BootList).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if a, b := newBootID(), newBootID(); a == b {
		t.Error("two starts have one name")
	}
}

func TestMeetingMembers(t *testing.T) {
	met := Met{2: 20, 3: 30, 4: 40}
	isFour := func(id uint64) bool { return id == 4 }
	for _, tt := range []struct {
		name   string
		id     uint64
		starts BootList
		older  bool
		want   Met // nil: no news
	}{
		{"the start that was met", 2, BootList{19, 20}, false, nil},
		{"a later one, of a member that is put back itself or was away", 2, BootList{20, 21, 22}, false, Met{2: 22, 3: 30}},
		{"a copy from before", 2, BootList{18, 19}, true, nil},
		{"a copy from before that was started", 2, BootList{19, 21}, true, nil},
		{"a directory without starts", 2, nil, true, nil},
		{"nobody met yet", 5, BootList{50}, false, Met{2: 20, 3: 30, 5: 50}},
		{"nobody met yet, without starts", 5, nil, false, nil},
		// It was away for longer than the list reaches: refused, and told why.
		{"too many starts later", 2, slices.Repeat(BootList{7}, maxBoots), true, nil},
	} {
		before := maps.Clone(met)
		if got := met.Older(tt.id, tt.starts); got != tt.older {
			t.Errorf("%s: older is %v", tt.name, got)
		}
		next, news := met.Meet(tt.id, tt.starts, isFour)
		want := tt.want
		if want == nil {
			want = met
		}
		if news != (tt.want != nil) || !maps.Equal(next, want) || !maps.Equal(met, before) {
			t.Errorf("%s: %v, news is %v", tt.name, next, news)
		}
	}
}

func TestDamagedMetFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	if m, err := loadMet(dir); len(m) != 0 || err != nil {
		t.Fatal("a directory of before", m, err)
	}
	want := Met{2: 20, 3: 1 << 63}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, metFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loadMet(dir); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadMet(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range whole {
		refused(fmt.Sprint("cut at ", n), whole[:n])
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, n), b)
		}
	}
	for _, body := range []string{"", "x", "{}", `{"version":2}`, `{"version":1,"more":1}`, `{"version":1,"members":[{"id":0,"boot":1}]}`,
		`{"version":1,"members":[{"id":1,"boot":0}]}`, `{"version":1,"members":[{"id":1,"boot":1},{"id":1,"boot":2}]}`} {
		refused(body, seal([]byte(body)))
	}

	// A node does not start either.
	c := newTestCluster(t, 1)
	c.start(1)
	c.stop(1)
	path = filepath.Join(c.memberDir(1), metFile)
	if err := os.WriteFile(path, whole[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(1); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("open: %v", err)
	}
}

// FuzzMet: what is read can be written and read again; nothing else is taken.
func FuzzMet(f *testing.F) {
	b, err := Met{2: 20, 3: 30}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[4:], true)
	f.Add(b, false)
	f.Add([]byte(`{"version":1,"members":[{"id":1,"boot":1},{"id":1,"boot":2}]}`), true)
	f.Add([]byte("null"), true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum {
			b = seal(b)
		}
		m, err := decodeMet(b)
		if err != nil {
			return
		}
		if b, err = m.encode(); err != nil {
			t.Fatal(err)
		}
		if again, err := decodeMet(b); err != nil || !maps.Equal(again, m) || m[0] != 0 {
			t.Fatalf("%v became %v, %v", m, again, err)
		}
	})
}

// FuzzBootList: a list from outside is refused, or is one that a directory can have.
func FuzzBootList(f *testing.F) {
	text, err := BootList{1, 2, 1 << 63}.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("AAAAAAAAAAA="))
	f.Fuzz(func(t *testing.T, text []byte) {
		var l BootList
		if l.UnmarshalText(text) != nil {
			return
		}
		again, err := l.MarshalText()
		if err != nil || !bytes.Equal(again, text) || len(l) > maxBoots || slices.Contains(l, 0) {
			t.Fatalf("%q is %v, %v", text, l, err)
		}
	})
}

// Wherever a crash hits, between a start that is named and the file of the member
// that has met it: what was there is admitted, and a copy from before is refused
// from the moment on at which a raft message can have passed.
func TestCrashBetweenAStartAndItsMeeting(t *testing.T) {
	never := func(uint64) bool { return false }
	for crash := range 5 {
		own, other := t.TempDir(), t.TempDir()
		id := testIdentity()
		old := id.Starts
		steps := []func() error{
			func() error { return os.WriteFile(filepath.Join(own, identityFile+".tmp"), []byte("half"), 0o600) },
			func() error { return id.begin(own) },
			func() error { return os.WriteFile(filepath.Join(other, metFile+".tmp"), []byte("half"), 0o600) },
			func() error {
				met, _ := Met{3: old[len(old)-1]}.Meet(3, id.Starts, never)
				return met.save(other)
			},
		}
		if err := errors.Join(testIdentity().save(own), Met{3: old[len(old)-1]}.save(other)); err != nil {
			t.Fatal(err)
		}
		for _, step := range steps[:crash] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		again, err := loadIdentity(own)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.begin(own); err != nil {
			t.Fatal(err)
		}
		met, err := loadMet(other)
		if err != nil || met.Older(3, again.Starts) {
			t.Errorf("a crash after %d steps: the member is refused: %v, %v of %v", crash, err, met, again.Starts)
		}
		copied := testIdentity() // put back to what it was before the start
		copied.Starts = copied.Starts.With(newBootID())
		if got := met.Older(3, copied.Starts); got != (crash == len(steps)) {
			t.Errorf("a crash after %d steps: that a copy is older is %v", crash, got)
		}
	}
}

// copyDir copies a data directory, whose node does not run.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func swapDir(t *testing.T, dir, with string) (was string) {
	t.Helper()
	was = filepath.Join(t.TempDir(), "was")
	if err := errors.Join(os.Rename(dir, was), os.Rename(with, dir)); err != nil {
		t.Fatal(err)
	}
	return was
}

func (c *testCluster) awaitOlderCopy(id uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("member %d to be refused", id), func() bool { return c.nodes[id].Err() != nil })
	var refused *IdentityError
	if err := c.nodes[id].Err(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "older copy") || !strings.Contains(err.Error(), fmt.Sprint("members replace ", id)) || !strings.Contains(err.Error(), c.memberDir(id)) {
		c.t.Errorf("member %d stops with %v", id, err)
	}
	c.stop(id)
}

// A directory that was put back to an older copy is refused by every member that
// met the newer one, also after that has been started again, and the newer one is
// let in again.
func TestOlderCopyOfADirectoryIsRefused(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 3)
	c.startAll()
	c.mustPropose(c.leader(), "before")
	c.agree(1)
	c.stop(3)
	old := copyDir(t, c.memberDir(3))
	c.start(3)
	c.mustPropose(3, "later")
	c.agree(2)
	c.stop(3)
	newest := swapDir(t, c.memberDir(3), old)
	c.start(3)
	c.awaitOlderCopy(3)

	for _, id := range []uint64{1, 2} {
		c.stop(id)
		c.start(id)
	}
	c.start(3)
	c.awaitOlderCopy(3)
	c.mustPropose(c.leader(), "without it")

	swapDir(t, c.memberDir(3), newest)
	c.start(3)
	c.agree(3)
}

// Who has not met the newer directory cannot know; who has met it ends the copy as
// soon as the two meet, whichever of them greets.
func TestCopyEndsWhenItMeetsWhoeverKnows(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 3)
	c.startAll()
	c.mustPropose(c.leader(), "before")
	c.agree(1)
	c.stop(3)
	old := copyDir(t, c.memberDir(3))
	c.stop(2)
	c.start(3) // only member 1 meets this start
	c.mustPropose(3, "acknowledged by 1 and 3")
	c.stop(1)
	c.stop(3)
	swapDir(t, c.memberDir(3), old)
	c.start(2, 3)
	eventually(t, "2 and the copy to meet", func() bool { return c.nodes[2].peers.accepted(3) && c.nodes[3].peers.accepted(2) })
	c.start(1)
	c.awaitOlderCopy(3)
	if c.nodes[1].Err() != nil || c.nodes[2].Err() != nil {
		t.Error("another member stopped:", c.nodes[1].Err(), c.nodes[2].Err())
	}
}

// What answers at a member's address is let in with the starts that it shows, in a
// hello, in its answer to one, and in a call back.
func TestCopyAtAMembersAddress(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	hello := func(q helloRequest) (status int, code string) {
		w := postTo(n, helloPath, mustJSON(t, q))
		var refusal callError
		_ = json.Unmarshal(w.Body.Bytes(), &refusal) // an answer has no code
		return w.Code, refusal.Code
	}
	m.shows.Store(&BootList{1, 2})
	m.Secret = newSecret()
	eventually(t, "the second start to be met", func() bool {
		status, _ := hello(m.hello())
		return status == http.StatusOK
	})
	if met, err := loadMet(n.cfg.Dir); err != nil || met[2] != 2 {
		t.Fatalf("noted is %v, %v", met, err)
	}
	for name, starts := range map[string]BootList{"the copy": {1}, "the copy, started": {1, 3}, "a fresh directory": nil} {
		q := m.hello()
		q.Starts = starts
		if status, code := hello(q); status != http.StatusConflict || code != codeOlderCopy {
			t.Errorf("%s: %d %s", name, status, code)
		}
	}
	// Another process under the same address, with a secret of its own, whose hello
	// says what it likes.
	honest := m.hello()
	m.shows.Store(&BootList{1, 3})
	m.Secret = newSecret()
	honest.Secret = m.Secret
	before := m.callBacks.Load()
	eventually(t, "a call back", func() bool {
		if status, code := hello(honest); status != http.StatusServiceUnavailable || code != codeUnconfirmed {
			t.Fatalf("%d %s", status, code)
		}
		return m.callBacks.Load() > before+1
	})
	// Whom this node greets.
	x, _ := n.peers.holds(2, secret{})
	if err := n.peers.hello(t.Context(), x); err == nil || n.peers.final(x, err) || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("the answer of a copy: %v", err)
	}

	// And what a confirmed member says of this node's own directory.
	m.shows.Store(&BootList{1, 2})
	m.Secret = newSecret()
	q := m.hello()
	q.ExpectedStart = n.identity.Starts[0]
	eventually(t, "the member to be confirmed again", func() bool {
		status, _ := hello(q)
		return status == http.StatusOK
	})
	q.ExpectedStart = 99
	strange := q
	strange.Secret = newSecret()
	hello(strange)
	if err := n.Err(); err != nil {
		t.Fatalf("stopped by a stranger: %v", err)
	}
	hello(q)
	var refused *IdentityError
	if err := n.Err(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("told that a later start was met, the node ends with %v", err)
	}
}

// A member is not let in while what was met cannot be written, and is afterwards.
func TestMemberWaitsUntilItIsNoted(t *testing.T) {
	n := openLone(t)
	blocked := filepath.Join(n.cfg.Dir, metFile+".tmp")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.peers.noteStart(2, BootList{1}); err == nil {
		t.Error("noted without a file")
	}
	if got := n.peers.metLast(2); got != 0 {
		t.Error("counts as met:", got)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if err := n.peers.noteStart(2, BootList{1}); err != nil {
		t.Error(err)
	}
	if met, err := loadMet(n.cfg.Dir); err != nil || met[2] != 1 {
		t.Error(met, err)
	}
	if n.Err() != nil {
		t.Error(n.Err())
	}
}
