//go:build linux

package faults

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() *Report {
	return &Report{
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 61.4, Seed: 42, Version: "v1",
		Results: []*Result{
			{Name: "kill-one", What: "A node is killed.", Seed: 42, Rounds: 8, Seconds: 12.6, Passed: true, Judged: true,
				Counts: Counts{Sends: 100, Acknowledged: 97, Unknown: 2, Refused: 1, Reads: 50, Receipts: 600, Reconnects: 9, Replicas: 3, States: 6},
				Faults: map[string]int{"pause": 1, "kill -9": 8}, Notes: []string{"a note"},
				Refusals: []string{"no", "no", "never", "not now", "not at all"}},
			{Name: "pause", What: "A node is held.", Seed: 42, Seconds: 2, Reason: "the oracle found\n1 violation", Logs: "/tmp/x",
				Faults: map[string]int{}, Violations: []string{"O1: a|b is missing"}},
		},
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2026-01-02 03:04 UTC, quick forms, seed 42, program v1, 61 s: 1 of 2 scenarios passed.\n",
		"| kill-one | passed | 13 | 8 | 8 × kill -9, 1 × pause | 100 | 97 | 2 | 1 | 50 | 600 | 9 |\n",
		"| pause | FAILED | 2 | 0 | no fault | 0 |",
		"## pause\n\nA node is held. Seed 42.\n\nFailed:\n\n    the oracle found\n    1 violation\n",
		"\nBroken rules:\n\n    O1: a|b is missing\n",
		"\na note.\n",
		"\nWhat nodes said when they refused:\n\n    no\n\n    never\n\n    not now\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "not at all") {
		t.Error("the report has more than three refusals of one scenario")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if want := sample(); !reflect.DeepEqual(&back, want) {
		t.Errorf("the report is %+v when it is read again, want %+v", back, *want)
	}
}

func TestLine(t *testing.T) {
	r := sample()
	if line := r.Results[0].Line(); strings.Contains(line, "\n") || !strings.Contains(line, "kill-one") || !strings.Contains(line, "passed") || !strings.Contains(line, "97 acknowledged, 2 unknown") {
		t.Errorf("line of a scenario that passed: %q", line)
	}
	if line := r.Results[1].Line(); !strings.Contains(line, "FAILED") || !strings.Contains(line, "\n    1 violation") || !strings.Contains(line, "/tmp/x") {
		t.Errorf("line of a scenario that failed: %q", line)
	}
	if r.Failed() != 1 {
		t.Errorf("%d failed, want 1", r.Failed())
	}
}
