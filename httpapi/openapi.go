package httpapi

import (
	"crypto/sha256"
	_ "embed" // for the document
	"encoding/base64"
	"net/http"

	"github.com/raft-chat/raft-chat/web"
)

// openAPI describes everything that routes lists. A test holds the two together.
//
//go:embed openapi.yaml
var openAPI []byte

// openAPIAsset makes the document ready to be served.
func openAPIAsset() web.Asset {
	sum := sha256.Sum256(openAPI)
	return web.Asset{Body: openAPI, Type: "application/yaml", ETag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// getOpenAPI is GET /openapi.yaml.
func (s *Server) getOpenAPI(w http.ResponseWriter, r *http.Request) *problem {
	s.serveAsset(w, r, s.openAPI)
	return nil
}
