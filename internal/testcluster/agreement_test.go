package testcluster

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/slow"
)

// tamper changes the state hash in the store of a node that does not run, as if it
// had applied something else.
func tamper(t *testing.T, c *Cluster, id uint64) {
	t.Helper()
	s, err := chat.OpenStore(filepath.Join(c.dir, fmt.Sprint("node-", id), "store"), chat.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	err = s.Snapshot(func(_ uint64, _ []byte, w io.WriterTo) error {
		_, err := w.WriteTo(&content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// The first record: the lengths of key and value, a byte each, the key, and the
	// counters, of which the hash is the last.
	b, head := content.Bytes(), len("rcstore")+1
	b[head+2+int(b[head])+int(b[head+1])-1]++
	if err := s.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A replica whose state is not that of the others stops with the remedy, and they
// go on; put in its place, a new member is whole.
func TestReplicaThatDiffersIsTakenOut(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "before"})
	c.Agree()
	for _, id := range c.Running() {
		Eventually(t, "the nodes to have compared their states", func() error {
			if index, differing, alarm := c.Server(id).Node().StateAgreement(); index == 0 || differing != 0 || alarm != "" {
				return fmt.Errorf("node %d: index %d, %d differ, %q", id, index, differing, alarm)
			}
			return nil
		})
	}
	c.Stop(3)
	tamper(t, c, 3)
	c.Start(3)
	select {
	case <-c.Server(3).Done():
	case <-time.After(patience):
		t.Fatal("the node goes on")
	}
	if err := c.Server(3).Err(); err == nil || !strings.Contains(err.Error(), "majority of the voters") || !strings.Contains(err.Error(), "members replace 3") {
		t.Errorf("it stops with %v", err)
	}
	c.Stop(3)
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "after"})
	c.Agree()
	Eventually(t, "the removal", func() error { return c.Client().RemoveMember(t.Context(), c.URL(1), 3) })
	c.Add(1, 4)
	c.Agree()
}

// Of two voters none is right: both say so, and go on.
func TestTwoReplicasThatDifferGoOn(t *testing.T) {
	slow.Test(t)
	c := New(t, 1, nil)
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "before"})
	c.Add(1, 2)
	Eventually(t, "two voters", func() error {
		for _, m := range c.Server(1).Node().MemberStatus(t.Context()) {
			if m.Role == "learner" {
				return fmt.Errorf("member %d is a learner", m.ID)
			}
		}
		return nil
	})
	c.Stop(2)
	tamper(t, c, 2)
	c.Start(2)
	for _, id := range c.Running() {
		Eventually(t, "the alarm", func() error {
			if _, differing, alarm := c.Server(id).Node().StateAgreement(); differing != 1 || !strings.Contains(alarm, "no majority") {
				return fmt.Errorf("node %d: %d differ, %q", id, differing, alarm)
			}
			return nil
		})
		for path, want := range map[string]string{"/readyz": "ok\nalarm: members hold different states", "/health": `"alarm":"members hold different states`, "/metrics": "\nraft_chat_state_disagreeing_members 1\n"} {
			Eventually(t, path, func() error {
				_, body, err := c.Client().Do(t.Context(), http.MethodGet, c.URL(id)+path, "")
				if err == nil && !strings.Contains(string(body), want) {
					err = fmt.Errorf("%s", body)
				}
				return err
			})
		}
	}
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "after"})
}
