package httpapi

import (
	"net/http"
	"strconv"
	"strings"
)

// varyByPage is what wantsHTML looks at, for caches.
const varyByPage = "Accept, Sec-Fetch-Dest"

// wantsHTML reports whether a request is a browser's navigation, which gets the web client, and not a program's, which
// gets JSON: it says that the answer becomes a document, or accepts XHTML, as all browsers do and no program. HTML alone
// is no sign: older Java and other libraries ask for it unless they are told otherwise. A JSON type that is preferred wins.
func wantsHTML(r *http.Request) bool {
	html, other := -1.0, -1.0 // weights; -1: not named
	htmlFirst, browser := false, r.Header.Get("Sec-Fetch-Dest") == "document"
	for _, header := range r.Header["Accept"] {
		for item := range strings.SplitSeq(header, ",") {
			name, params, _ := strings.Cut(item, ";")
			switch name = strings.ToLower(strings.TrimSpace(name)); name {
			case "text/html", "application/xhtml+xml":
				if html < 0 {
					htmlFirst = other < 0
				}
				q := weight(params)
				html = max(html, q)
				browser = browser || name == "application/xhtml+xml" && q > 0
			case "application/json", "application/*":
				other = max(other, weight(params))
			}
		}
	}
	if html < 0 && other < 0 {
		return browser
	}
	return browser && html > 0 && (html > other || html == other && htmlFirst)
}

// weight returns the q parameter of an item of Accept, from 0 to 1; 1 when there is none, 0 when it cannot be read.
func weight(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}
