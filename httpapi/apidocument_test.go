package httpapi

import (
	"encoding/json"
	"fmt"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// apiDocument is the part of an OpenAPI document that the tests look at.
type apiDocument struct {
	OpenAPI    string `yaml:"openapi"`
	Paths      map[string]map[string]apiOperation
	Components struct {
		Parameters map[string]any
		Responses  map[string]apiResponse
		Schemas    map[string]*schema
	}
}

type apiOperation struct {
	OperationID string `yaml:"operationId"`
	Parameters  []struct {
		Ref string `yaml:"$ref"`
	}
	Responses map[string]apiResponse
}

type apiResponse struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct{ Schema *schema }
	Codes   []string `yaml:"x-codes"`
}

// schema is the part of JSON Schema that the document uses.
type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Required   []string
	Properties map[string]*schema
	Items      *schema
	OneOf      []*schema `yaml:"oneOf"`
	Enum       []string
	Minimum    *float64
	MinLength  *int `yaml:"minLength"`
	Pattern    string
}

func readOpenAPI(t *testing.T) *apiDocument {
	t.Helper()
	var doc apiDocument
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("openapi is %q", doc.OpenAPI)
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			for status, response := range operation.Responses {
				if response.Ref == "" {
					continue
				}
				shared, ok := doc.Components.Responses[strings.TrimPrefix(response.Ref, "#/components/responses/")]
				if !ok {
					t.Fatalf("%s %s: %s is not there", method, path, response.Ref)
				}
				operation.Responses[status] = shared
			}
		}
	}
	return &doc
}

// check says what is wrong with value, which was JSON, by a schema; "" if nothing.
func (d *apiDocument) check(s *schema, value any) string {
	if s.Ref != "" {
		return d.check(d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], value)
	}
	if len(s.OneOf) > 0 {
		fits := 0
		for _, one := range s.OneOf {
			if d.check(one, value) == "" {
				fits++
			}
		}
		if fits != 1 {
			return fmt.Sprintf("%v fits %d schemas of oneOf", value, fits)
		}
		return ""
	}
	wrong := fmt.Sprintf("%v is no %s", value, s.Type)
	switch s.Type {
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			return wrong
		}
		for _, name := range s.Required {
			if _, ok := object[name]; !ok {
				return name + " is missing"
			}
		}
		for name, member := range object {
			if s.Properties[name] == nil {
				return name + " is not documented"
			}
			if why := d.check(s.Properties[name], member); why != "" {
				return name + ": " + why
			}
		}
	case "array":
		array, ok := value.([]any)
		if !ok {
			return wrong
		}
		for _, item := range array {
			if why := d.check(s.Items, item); why != "" {
				return why
			}
		}
	case "string":
		text, ok := value.(string)
		if !ok || s.MinLength != nil && len(text) < *s.MinLength || !regexp.MustCompile(s.Pattern).MatchString(text) {
			return wrong
		}
		if s.Enum != nil && !slices.Contains(s.Enum, text) {
			return text + " is not documented"
		}
	case "integer":
		number, ok := value.(float64)
		if !ok || number != float64(int64(number)) || s.Minimum != nil && number < *s.Minimum {
			return wrong
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return wrong
		}
	default:
		return "the schema has type " + s.Type
	}
	return ""
}

// everywhere are the codes that any URL may answer with; the document names them once.
var everywhere = []string{codeMethodNotAllowed, codeNotFound, codeInternal}

// checkAnswer says what of an answer to a documented URL the document does not have; "" if it has all.
func (d *apiDocument) checkAnswer(method, pattern string, a answer) string {
	operation, ok := d.Paths[pattern][strings.ToLower(method)]
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if kind == "application/problem+json" {
		var p struct{ Code string }
		if err := json.Unmarshal([]byte(a.body), &p); err != nil {
			return err.Error()
		}
		if slices.Contains(everywhere, p.Code) {
			return ""
		}
		if !slices.Contains(operation.Responses[strconv.Itoa(a.status)].Codes, p.Code) {
			return fmt.Sprintf("%d %s is not documented", a.status, p.Code)
		}
	}
	if !ok {
		return "the operation is not documented"
	}
	response, ok := operation.Responses[strconv.Itoa(a.status)]
	switch {
	case !ok:
		return fmt.Sprintf("status %d is not documented", a.status)
	case len(response.Content) == 0:
		return ""
	case err != nil:
		return err.Error()
	}
	for documented, content := range response.Content {
		name, _, _ := mime.ParseMediaType(documented)
		switch {
		case name != kind && name != "*/*":
			continue
		case !strings.HasSuffix(kind, "json") || kind == "application/x-ndjson":
			return ""
		}
		var value any
		if err := json.Unmarshal([]byte(a.body), &value); err != nil {
			return err.Error()
		}
		return d.check(content.Schema, value)
	}
	return kind + " is not documented"
}
