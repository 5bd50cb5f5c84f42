package oracle

import (
	"fmt"
	"unicode/utf8"
)

// Message is one message as somebody sent or saw it.
type Message struct {
	Room     string
	Seq, ID  uint64 // 0 before it is stored
	User     string
	Body     string // payload bytes
	ClientID string // client message id; unique in its room for each message ever meant to be sent
	PostedUS int64  // µs since 1970; 0 before it is stored
}

// String gives the message in one short line.
func (m Message) String() string {
	return fmt.Sprintf("%s/%d (ID %d, client id %s, at %d) %s: %q", m.Room, m.Seq, m.ID, m.ClientID, m.PostedUS, m.User, clipped(m.Body))
}

// clipped keeps a large body out of a report.
func clipped(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// agrees reports whether two views of one message can both be true. What only
// one of them knows is not compared.
func (m Message) agrees(other Message) bool {
	return m.Room == other.Room && m.Seq == other.Seq && m.User == other.User && m.Body == other.Body &&
		(m.ID == other.ID || m.ID == 0 || other.ID == 0) &&
		(m.PostedUS == other.PostedUS || m.PostedUS == 0 || other.PostedUS == 0) &&
		(m.ClientID == other.ClientID || m.ClientID == "" || other.ClientID == "")
}

// learn fills in what only the other view knows.
func (m *Message) learn(other Message) {
	if m.ID == 0 {
		m.ID = other.ID
	}
	if m.PostedUS == 0 {
		m.PostedUS = other.PostedUS
	}
	if m.ClientID == "" {
		m.ClientID = other.ClientID
	}
}

// Violation is one broken rule.
type Violation struct {
	Rule   string // "O1" to "O6"
	Detail string
}

// String gives both in one line.
func (v Violation) String() string { return v.Rule + ": " + v.Detail }

// mostPerRule is how many violations of one rule are spelled out. More of the
// same does not help.
const mostPerRule = 20

// findings is a bounded list of violations.
type findings struct {
	list   []Violation
	counts [len(rules)]int
}

var rules = [...]string{"O1", "O2", "O3", "O4", "O5", "O6"}

// rule is an index of rules.
type rule int

const (
	o1 rule = iota
	o2
	o3
	o4
	o5
	o6
)

func (f *findings) add(r rule, format string, args ...any) {
	f.counts[r]++
	if f.counts[r] <= mostPerRule {
		f.list = append(f.list, Violation{rules[r], fmt.Sprintf(format, args...)})
	}
}

// report lists the violations, with a last one for each rule that has more.
func (f *findings) report() []Violation {
	list := append([]Violation(nil), f.list...)
	for r, n := range f.counts {
		if n > mostPerRule {
			list = append(list, Violation{rules[r], fmt.Sprint("and ", n-mostPerRule, " more")})
		}
	}
	return list
}

// clone makes a copy that can grow alone.
func (f *findings) clone() findings {
	return findings{append([]Violation(nil), f.list...), f.counts}
}
