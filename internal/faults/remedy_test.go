//go:build linux

package faults

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCommandOf(t *testing.T) {
	r := &run{}
	got := r.commandOf("if it is lost, run `raft-chat members replace 1 --endpoints http://10.0.0.1:12380` and start what it prints. To found another, add --found-anyway")
	if want := []string{"members", "replace", "1", "--endpoints", "http://10.0.0.1:12380"}; !slices.Equal(got, want) {
		t.Errorf("the command is %q, want %q", got, want)
	}
	defer func() {
		if _, ok := recover().(failure); !ok {
			t.Error("a refusal without a command passes")
		}
	}()
	r.commandOf("start `raft-chat` again")
}

func TestPrintedNode(t *testing.T) {
	old := &node{id: 1, host: &host{addr: "10.0.0.1", disk: &disk{path: "/disk1"}}, peerURL: "http://10.0.0.1:12379", list: "1=http://10.0.0.1:12379", dir: "/disk1/data", out: true}
	printed := func(command string) string {
		return "member 1 is removed\nmember 4 is added, at http://10.0.0.1:12379\nstart it with an empty data directory:\n\n    raft-chat " + command + "\n"
	}
	const list = "2=http://10.0.0.2:12379,4=http://10.0.0.1:12379"
	n, err := printedNode(old, printed("--id 4 --cluster "+list+" --join --data-dir ./raft-chat-4"))
	if err != nil {
		t.Fatal(err)
	}
	if n.id != 4 || n.list != list || !n.join || n.out || n.dir != "/disk1/data4" || n.peerURL != old.peerURL {
		t.Errorf("the node is %+v", n)
	}
	for name, bad := range map[string]string{
		"nothing":         "member 1 is removed\n",
		"no list":         printed("--id 4 --join"),
		"not to join":     printed("--id 4 --cluster " + list),
		"the same id":     printed("--id 1 --cluster " + strings.Replace(list, "4=", "1=", 1) + " --join"),
		"another address": printed("--id 4 --cluster 2=http://10.0.0.2:12379,4=http://10.0.0.4:12379 --join"),
	} {
		if n, err := printedNode(old, bad); err == nil {
			t.Errorf("%s: gives %+v", name, n)
		}
	}
}

func TestStatusOf(t *testing.T) {
	if kb := statusOf(os.Getpid(), "VmHWM"); kb <= 0 {
		t.Errorf("this process used %d kB at most", kb)
	}
	if n := statusOf(os.Getpid(), "NoSuchThing"); n != 0 {
		t.Errorf("what the kernel does not tell is %d", n)
	}
}
