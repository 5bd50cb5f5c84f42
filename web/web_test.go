package web

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// matches returns what the first group of pattern finds in text.
func matches(pattern, text string) (found []string) {
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

func TestAssets(t *testing.T) {
	c := New()
	tags := make(map[string]string)
	for name, kind := range map[string]string{
		"app.js": "text/javascript; charset=utf-8", "client.js": "text/javascript; charset=utf-8", "state.js": "text/javascript; charset=utf-8",
		"view.js": "text/javascript; charset=utf-8", "scroll.js": "text/javascript; charset=utf-8", "text.js": "text/javascript; charset=utf-8", "arrange.js": "text/javascript; charset=utf-8",
		"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		asset, ok := c.Asset(name)
		if !ok || len(asset.Body) == 0 || asset.Type != kind {
			t.Errorf("%s: %v, %d bytes of %s", name, ok, len(asset.Body), asset.Type)
		}
		if other, taken := tags[asset.ETag]; taken || !regexp.MustCompile(`^"[\w-]{16}"$`).MatchString(asset.ETag) {
			t.Errorf("%s has tag %s, as has %q", name, asset.ETag, other)
		}
		tags[asset.ETag] = name
	}
	for _, name := range []string{"index.html", "web.go", "", ".", "..", "../web.go", "testdata"} {
		if _, ok := c.Asset(name); ok {
			t.Errorf("%q is served as a file", name)
		}
	}
}

// The page keeps to the content security policy it is served with.
func TestPage(t *testing.T) {
	c := New()
	page := string(c.Index().Body)
	if c.Index().Type != "text/html; charset=utf-8" {
		t.Errorf("the page is %s", c.Index().Type)
	}
	for what, pattern := range map[string]string{
		"inline script":      `(<script(?:[^>]*[^>/])?>\s*[^<\s])`,
		"script with no src": `(<script(?:\s+type="\w+")?>)`,
		"inline style":       `(<style|\sstyle\s*=)`,
		"event handler":      `(\son\w+\s*=)`,
		"script URL":         `(javascript:)`,
		"foreign file":       `(?:src|href)="((?:https?:)?//[^"]*)"`,
	} {
		if found := matches(pattern, page); len(found) > 0 {
			t.Errorf("the page has an %s: %q", what, found)
		}
	}
	files := matches(`(?:src|href)="/_/([^"]*)"`, page)
	if len(files) < 3 {
		t.Errorf("the page loads %q", files)
	}
	for _, name := range files {
		if _, ok := c.Asset(name); !ok {
			t.Errorf("the page loads %s, which is not there", name)
		}
	}
}

// Modules import what is there, make no markup out of text, and ask for elements that the page has.
func TestModules(t *testing.T) {
	c := New()
	ids := make(map[string]bool)
	for _, id := range matches(`\sid="([^"]+)"`, string(c.Index().Body)) {
		if ids[id] {
			t.Errorf("the page has two elements %s", id)
		}
		ids[id] = true
	}
	modules := 0
	for name, asset := range c.assets {
		if !strings.HasSuffix(name, ".js") {
			continue
		}
		modules++
		code := string(asset.Body)
		for _, imported := range matches(`from '([^']+)'`, code) {
			if _, ok := c.Asset(strings.TrimPrefix(imported, "./")); !ok || !strings.HasPrefix(imported, "./") {
				t.Errorf("%s imports %s", name, imported)
			}
		}
		if found := matches(`\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc|DOMParser)`, code); len(found) > 0 {
			t.Errorf("%s uses %q", name, found)
		}
		for _, id := range matches(`find\('([^']+)'\)`, code) {
			if !ids[id] {
				t.Errorf("%s looks for element %s, which the page does not have", name, id)
			}
		}
	}
	if modules != 7 {
		t.Errorf("%d modules", modules)
	}
}

// The tests of the modules that need no page run in Node.
func TestPureModules(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node is not installed: the tests of the modules in testdata are not run")
	}
	if out, err := exec.CommandContext(t.Context(), node, "--test", "testdata/").CombinedOutput(); err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
}

func TestEveryTypeIsKnown(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a file without a content type is served")
		}
	}()
	contentType("movie.avi")
}
