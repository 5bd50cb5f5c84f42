package httpapi

import (
	"net/http"
	"strconv"
	"strings"
)

// wantsHTML reports whether a request prefers the web client over JSON: its Accept header names HTML, and no JSON type
// before it or with a higher weight. A wildcard alone, which is what curl and fetch send, means JSON.
func wantsHTML(r *http.Request) bool {
	html, other := -1.0, -1.0
	htmlFirst := false
	for _, header := range r.Header["Accept"] {
		for item := range strings.SplitSeq(header, ",") {
			name, params, _ := strings.Cut(item, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "text/html", "application/xhtml+xml":
				if html < 0 {
					htmlFirst = other < 0
				}
				html = max(html, weight(params))
			case "application/json", "application/*":
				other = max(other, weight(params))
			}
		}
	}
	return html > 0 && (html > other || html == other && htmlFirst)
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
