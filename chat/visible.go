package chat

import (
	"cmp"
	"fmt"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/runenames"
)

// What of a text can be seen. Two names that differ only in what cannot would be
// two rooms, or two people, that look the same.

const (
	nonJoiner  = '\u200c' // ZWNJ
	joiner     = '\u200d' // ZWJ
	emojiStyle = '\ufe0f' // VS16
	keycap     = '\u20e3'
	blackFlag  = '\U0001f3f4'
)

// pictographs are what an emoji can begin with. The blocks hold signs that are
// no emoji too: how a font shows those does not matter here, only that it does.
var pictographs = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x00a9, Hi: 0x00a9, Stride: 1}, {Lo: 0x00ae, Hi: 0x00ae, Stride: 1}, {Lo: 0x203c, Hi: 0x203c, Stride: 1},
		{Lo: 0x2049, Hi: 0x2049, Stride: 1}, {Lo: 0x2122, Hi: 0x2122, Stride: 1}, {Lo: 0x2139, Hi: 0x2139, Stride: 1},
		{Lo: 0x2194, Hi: 0x21aa, Stride: 1}, {Lo: 0x231a, Hi: 0x23ff, Stride: 1}, {Lo: 0x24c2, Hi: 0x24c2, Stride: 1},
		{Lo: 0x25aa, Hi: 0x27bf, Stride: 1}, {Lo: 0x2934, Hi: 0x2935, Stride: 1}, {Lo: 0x2b05, Hi: 0x2b55, Stride: 1},
		{Lo: 0x3030, Hi: 0x3030, Stride: 1}, {Lo: 0x303d, Hi: 0x303d, Stride: 1}, {Lo: 0x3297, Hi: 0x3299, Stride: 2},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f000, Hi: 0x1f1e5, Stride: 1}, {Lo: 0x1f200, Hi: 0x1f3fa, Stride: 1}, {Lo: 0x1f400, Hi: 0x1faff, Stride: 1},
	},
	LatinOffset: 2,
}

// blanks are characters that Unicode does not call white space or ignorable and
// that nevertheless show nothing.
var blanks = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}, {Lo: 0xfffc, Hi: 0xfffc, Stride: 1}},
	R32: []unicode.Range32{
		{Lo: 0x13441, Hi: 0x13442, Stride: 1}, {Lo: 0x16fe4, Hi: 0x16fe4, Stride: 1}, {Lo: 0x1d159, Hi: 0x1d159, Stride: 1},
	},
}

// hidden reports whether r by itself shows nothing although it is neither white
// space nor a control character: what a renderer may ignore (Unicode's
// Default_Ignorable_Code_Point), other format characters, and blanks.
func hidden(r rune) bool {
	return r > unicode.MaxASCII && !unicode.Is(unicode.Prepended_Concatenation_Mark, r) &&
		unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point, blanks)
}

// blank reports whether a payload is text that shows nothing: white space and
// hidden characters only. Other control characters are somebody's data.
func blank(payload []byte) bool {
	for i := 0; i < len(payload); {
		r, size := utf8.DecodeRune(payload[i:])
		if r == utf8.RuneError && size == 1 || !unicode.IsSpace(r) && !hidden(r) {
			return false
		}
		i += size
	}
	return true
}

// emojiAt returns the length in bytes of the emoji that s begins with, 0 if it
// begins with none. Within one, U+FE0F and U+200D change what is seen.
func emojiAt(s string) int {
	if len(s) > 0 && (s[0] >= '0' && s[0] <= '9' || s[0] == '#' || s[0] == '*') {
		if end := string([]rune{emojiStyle, keycap}); strings.HasPrefix(s[1:], end) {
			return 1 + len(end)
		}
		return 0
	}
	end := 0
	for i := 0; ; {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !unicode.Is(pictographs, r) {
			return end
		}
		i += size
		if r == blackFlag {
			i += regionAt(s[i:])
		}
		if r, size = utf8.DecodeRuneInString(s[i:]); r == emojiStyle || r >= 0x1f3fb && r <= 0x1f3ff { // or a skin tone
			i += size
		}
		end = i
		if r, size = utf8.DecodeRuneInString(s[i:]); r != joiner {
			return end
		}
		i += size
	}
}

// regionAt returns the length in bytes of the tags that make a black flag one of
// the three regional flags that Unicode recommends.
func regionAt(s string) int {
	for _, region := range [...]string{"gbeng", "gbsct", "gbwls"} {
		var tags strings.Builder
		for _, c := range region {
			tags.WriteRune(0xe0000 + c)
		}
		tags.WriteRune(0xe007f)
		if strings.HasPrefix(s, tags.String()) {
			return tags.Len()
		}
	}
	return 0
}

// joins reports whether the zero width (non-)joiner at s[at:] changes what is
// seen, by the rules CONTEXTJ of RFC 5892: in Arabic scripts between letters that
// would join, in Indic ones behind a virama.
func joins(s string, at, size int) bool {
	outside := func(r rune) bool { return !unicode.In(r, unicode.L, unicode.M) && r != joiner && r != nonJoiner }
	from := strings.LastIndexFunc(s[:at], outside)
	if from < 0 {
		from = 0
	} else {
		_, n := utf8.DecodeRuneInString(s[from:])
		from += n
	}
	to := strings.IndexFunc(s[at+size:], outside)
	if to < 0 {
		to = len(s)
	} else {
		to += at + size
	}
	_, err := idna.New(idna.CheckJoiners(true)).ToUnicode(s[from:to])
	return err == nil
}

// unit returns the length in bytes of the emoji or the character at s[at:], and
// whether it can be seen; white space can.
func unit(s string, at int) (size int, shown bool) {
	if n := emojiAt(s[at:]); n > 0 {
		return n, true
	}
	r, size := utf8.DecodeRuneInString(s[at:])
	if r == joiner || r == nonJoiner {
		return size, joins(s, at, size)
	}
	return size, !hidden(r)
}

// Unfit yields the start and the end, in bytes, of everything that keeps a text
// from being a new name because it cannot be seen or told apart: hidden
// characters, white space at the ends, doubled, or other than U+0020, and
// combining marks that have nothing to combine with.
func Unfit(name string) iter.Seq2[int, int] {
	return func(yield func(start, end int) bool) {
		space := true // in front of at is a space, or nothing
		for at := 0; at < len(name); {
			size, shown := unit(name, at)
			r, _ := utf8.DecodeRuneInString(name[at:])
			fit := shown
			switch {
			case r == ' ':
				fit = !space && at+size < len(name)
			case unicode.Is(unicode.Z, r) || space && unicode.Is(unicode.M, r):
				fit = false
			}
			if !fit && !yield(at, at+size) {
				return
			}
			space = r == ' '
			at += size
		}
	}
}

// NameFault says why a text in which Unfit finds something cannot be a new name,
// beginning with "must"; "" if it can, as far as that is concerned.
func NameFault(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII }) {
		return ""
	}
	for start := range Unfit(name) {
		r, _ := utf8.DecodeRuneInString(name[start:])
		place := fmt.Sprintf("U+%04X %s (character %d)", r, cmp.Or(runenames.Name(r), "NO CHARACTER"), utf8.RuneCountInString(name[:start])+1)
		switch {
		case r == ' ':
			return "must not begin or end with a space, or hold two in a row"
		case unicode.Is(unicode.Z, r):
			return "must not hold " + place + ": the only space in a name is U+0020"
		case unicode.Is(unicode.M, r) && !hidden(r):
			return "must not hold " + place + " without a letter in front of it"
		}
		return "must not hold " + place + ", which does not show there"
	}
	return ""
}
