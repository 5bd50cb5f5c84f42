package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/raft-chat/raft-chat/web"
)

// contentSecurityPolicy lets the page load its own files and talk to its own host, and nothing else.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// getClient answers with the page of the web client; the page finds the room in its own URL.
func (s *Server) getClient(w http.ResponseWriter, r *http.Request) *problem {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	s.serveAsset(w, r, s.client.Index())
	return nil
}

// getAsset is GET /_/{asset}: the files that the page loads.
func (s *Server) getAsset(w http.ResponseWriter, r *http.Request) *problem {
	name, _ := pathParam(r, "asset")
	asset, ok := s.client.Asset(name)
	if !ok {
		return newProblem(codeNotFound, "the web client has no such file")
	}
	s.serveAsset(w, r, asset)
	return nil
}

// serveAsset answers with a file, or with 304 to a client that has it.
func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request, asset web.Asset) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", asset.ETag)
	if hasETag(r.Header["If-None-Match"], asset.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", asset.Type)
	h.Set("Content-Length", strconv.Itoa(len(asset.Body)))
	w.WriteHeader(http.StatusOK)
	s.writeSteps(w, asset.Body)
}

// hasETag reports whether If-None-Match names a tag; a weak tag is as good as a strong one there (RFC 9110, 13.1.2).
func hasETag(header []string, tag string) bool {
	for _, line := range header {
		for item := range strings.SplitSeq(line, ",") {
			item = strings.TrimSpace(item)
			if item == "*" || strings.TrimPrefix(item, "W/") == tag {
				return true
			}
		}
	}
	return false
}
