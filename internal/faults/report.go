//go:build linux

package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what a whole run found.
type Report struct {
	Began   time.Time
	Seconds float64
	Seed    uint64
	Long    bool
	Version string // of the program that was run
	Results []*Result
}

// Result is what one scenario found.
type Result struct {
	Name     string
	What     string
	Seed     uint64
	Rounds   int
	Seconds  float64
	Passed   bool
	Judged   bool   // the oracle had its say
	Reason   string `json:",omitempty"` // why it did not pass
	Logs     string `json:",omitempty"` // where the logs of a failed scenario are
	Counts   Counts
	Faults   map[string]int
	Refusals []string `json:",omitempty"` // what nodes said that refused, as they should
	Notes    []string `json:",omitempty"`

	Violations []string `json:",omitempty"`
}

// Counts is how much the oracle judged by.
type Counts struct {
	Sends, Acknowledged, Unknown, Refused int // messages
	Reads                                 int // linearizable
	Receipts                              int // deliveries to followers of streams
	Reconnects                            int // streams that were opened again
	Replicas, States                      int
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Verdict is the scenario's outcome in one word.
func (r *Result) Verdict() string {
	if r.Passed {
		return "passed"
	}
	return "FAILED"
}

// Line is what is printed when a scenario ends.
func (r *Result) Line() string {
	s := fmt.Sprintf("%-20s %s %4.0f s  %s; %d sent, %d acknowledged, %d unknown, %d reads, %d receipts, %d reconnects",
		r.Name, r.Verdict(), r.Seconds, faultList(r.Faults), r.Counts.Sends, r.Counts.Acknowledged, r.Counts.Unknown, r.Counts.Reads, r.Counts.Receipts, r.Counts.Reconnects)
	if r.Reason != "" {
		s += "\n    " + strings.ReplaceAll(r.Reason, "\n", "\n    ")
	}
	if r.Logs != "" {
		s += "\n    logs: " + r.Logs
	}
	return s
}

func faultList(faults map[string]int) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		list = append(list, fmt.Sprintf("%d × %s", faults[name], name))
	}
	if len(list) == 0 {
		return "no fault"
	}
	return strings.Join(list, ", ")
}

// Failed counts the scenarios that did not pass.
func (r *Report) Failed() (n int) {
	for _, result := range r.Results {
		if !result.Passed {
			n++
		}
	}
	return n
}

// WriteJSON writes everything.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// WriteMarkdown writes a table and, below it, what does not fit into one.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	form := "quick"
	if r.Long {
		form = "long"
	}
	fmt.Fprintf(&b, "# Faults on real processes\n\n%s, %s forms, seed %d, program %s, %.0f s: %d of %d scenarios passed.\n\n",
		r.Began.UTC().Format("2006-01-02 15:04 MST"), form, r.Seed, r.Version, r.Seconds, len(r.Results)-r.Failed(), len(r.Results))
	b.WriteString("| scenario | verdict | s | rounds | faults | sent | acknowledged | unknown | refused | reads | receipts | reconnects |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Results {
		c := s.Counts
		fmt.Fprintf(&b, "| %s | %s | %.0f | %d | %s | %d | %d | %d | %d | %d | %d | %d |\n", s.Name, s.Verdict(), s.Seconds, s.Rounds,
			cell(faultList(s.Faults)), c.Sends, c.Acknowledged, c.Unknown, c.Refused, c.Reads, c.Receipts, c.Reconnects)
	}
	for _, s := range r.Results {
		fmt.Fprintf(&b, "\n## %s\n\n%s Seed %d.\n", s.Name, s.What, s.Seed)
		if s.Reason != "" {
			fmt.Fprintf(&b, "\nFailed:\n\n%s\n", indented(s.Reason))
		}
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "\n%s.\n", note)
		}
		list(&b, "Broken rules", s.Violations)
		list(&b, "What nodes said when they refused", distinct(s.Refusals, 3))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func list(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, line := range lines {
		fmt.Fprintf(b, "\n%s\n", indented(line))
	}
}

// indented makes text that Markdown leaves as it is.
func indented(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

// cell keeps text inside of its column.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}

// distinct gives the first n different lines.
func distinct(lines []string, n int) (out []string) {
	for _, line := range lines {
		if len(out) < n && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}
