package main

import (
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/client"
)

// printable returns s on one line and without anything that could steer a
// terminal: control characters, line and paragraph separators and characters
// that change the direction of text are written as escapes (\n, \x1b, \u202e),
// bytes that are not UTF-8 as \xNN.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !harmlessRune(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x`)
			b.WriteByte("0123456789abcdef"[s[0]>>4])
			b.WriteByte("0123456789abcdef"[s[0]&15])
		case harmlessRune(r):
			b.WriteString(s[:size])
		case unicode.In(r, unicode.Bidi_Control):
			// Quoting would pass some of these as they are.
			b.WriteString(`\u` + hex4(r))
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

func harmlessRune(r rune) bool {
	return !unicode.IsControl(r) && !unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// hex4 writes a rune of the basic plane with four digits.
func hex4(r rune) string {
	s := strconv.FormatInt(int64(r), 16)
	return strings.Repeat("0", max(0, 4-len(s))) + s
}

// textOf returns what a message says; what is not text is shown as its bytes.
func textOf(m client.Message) string {
	if m.Payload != nil {
		return string(m.Payload)
	}
	return m.Text
}

// palette writes ANSI colours, or nothing at all.
type palette bool

func (p palette) paint(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) dim(s string) string  { return p.paint("2", s) }
func (p palette) bold(s string) string { return p.paint("1", s) }

// name gives everybody a colour of their own, the same in every run.
func (p palette) name(s string) string {
	h := fnv.New32a()
	h.Write([]byte(s))
	codes := [...]string{"31", "32", "33", "34", "35", "36", "91", "92", "94", "95", "96"}
	return p.paint(codes[h.Sum32()%uint32(len(codes))], s)
}
