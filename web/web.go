package web

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"path"
)

//go:embed index.html style.css icon.svg *.js
var files embed.FS

// Asset is one file of the client, ready to be served. Body must not be changed.
type Asset struct {
	Body []byte
	Type string // Content-Type
	ETag string // strong, from the content
}

// Client is the set of files. It is immutable.
type Client struct {
	index  Asset
	assets map[string]Asset
}

// New reads the embedded files. It panics when one has a type without an entry in contentType, which is a mistake of
// the build and not of its user.
func New() *Client {
	c := &Client{assets: make(map[string]Asset)}
	names, err := fs.Glob(files, "*")
	if err != nil {
		panic("web: list embedded files: " + err.Error())
	}
	for _, name := range names {
		body, err := files.ReadFile(name)
		if err != nil {
			panic("web: read embedded file: " + err.Error())
		}
		sum := sha256.Sum256(body)
		asset := Asset{
			Body: body,
			Type: contentType(name),
			ETag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		if name == "index.html" {
			c.index = asset
			continue
		}
		c.assets[name] = asset
	}
	return c
}

// Index is the page.
func (c *Client) Index() Asset { return c.index }

// Asset is a file that the page loads from /_/name.
func (c *Client) Asset(name string) (Asset, bool) {
	asset, ok := c.assets[name]
	return asset, ok
}

// contentType is the type of a file by its extension. The system's MIME table is not asked: it differs between machines.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	panic("web: no content type for " + name)
}
