package planted

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

const root = "../.."

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The lines that a bug replaces must be there, and what takes their place must
// be Go. Whether each is noticed is for make planted: it builds all of them.
func TestEveryBugCanBePlanted(t *testing.T) {
	if n := len(Bugs()); n < 20 {
		t.Errorf("only %d bugs", n)
	}
	names := map[string]bool{}
	for _, b := range Bugs() {
		if names[b.Name] || b.What == "" || b.Old == b.New {
			t.Errorf("%s is there twice, or says or changes nothing", b.Name)
		}
		names[b.Name] = true
		dir := t.TempDir()
		if _, err := plant(root, dir, b); err != nil {
			t.Error(err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "changed.go"), nil, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

// Bugs that the simulator finds at once; a slow one would say little more here.
func TestBugsAreNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program for each")
	}
	for _, b := range Bugs() {
		switch b.Name {
		case "lost-vote", "acknowledge-unsaved", "no-dedup", "mark-without-flush", "cursor-off-by-one", "apply-depends-on-cache":
		default:
			continue
		}
		o, err := Try(t.Context(), root, b, 50)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Caught {
			t.Errorf("nothing notices %s in %d seeds", b.Name, o.Seeds)
		}
	}
}

// Without a bug nothing is noticed: the outcome comes from the bug.
func TestNothingIsNoticedWithoutABug(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program")
	}
	const file = "chat/flush.go"
	code, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	harmless := Bug{Name: "none", File: file, Old: string(code), New: string(code) + "\n"}
	o, err := Try(t.Context(), root, harmless, 10)
	if err != nil {
		t.Fatal(err)
	}
	if o.Caught || o.Seeds != 10 {
		t.Errorf("%+v", o)
	}
	gone := Bug{Name: "gone", File: file, Old: "no such line", New: ""}
	if _, err := Try(t.Context(), root, gone, 1); err == nil {
		t.Error("a bug whose lines are gone was planted")
	}
}
