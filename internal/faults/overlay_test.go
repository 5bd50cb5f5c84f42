//go:build linux

package faults

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClockCanBeReplaced(t *testing.T) {
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	texts, err := replaceClock(source)
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) != len(seams())+1 {
		t.Errorf("%d files are replaced or added, want one for each seam and the clock", len(texts))
	}
	for path, text := range texts {
		if _, err := parser.ParseFile(token.NewFileSet(), path, text, parser.AllErrors); err != nil {
			t.Errorf("the replaced text of %s: %v", path, err)
		}
		if filepath.Base(path) != "steppedclock.go" && strings.Count(text, "steppedclock.Now") != 1 {
			t.Errorf("%s does not use the stepped clock", path)
		}
	}
	if !strings.Contains(steppedClock, clockVariable) {
		t.Errorf("the stepped clock does not read %s", clockVariable)
	}
	if _, err := os.Stat(filepath.Join(source, clockPackage)); err == nil {
		t.Error("the stepped clock is there without an overlay")
	}
}

func TestClockThatMovedIsNoticed(t *testing.T) {
	dir := t.TempDir()
	for _, s := range seams() {
		if err := os.MkdirAll(filepath.Join(dir, s.dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := replaceClock(dir); err == nil {
		t.Error("a source without the seams gives no error")
	}
	twice := seams()[0].now + "\n" + seams()[0].now
	if err := os.WriteFile(filepath.Join(dir, seams()[0].dir, "a.go"), []byte("package x\n\nimport (\n\t\"time\"\n)\n"+twice), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := replaceClock(dir); err == nil || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("a source with a seam twice gives %v", err)
	}
}
