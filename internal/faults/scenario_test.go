//go:build linux

package faults

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestScenarioTable(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if !name.MatchString(s.name) || seen[s.name] {
			t.Errorf("name %q is unusable or there twice", s.name)
		}
		seen[s.name] = true
		if s.play == nil || !strings.HasSuffix(s.what, ".") {
			t.Errorf("%s lacks its play or a sentence that says what it is", s.name)
		}
	}
}

func TestChosen(t *testing.T) {
	names := func(pattern string) (names []string) {
		list, err := chosen(pattern)
		if err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
		for _, s := range list {
			names = append(names, s.name)
		}
		return names
	}
	if got := names(""); len(got) != len(scenarios()) {
		t.Errorf("no pattern gives %v", got)
	}
	if got := names("kill-all|pause"); !slices.Equal(got, []string{"kill-all", "pause"}) {
		t.Errorf("two names give %v", got)
	}
	if got := names("power-loss-.*"); len(got) != 3 {
		t.Errorf("three power losses are %v", got)
	}
	for _, wrong := range []string{"kill", "(", "power-loss"} {
		if list, err := chosen(wrong); err == nil {
			t.Errorf("%q gives %d scenarios, want an error", wrong, len(list))
		}
	}
}
