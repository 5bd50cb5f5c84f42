package main

import (
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/client"
)

// printable returns s on one line and without anything that could steer a
// terminal: control characters, line and paragraph separators and characters
// that change the direction of text are written as escapes (\n, \x1b, \u202e),
// bytes that are not UTF-8 as \xNN.
func printable(s string) string {
	if isHarmless(s) {
		return s
	}
	var b strings.Builder
	writePrintable(&b, s)
	return b.String()
}

// printableName is printable for names: what does not show in one or tells it
// apart by spaces only is an escape as well. The names of before have such.
func printableName(s string) string {
	var b strings.Builder
	done := 0
	for from, to := range chat.Unfit(s) {
		writePrintable(&b, s[done:from])
		r, _ := utf8.DecodeRuneInString(s[from:])
		writeEscaped(&b, r)
		done = to
	}
	if done == 0 {
		return printable(s)
	}
	writePrintable(&b, s[done:])
	return b.String()
}

func writePrintable(b *strings.Builder, s string) {
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x`)
			b.WriteByte("0123456789abcdef"[s[0]>>4])
			b.WriteByte("0123456789abcdef"[s[0]&15])
		case harmlessRune(r):
			b.WriteString(s[:size])
		default:
			writeEscaped(b, r)
		}
		s = s[size:]
	}
}

// writeEscaped writes a rune in ASCII.
func writeEscaped(b *strings.Builder, r rune) {
	switch quoted := strconv.QuoteRuneToASCII(r); {
	case r == ' ':
		b.WriteString(`\x20`)
	case unicode.In(r, unicode.Bidi_Control):
		// Quoting would pass some of these as they are.
		b.WriteString(`\u` + hex4(r))
	default:
		b.WriteString(quoted[1 : len(quoted)-1])
	}
}

func isHarmless(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !harmlessRune(r) })
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
