package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfigBytes bounds what is read of a configuration file.
const maxConfigBytes = 1 << 20

// configFile is a configuration file taken apart, before any of its values is
// understood.
type configFile struct {
	// entries are the settings in the order of the file; no key is there twice.
	entries []fileEntry
	// raftogram is the cluster mapping, or nil.
	raftogram *raftogramLayout
}

// fileEntry is one setting: one value, or those of a list.
type fileEntry struct {
	key    string
	values []string
	line   int
}

// readConfigFile reads and takes apart the file at path. Errors name the path.
func readConfigFile(path string) (*configFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s: is larger than %d bytes", path, maxConfigBytes)
	}
	return parseConfigFile(path, data)
}

// parseConfigFile takes data apart. A file without content is one without
// settings.
func parseConfigFile(path string, data []byte) (*configFile, error) {
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return &configFile{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: holds more than one document", path)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, fmt.Errorf("%s: is not a YAML document", path)
	}
	root := resolveAlias(doc.Content[0])
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &configFile{}, nil
	}
	pairs, err := mappingPairs(path, "", root)
	if err != nil {
		return nil, err
	}
	file := &configFile{}
	for _, p := range pairs {
		if p.key == "cluster" && p.value.Kind == yaml.MappingNode {
			if file.raftogram, err = parseRaftogram(path, p.value); err != nil {
				return nil, err
			}
			continue
		}
		entry := fileEntry{key: p.key, line: p.line}
		items := []*yaml.Node{p.value}
		if p.value.Kind == yaml.SequenceNode {
			items = p.value.Content
		}
		for _, item := range items {
			v, err := scalar(path, p.key, item)
			if err != nil {
				return nil, err
			}
			entry.values = append(entry.values, v)
		}
		if len(entry.values) == 0 {
			return nil, fmt.Errorf("%s:%d: %s: the list is empty", path, p.line, p.key)
		}
		file.entries = append(file.entries, entry)
	}
	return file, nil
}

// pair is one key of a mapping with its value.
type pair struct {
	key   string
	value *yaml.Node
	line  int
}

// mappingPairs returns the pairs of a mapping. prefix leads to the mapping, as
// in "cluster.", and is put before the keys in errors.
func mappingPairs(path, prefix string, n *yaml.Node) ([]pair, error) {
	n = resolveAlias(n)
	if n.Kind != yaml.MappingNode {
		what := "the file"
		if prefix != "" {
			what = strings.TrimSuffix(prefix, ".")
		}
		return nil, fmt.Errorf("%s:%d: %s: is not a mapping of keys to values", path, n.Line, what)
	}
	pairs := make([]pair, 0, len(n.Content)/2)
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("%s:%d: a key is not a plain word", path, k.Line)
		}
		if seen[k.Value] {
			return nil, fmt.Errorf("%s:%d: %s%s is there twice", path, k.Line, prefix, k.Value)
		}
		seen[k.Value] = true
		pairs = append(pairs, pair{key: k.Value, value: resolveAlias(n.Content[i+1]), line: k.Line})
	}
	return pairs, nil
}

// scalar returns the text of a single value.
func scalar(path, key string, n *yaml.Node) (string, error) {
	n = resolveAlias(n)
	if n.Kind != yaml.ScalarNode {
		return "", fmt.Errorf("%s:%d: %s: is not a single value", path, n.Line, key)
	}
	if n.Tag == "!!null" {
		return "", fmt.Errorf("%s:%d: %s: has no value", path, n.Line, key)
	}
	return n.Value, nil
}

// resolveAlias follows *name to what &name marked. The target of an alias is
// never an alias itself.
func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}
