package importrules

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestViolation(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		test     bool
		want     string // part of the rule, or "" for an import that is fine
	}{
		{"chat", "raftnode", false, "chat imports nothing"},
		{"chat", "raftnode", true, "chat imports nothing"},
		{"chat/chattest", "httpapi", false, "chat imports nothing"},
		{"chat", "grpcapi", false, "chat imports nothing"},
		{"chat", "cmd/raft-chat", true, "nothing imports cmd"},
		{"chat", "internal/server", false, "internal is for"},
		{"chat", "internal/server", true, ""},
		{"chat", "chat/chatpb", false, ""},
		{"raftnode", "chat", false, "raftnode imports nothing"},
		{"raftnode", "chat/chatpb", true, "raftnode imports nothing"},
		{"raftnode", "httpapi", false, "raftnode imports nothing"},
		{"raftnode", "internal/simulator", false, "internal is for"},
		{"raftnode/wire", "raftnode", false, ""},
		{"httpapi", "chat", false, ""},
		{"httpapi", "chat/chattest", true, ""},
		{"httpapi", "web", false, ""},
		{"httpapi", "raftnode", false, "httpapi imports only chat and web"},
		{"httpapi", "raftnode", true, "httpapi imports only chat and web"},
		{"httpapi", "grpcapi", false, "httpapi imports only"},
		{"grpcapi", "api/proto/raftogram/v1", false, ""},
		{"grpcapi", "chat", false, ""},
		{"grpcapi", "web", false, "grpcapi imports only"},
		{"web", "chat", false, "web imports nothing"},
		{"web", "httpapi", true, "web imports nothing"},
		{"api", "chat", false, "api imports nothing"},
		{"internal/server", "raftnode", false, ""},
		{"internal/server", "internal/bench", false, ""},
		{"internal/server", "cmd/raft-chat", false, "nothing imports cmd"},
		{"cmd/raft-chat", "internal/server", false, ""},
		{"cmd/raft-chat", "httpapi", false, ""},
		{"ircapi", "chat", false, "ircapi has no rule yet"},
		{"raftnode", "internal/budget", false, ""},
		{"chat", "internal/budget", false, ""},
		{"internal/budget", "chat", false, "a leaf imports nothing"},
		{"internal/webguard", "internal/budget", false, "a leaf imports nothing"},
	} {
		got := Violation(Import{From: module + "/" + tt.from, To: module + "/" + tt.to, Test: tt.test})
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s → %s (test: %v): got %q, want %q", tt.from, tt.to, tt.test, got, tt.want)
		}
	}
	if got := Violation(Import{From: module + "/chat", To: "net/http"}); got != "" {
		t.Errorf("the standard library: %q", got)
	}
	if got := Violation(Import{From: module + "/chat", To: module + "-tools/raftnode"}); got != "" {
		t.Errorf("another module whose path begins alike: %q", got)
	}
}

// The sources are read here instead of asking the go command, because the test
// cache sees the files that a test opens, not those of a program it runs; and
// because the rules hold for files of every platform.
func TestModule(t *testing.T) {
	const root = "../.."
	files, imports := 0, 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name == root {
				return nil
			}
			if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return fs.SkipDir // another module
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports++
			i := Import{From: path.Join(module, filepath.ToSlash(dir)), To: to, Test: strings.HasSuffix(name, "_test.go")}
			if rule := Violation(i); rule != "" {
				t.Errorf("%s imports %s: %s", name, to, rule)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// What finds nothing to look at would pass for ever.
	if files < 20 || imports < 100 {
		t.Errorf("found only %d files with %d imports", files, imports)
	}
}
