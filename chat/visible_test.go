package chat

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestNamesThatShow(t *testing.T) {
	for _, name := range []string{
		"general", "a b", "x", "...", "#1", "caf\u00e9", "\u540d\u524d", "\u05e9\u05dc\u05d5\u05dd", "a\u0301b\u0323\u0307", "\u0600\u0661", // an Arabic number sign shows
		"\U0001f680", "\u2764\ufe0f", "\u2764", "\u26a1\ufe0f", "1\ufe0f\u20e3", "#\ufe0f\u20e3", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea",
		"\U0001f468\u200d\U0001f469\u200d\U0001f467 home", "\U0001f575\U0001f3fd\u200d\u2642\ufe0f", "\U0001f3f4\u200d\u2620\ufe0f",
		"\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
		"\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",                                       // Persian, "I want"
		"\u0915\u094d\u200d\u0937", "\u0915\u094d\u200c\u0937", "\u0dc1\u0dca\u200d\u0dbb\u0dd3", // Devanagari, Sinhala "Sri"
		"\ue0b0", "\ufffd", "\U000323b0", // private use, a replacement, one that this build may not know
	} {
		if why := NameFault(name); why != "" {
			t.Errorf("%+q %s", name, why)
		}
	}
}

func TestNamesThatHide(t *testing.T) {
	for _, test := range []struct{ name, why string }{
		{" ", "space"}, {"   ", "space"}, {" general", "space"}, {"general ", "space"}, {"a  b", "two in a row"},
		{"\u00a0", "U+00A0 NO-BREAK SPACE (character 1)"}, {"a\u00a0b", "U+00A0 NO-BREAK SPACE (character 2)"}, {"a\u3000b", "U+3000 IDEOGRAPHIC SPACE"},
		{"a\u2003b", "U+2003 EM SPACE"}, {"a\u202fb", "U+202F"}, {"a\u205fb", "U+205F"}, {"a\u1680b", "U+1680"}, {"a\u2028b", "U+2028 LINE SEPARATOR"}, {"a\u2029b", "U+2029"},
		{"\u200b", "U+200B ZERO WIDTH SPACE (character 1)"}, {"general\u200b", "U+200B ZERO WIDTH SPACE (character 8)"}, {"caf\u00e9\u200b", "(character 5)"},
		{"gen\u200ceral", "U+200C ZERO WIDTH NON-JOINER"}, {"gen\u200deral", "U+200D ZERO WIDTH JOINER"}, {"\u200d", "U+200D"}, {"\u540d\u200d\u524d", "U+200D"},
		{"gen\u00aderal", "U+00AD SOFT HYPHEN"}, {"\ufeffgeneral", "U+FEFF ZERO WIDTH NO-BREAK SPACE"}, {"a\u2060b", "U+2060 WORD JOINER"}, {"a\u2063b", "U+2063"},
		{"a\u202eb", "U+202E RIGHT-TO-LEFT OVERRIDE"}, {"a\u200eb", "U+200E"}, {"a\u061cb", "U+061C"}, {"a\u2066b", "U+2066"}, {"a\u206ab", "U+206A"},
		{"a\ufe0f", "U+FE0F VARIATION SELECTOR-16"}, {"a\ufe00", "U+FE00"}, {"\u8fbb\U000e0100", "U+E0100"}, {"a\u180b", "U+180B"}, {"a\u180eb", "U+180E"},
		{"a\U000e0041", "U+E0041 TAG LATIN CAPITAL LETTER A"}, {"a\U000e0001", "U+E0001"}, {"\U0001f3f4\U000e0061\U000e007f", "U+E0061"},
		{"\u3164", "U+3164 HANGUL FILLER"}, {"\u115f", "U+115F"}, {"\u1160", "U+1160"}, {"\uffa0", "U+FFA0"}, {"a\u034fb", "U+034F"}, {"\u17b4", "U+17B4"},
		{"\u2800", "U+2800 BRAILLE PATTERN BLANK"}, {"a\ufffcb", "U+FFFC"}, {"a\ufff9b", "U+FFF9"}, {"\U0001d159", "U+1D159"}, {"\U00013441", "U+13441"}, {"\U0001d173", "U+1D173"},
		{"\uffff", "U+FFFF"}, {"\ufdd0", "U+FDD0"},
		{"\u0301a", "U+0301 COMBINING ACUTE ACCENT (character 1) without a letter"}, {"a \u0301", "without a letter"},
		{"\U0001f600\u200d", "U+200D"}, {"\u200d\U0001f600", "U+200D"}, {"\U0001f600\ufe0f\ufe0f", "(character 3)"}, {"\U0001f1e9\ufe0f", "U+FE0F"}, {"1\ufe0f", "U+FE0F"},
		{"\U0001f468\u200d\u200d\U0001f469", "U+200D"}, {"\u0627\u200c\u0628", "U+200C"}, // alef joins nothing that follows
		{"\u0645\u200c\u200c\u0645", "U+200C"}, {"\u0645\u200c", "U+200C"}, {"\u200c\u0645", "U+200C"},
	} {
		if why := NameFault(test.name); !strings.Contains(why, test.why) {
			t.Errorf("%+q: %q does not say %q", test.name, why, test.why)
		}
		if test.name == "." {
			continue
		}
		if _, err := newRoomName(test.name); CodeOf(err) != CodeRoomNameInvalid {
			t.Errorf("a new room %+q: %v", test.name, err)
		}
		if _, err := NormalizeRoomName(test.name); err != nil {
			t.Errorf("the room %+q of before: %v", test.name, err)
		}
		if _, err := NormalizeUserName(test.name); CodeOf(err) != CodeUserNameInvalid {
			t.Errorf("user %+q: %v", test.name, err)
		}
		if _, err := normalizeDisplayName(test.name); CodeOf(err) != CodeRoomNameInvalid {
			t.Errorf("display name %+q: %v", test.name, err)
		}
		if err := checkClientMessageID(test.name); CodeOf(err) != CodeClientMessageIDInvalid {
			t.Errorf("client message id %+q: %v", test.name, err)
		}
	}
}

func TestBlankMessages(t *testing.T) {
	for text, want := range map[string]bool{
		" ": true, "   ": true, "\n\t\r\v\f": true, "\u00a0\u3000\u2028\u0085": true, "\u200b\ufeff": true, "\u2800 \u3164": true, "\u202e\u202c": true, "\ufe0f": true, "\uffff": true,
		"x": false, "  x ": false, "\u0001": false, "\u0000": false, "\xff": false, " \xff": false, "\u0301": false, "\u200bx": false, "\U0001f600": false, "\ufffd": false, "\u0600": false,
	} {
		if got := blank([]byte(text)); got != want {
			t.Errorf("%+q: blank is %v", text, got)
		}
	}
}

// FuzzVisible: the units of a text are the text; a name without a fault is NFC
// stable, and taking what is hidden or doubled away leaves no fault that this
// could have made.
func FuzzVisible(f *testing.F) {
	for _, s := range []string{"", "general", " a  b ", "\U0001f468\u200d\U0001f469", "1\ufe0f\u20e3", "\u0645\u200c\u062e", "\u0915\u094d\u200d", "\u200b\u0301", "\xff\u200d", "xn--\u200d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		end, faults := 0, 0
		for from, to := range Unfit(text) {
			if from < end || to <= from || to > len(text) {
				t.Fatalf("%+q: %d to %d after %d", text, from, to, end)
			}
			end = to
			faults++
		}
		why := NameFault(text)
		if (why != "") != (faults > 0) || why != "" && !strings.HasPrefix(why, "must ") || !utf8.ValidString(why) {
			t.Fatalf("%+q: %d faults, %q", text, faults, why)
		}
		if !utf8.ValidString(text) {
			return
		}
		name, err := newRoomName(text)
		if err != nil {
			return
		}
		if again, err := newRoomName(name); err != nil || again != name || !norm.NFC.IsNormalString(name) {
			t.Fatalf("%+q became %+q, and that %+q: %v", text, name, again, err)
		}
		if blank([]byte(name)) {
			t.Fatalf("the name %+q shows nothing", name)
		}
		// No two names are told apart by one more ordinary invisible character.
		for _, r := range "\u200b\ufeff\u2060\u202e\u00ad" {
			for at := range name {
				if _, err := newRoomName(name[:at] + string(r) + name[at:]); err == nil {
					t.Fatalf("%+q with %U at %d is a name too", name, r, at)
				}
			}
		}
	})
}
