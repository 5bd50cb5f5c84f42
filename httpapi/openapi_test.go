package httpapi

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/raft-chat/raft-chat/chat"
)

// The document and the router have the same routes, methods and path parameters.
func TestOpenAPIRoutes(t *testing.T) {
	n := newNode(t, nil)
	doc := readOpenAPI(t)
	served := make(map[string]bool)
	for _, rt := range n.server.routes() {
		for method, handle := range map[string]handler{"get": rt.get, "post": rt.post, "delete": rt.delete} {
			if handle == nil {
				continue
			}
			served[method+" "+rt.pattern] = true
			operation, ok := doc.Paths[rt.pattern][method]
			if !ok {
				t.Errorf("%s %s is not documented", method, rt.pattern)
			}
			named := 0
			for _, p := range operation.Parameters {
				name := strings.TrimPrefix(p.Ref, "#/components/parameters/")
				if doc.Components.Parameters[name] == nil {
					t.Errorf("%s %s: parameter %s is not described", method, rt.pattern, name)
				}
				if at, _ := doc.Components.Parameters[name].(map[string]any); at["in"] == "path" {
					named++
					if !strings.Contains(rt.pattern, fmt.Sprintf("{%v}", at["name"])) {
						t.Errorf("%s %s: parameter %v is not in the path", method, rt.pattern, at["name"])
					}
				}
			}
			if named != strings.Count(rt.pattern, "{") {
				t.Errorf("%s %s: %d parameters of the path are described", method, rt.pattern, named)
			}
		}
	}
	ids := make(map[string]bool)
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			if !served[method+" "+path] {
				t.Errorf("%s %s is documented and not served", method, path)
			}
			if ids[operation.OperationID] || operation.OperationID == "" {
				t.Errorf("%s %s: operationId %q", method, path, operation.OperationID)
			}
			ids[operation.OperationID] = true
		}
	}
}

// The document has the codes of the table in problem.go, all of them and no others, each with its status.
func TestOpenAPICodes(t *testing.T) {
	doc := readOpenAPI(t)
	documented := doc.Components.Schemas["Problem"].Properties["code"].Enum
	known := tableOfCodes(t)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("documented codes are\n%q, those of the table\n%q", documented, known)
	}
	used := map[string]bool{codeFrameTypeUnknown: true, codeRequestIDInvalid: true, "rate_limited": true}
	for _, code := range everywhere {
		used[code] = true
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			for status, response := range operation.Responses {
				if (status >= "400") != (len(response.Codes) > 0) {
					t.Errorf("%s %s: status %s has codes %q", method, path, status, response.Codes)
				}
				for _, code := range response.Codes {
					used[code] = true
					if fmt.Sprint(statusOf(code)) != status && status != "default" {
						t.Errorf("%s %s: %s is documented with %s", method, path, code, status)
					}
				}
			}
		}
	}
	for _, code := range known {
		if !used[code] {
			t.Errorf("no operation is documented to answer %s", code)
		}
	}
}

// tableOfCodes reads the codes of statusOf from its source: a switch cannot be asked for its cases.
func tableOfCodes(t *testing.T) (codes []string) {
	t.Helper()
	constants := make(map[string]ast.Expr)
	fileSet := token.NewFileSet()
	var table *ast.FuncDecl
	for _, name := range []string{"problem.go", "../chat/errors.go", "../internal/webguard/guard.go"} {
		file, err := parser.ParseFile(fileSet, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ValueSpec:
				for i, name := range node.Names {
					if i < len(node.Values) {
						constants[name.Name] = node.Values[i]
					}
				}
			case *ast.FuncDecl:
				if node.Name.Name == "statusOf" {
					table = node
				}
			}
			return true
		})
	}
	var text func(ast.Expr) string
	text = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			value, err := strconv.Unquote(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			return value
		case *ast.Ident:
			return text(constants[e.Name])
		case *ast.SelectorExpr:
			return text(e.Sel)
		case *ast.CallExpr: // string(chat.CodeX)
			return text(e.Args[0])
		}
		t.Fatalf("%T among the codes", e)
		return ""
	}
	ast.Inspect(table, func(node ast.Node) bool {
		if clause, ok := node.(*ast.CaseClause); ok {
			for _, e := range clause.List {
				codes = append(codes, text(e))
			}
		}
		return true
	})
	return codes
}

// Real answers are as documented, and every documented success is among them.
func TestOpenAPIAnswers(t *testing.T) {
	doc := readOpenAPI(t)
	n := newNode(t, nil)
	n.post("r", "ann", "one")
	if _, _, err := n.service.CreateRoom(t.Context(), actor, "titled", "A title"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.service.Post(t.Context(), actor, binaryPost("r", []byte{0xff})); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "trimmed", User: "u", Payload: []byte("m"), ClientMessageID: "c"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.service.Trim(t.Context(), actor, "trimmed", 2); err != nil {
		t.Fatal(err)
	}
	tag := n.do("GET", "/", "").header.Get("ETag")
	seen := make(map[string]bool)
	router := n.server.newMux(n.server.routes())
	see := func(method, path string, a answer) {
		t.Helper()
		base, _, _ := strings.Cut(path, "?")
		pattern := router.Find(chi.NewRouteContext(), http.MethodGet, base)
		seen[fmt.Sprint(strings.ToLower(method), " ", pattern, " ", a.status)] = true
		if why := doc.checkAnswer(method, pattern, a); why != "" {
			t.Errorf("%s %s: %s: %s", method, path, why, a.body)
		}
	}
	for _, test := range []struct{ method, path, body, header, value string }{
		{"GET", "/", "", "", ""}, {"GET", "/", "", "If-None-Match", tag}, {"GET", "/r", "", "", ""},
		{"GET", "/_/app.js", "", "", ""}, {"GET", "/_/app.js", "", "If-None-Match", "*"},
		{"GET", "/openapi.yaml", "", "", ""}, {"GET", "/openapi.yaml", "", "If-None-Match", "*"},
		{"GET", "/rooms", "", "", ""}, {"GET", "/rooms?details=true", "", "", ""}, {"GET", "/rooms", "", "Accept", "application/xhtml+xml"},
		{"GET", "/rooms/r", "", "", ""}, {"GET", "/rooms/none", "", "", ""}, {"GET", "/rooms/r", "", "Accept", "application/xhtml+xml"},
		{"POST", "/rooms/r", `{"Message":"m","User":"u","ClientMessageID":"c"}`, "", ""},
		{"POST", "/rooms/r", `{"Message":"m","User":"u","ClientMessageID":"c"}`, "", ""},
		{"POST", "/rooms/r", `{"Message":"other","User":"u","ClientMessageID":"c"}`, "", ""},
		{"POST", "/rooms/trimmed", `{"Message":"m","User":"u","ClientMessageID":"c"}`, "", ""},
		{"GET", "/rooms/r/1", "", "", ""}, {"GET", "/rooms/r/2", "", "", ""}, {"GET", "/rooms/r/9", "", "", ""},
		{"GET", "/rooms/r/events?poll=1&since=all", "", "", ""}, {"GET", "/rooms/r/json?poll=1&since=all", "", "", ""},
		{"GET", "/rooms/r/raw?poll=1&since=all", "", "", ""}, {"GET", "/rooms/r/raw?since=x", "", "", ""},
		{"GET", "/raft", "", "", ""}, {"POST", "/raft/4", "http://127.0.0.1:1", "", ""}, {"DELETE", "/raft/4", "", "", ""},
		{"POST", "/raft/4/promote", "", "", ""}, {"POST", "/raft/leader", `{"ID":2}`, "", ""},
		{"GET", "/health", "", "", ""}, {"GET", "/livez", "", "", ""}, {"GET", "/readyz", "", "", ""}, {"GET", "/metrics", "", "", ""},
	} {
		var header []string
		if test.header != "" {
			header = []string{test.header, test.value}
		}
		see(test.method, test.path, n.do(test.method, test.path, test.body, header...))
	}
	for _, path := range []string{"/ws", "/rooms/r/ws"} {
		if got := n.handshake("GET " + path + " HTTP/1.1\r\nHost: " + n.address + "\r\n" + strings.ReplaceAll(handshake, "|", "\r\n") + "\r\n\r\n"); got != http.StatusSwitchingProtocols {
			t.Errorf("%s: %d", path, got)
		}
		seen["get "+router.Find(chi.NewRouteContext(), http.MethodGet, path)+" 101"] = true
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			for status := range maps.Keys(operation.Responses) {
				if status < "400" && !seen[method+" "+path+" "+status] {
					t.Errorf("%s %s never answered %s", method, path, status)
				}
			}
		}
	}
}

// What clients get wrong is answered as documented for the URL.
func TestOpenAPIRefusals(t *testing.T) {
	doc := readOpenAPI(t)
	n := newNode(t, nil)
	router := n.server.newMux(n.server.routes())
	for _, test := range refusals {
		method, target, _ := strings.Cut(test.request, " ")
		path, _, _ := strings.Cut(target, "?")
		pattern := router.Find(chi.NewRouteContext(), http.MethodGet, path)
		if pattern == "" || slices.Contains(everywhere, test.code) {
			continue
		}
		if !slices.Contains(doc.Paths[pattern][strings.ToLower(method)].Responses[strconv.Itoa(test.status)].Codes, test.code) {
			t.Errorf("%s: %d %s is not documented for %s %s", test.name, test.status, test.code, method, pattern)
		}
	}
}

// What generators and linters ask of a document: component names that stay apart as type names, a use for each of them,
// and a way to go wrong for each operation.
func TestOpenAPIForTools(t *testing.T) {
	doc := readOpenAPI(t)
	kinds := make(map[string]string)
	take := func(kind, name string) {
		typeName := strings.ToUpper(name[:1]) + name[1:]
		if other, taken := kinds[typeName]; taken {
			t.Errorf("%s %s is the type of %s", kind, name, other)
		}
		kinds[typeName] = kind + " " + name
		if kind = strings.ToLower(kind); !strings.Contains(string(openAPI), "'#/components/"+kind+"/"+name+"'") {
			t.Errorf("%s %s is never used", kind, name)
		}
	}
	for name := range doc.Components.Parameters {
		take("Parameters", name)
	}
	for name := range doc.Components.Responses {
		take("Responses", name)
	}
	for name := range doc.Components.Schemas {
		take("Schemas", name)
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			statuses := strings.Join(slices.Collect(maps.Keys(operation.Responses)), " ")
			if !strings.Contains(statuses, "421") || !strings.Contains(statuses, "default") {
				t.Errorf("%s %s answers %s", method, path, statuses)
			}
		}
	}
}
