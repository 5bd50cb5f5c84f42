package importrules

import (
	"slices"
	"strings"
)

// module is the path that all packages here begin with.
const module = "github.com/raft-chat/raft-chat"

// Import is one package naming another.
type Import struct {
	// From and To are import paths.
	From, To string
	// Test says that the import is in a _test.go file.
	Test bool
}

// Violation returns the rule that i breaks, or "". Imports of packages outside
// of the module, and those inside of one area, break none.
func Violation(i Import) string {
	from, inside := area(i.From)
	to, ours := area(i.To)
	if !inside || !ours || from == to && !leaf(i.From) {
		return ""
	}
	switch {
	case leaf(i.From):
		return "a leaf imports nothing of ours"
	case leaf(i.To):
		return ""
	case to == "cmd":
		return "nothing imports cmd"
	case from == "cmd":
		return ""
	case to == "internal" && from != "internal" && !i.Test:
		return "internal is for cmd, internal and tests"
	case to == "internal" || from == "internal":
		return ""
	}
	allowed, known := mayImport()[from]
	switch {
	case !known:
		return from + " has no rule yet; give it one in internal/importrules"
	case len(allowed) == 0:
		return from + " imports nothing of ours"
	case !slices.Contains(allowed, to):
		return from + " imports only " + strings.Join(allowed, " and ") + " of ours"
	}
	return ""
}

// mayImport lists, for every area other than cmd and internal, the areas that
// it may use.
func mayImport() map[string][]string {
	return map[string][]string{
		"chat":     nil,
		"raftnode": nil,
		"web":      nil,
		"api":      nil,
		"client":   nil,
		"httpapi":  {"chat", "web"},
		"grpcapi":  {"chat", "api"},
	}
}

// leaf reports whether a package is one that every package may import, because
// it imports nothing of ours: what all listeners of a node must share.
func leaf(path string) bool {
	return path == module+"/internal/budget" || path == module+"/internal/peeraddr" || path == module+"/internal/webguard"
}

// area returns the top directory of a package of this module: "chat" for the
// package chat and all below it. It reports false for packages of others.
func area(path string) (string, bool) {
	rest, found := strings.CutPrefix(path, module+"/")
	if !found {
		return "", false
	}
	top, _, _ := strings.Cut(rest, "/")
	return top, true
}
