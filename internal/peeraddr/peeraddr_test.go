package peeraddr

import (
	"math"
	"strings"
	"testing"
)

func TestIDs(t *testing.T) {
	for id, ok := range map[uint64]bool{0: false, 1: true, 1 << 63: true, math.MaxUint64 - 2: true, math.MaxUint64 - 1: false, math.MaxUint64: false} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("%d: %v", id, err)
		}
	}
}

func TestURLsHaveOneText(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:12379":                   "http://127.0.0.1:12379",
		" http://127.0.0.1:12379/\n":               "http://127.0.0.1:12379",
		"HTTP://Node1.Example:012379":              "http://node1.example:12379",
		"http://node1.example.:1":                  "http://node1.example:1",
		"http://n_1-a:65535":                       "http://n_1-a:65535",
		"http://[::1]:1":                           "http://[::1]:1",
		"http://[0:0:0:0:0:0:0:1]:1":               "http://[::1]:1",
		"http://[::FFFF:127.0.0.1]:1":              "http://127.0.0.1:1",
		"http://[2001:DB8::0:1]:1":                 "http://[2001:db8::1]:1",
		"http://1and1.example:1":                   "http://1and1.example:1",
		"http://10.0.0.1.example:1":                "http://10.0.0.1.example:1",
		"http://3com:1":                            "http://3com:1",
		"http://" + strings.Repeat("a", 63) + ":1": "http://" + strings.Repeat("a", 63) + ":1",
	} {
		got, err := ParseURL(text)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if again, err := ParseURL(got); err != nil || again != got {
			t.Errorf("%q parsed again: %q, %v", got, again, err)
		}
	}
}

func TestURLsAreRefusedWithTheReason(t *testing.T) {
	for text, reason := range map[string]string{
		"":                          "no scheme",
		"127.0.0.1:1":               "no scheme",
		"https://127.0.0.1:1":       "TLS",
		"HTTPS://127.0.0.1:1":       "TLS",
		"ftp://127.0.0.1:1":         "not http",
		"http://127.0.0.1":          "no port",
		"http://[::1]":              "no port",
		"http://":                   "no port",
		"http://:1":                 "no host",
		"http://.:1":                "no host",
		"http://h:0":                "port",
		"http://h:+1":               "port",
		"http://h:65536":            "port",
		"http://h:1x":               "port",
		"http://h:":                 "port",
		"http://u@h:1":              "a user",
		"http://u:p@h:1":            "a user",
		"http://h:1/raft":           "a path",
		"http://h:1//":              "a path",
		"http://h:1?":               "a query",
		"http://h:1#":               "a fragment",
		`http://h\x:1`:              "a path",
		"http://::1:1":              "brackets",
		"http://[::1%25lo]:1":       "zone",
		"http://[::1%lo]:1":         "zone",
		"http://[127.0.0.1]:1":      "IPv6",
		"http://[::1:1":             "IPv6",
		"http://a b:1":              "letters",
		"http://a\"b:1":             "letters",
		"http://a%41:1":             "letters",
		"http://\xff:1":             "letters",
		"http://bücher:1":           "letters",
		"http://a..b:1":             "empty",
		"http://a:1\nhttp://b:2":    "a path",
		"http://127.1:1":            "four decimal numbers",
		"http://127.0.0.01:1":       "four decimal numbers",
		"http://2130706433:1":       "four decimal numbers",
		"http://0x7f.1:1":           "four decimal numbers",
		"http://127.0.0.0x1:1":      "four decimal numbers",
		"http://256.0.0.1:1":        "four decimal numbers",
		"http://0.0.0.0:1":          "others can reach",
		"http://[::]:1":             "others can reach",
		"http://[::ffff:0.0.0.0]:1": "others can reach",
		"http://224.0.0.1:1":        "others can reach",
		"http://" + strings.Repeat("a", 64) + ":1":   "63 bytes",
		"http://" + strings.Repeat("a.", 140) + ":1": "253 bytes",
		"http://" + strings.Repeat("a", 400) + ":1":  "300 bytes",
	} {
		got, err := ParseURL(text)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "http://HOST:PORT") {
			t.Errorf("%q: %q, %v; want an error with %q", text, got, err, reason)
		}
	}
}

func TestLoopback(t *testing.T) {
	for url, want := range map[string]bool{
		"http://127.0.0.1:1": true, "http://127.8.9.1:1": true, "http://localhost:1": true, "http://[::1]:1": true,
		"http://10.0.0.1:1": false, "http://node1:1": false, "http://localhost.example:1": false, "http://evil.invalid:1": false,
		"http://[2001:db8::1]:1": false, "http://127.0.0.1.example:1": false,
	} {
		if parsed, err := ParseURL(url); err != nil || parsed != url || Loopback(url) != want {
			t.Errorf("%s: %v, %v", url, Loopback(url), err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1:1", "HTTP://[::1]:080/", "http://a.:1", "https://a:1", "http://0x7f.1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		url, err := ParseURL(s)
		if err != nil {
			return
		}
		if again, err := ParseURL(url); err != nil || again != url {
			t.Fatalf("%q gives %q, and that %q, %v", s, url, again, err)
		}
		Loopback(url)
		for i := range len(url) {
			if c := url[i]; c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' {
				t.Fatalf("%q gives %q", s, url)
			}
		}
	})
}
