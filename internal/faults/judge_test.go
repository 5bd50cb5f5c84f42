//go:build linux

package faults

import (
	"slices"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/workload"
)

func TestDefects(t *testing.T) {
	harmless := `{"level":"ERROR","msg":"node stopped","error":"write the log: input/output error"}
{"level":"WARN","msg":"disk is slow"}
raft-chat: data directory /x belongs to member 1
`
	if found := defects([]byte(harmless)); len(found) > 0 {
		t.Errorf("defects in a log without one: %q", found)
	}
	for _, line := range []string{
		"panic: runtime error: index out of range",
		"fatal error: concurrent map writes",
		"WARNING: DATA RACE",
		`{"level":"ERROR","msg":"node stopped","error":"raft: tocommit(261) is out of range [lastIndex(260)]"}`,
	} {
		if found := defects([]byte(harmless + line + "\n" + harmless)); !slices.Equal(found, []string{line}) {
			t.Errorf("defects are %q, want %q", found, line)
		}
	}
}

func TestJudgeRefusal(t *testing.T) {
	const dir = "/data/n1"
	for _, good := range []string{
		"the log is damaged: /data/n1/wal/0.wal at offset 8: x. Remove it and add it again under a new id",
		"the log in /data/n1/wal begins at snapshot 3, but its file is missing: bring it back, or replace the member",
	} {
		if err := judgeRefusal(good, dir); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"open highwater: no such file. Add it under a new id", "/data/n1/highwater: no such file", ""} {
		if judgeRefusal(bad, dir) == nil {
			t.Errorf("%q passes for a refusal that helps", bad)
		}
	}
}

func TestMissing(t *testing.T) {
	m := func(room string, seq uint64, text string) workload.Message {
		return workload.Message{Room: room, Seq: seq, ID: seq, User: "ann", Message: text, ClientMessageID: text}
	}
	truth := []workload.Message{m("a", 1, "x"), m("a", 2, "y"), m("b", 1, "z")}
	if err := missing(truth, append(slices.Clone(truth), m("b", 2, "more"))); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
	for name, stored := range map[string][]workload.Message{
		"one less":  truth[:2],
		"another":   {truth[0], m("a", 2, "not y"), truth[2]},
		"elsewhere": {truth[0], truth[1], m("b", 2, "z")},
		"nothing":   nil,
	} {
		if missing(truth, stored) == nil {
			t.Errorf("%s: nothing counts as missing", name)
		}
	}
}

func TestRuleset(t *testing.T) {
	h := &host{cut: map[int]bool{3: true, 2: true, 4: false}, loss: 30, rate: "1 mbytes/second"}
	rules := h.ruleset()
	for _, want := range []string{
		"ip saddr { 10.213.77.12, 10.213.77.13 } drop\n",
		"ip saddr != 10.213.77.1 numgen random mod 100 < 30 drop\n",
		"ip saddr != 10.213.77.1 limit rate over 1 mbytes/second drop\n",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("rules lack %q:\n%s", want, rules)
		}
	}
	if whole := (&host{}).ruleset(); strings.Contains(whole, "drop") {
		t.Errorf("a whole link drops packets:\n%s", whole)
	}
}
