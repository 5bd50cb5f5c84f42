package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory with everything but a whole store: the refusal says what to do.
func TestDamagedStoreNamesTheRemedy(t *testing.T) {
	config := Config{ID: 1, DataDir: t.TempDir(), Listen: "127.0.0.1:0", ListenPeer: "127.0.0.1:0",
		Cluster: []Peer{{ID: 1, URL: "http://127.0.0.1:12379"}}, MinFreeBytes: -1}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(config.DataDir, "store", "store", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests of the store: %v, %v", manifests, err)
	}
	for _, path := range manifests {
		if err := os.WriteFile(path, []byte("no manifest"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = Open(t.Context(), config); err == nil {
		t.Fatal("a damaged store was opened", s.Close(t.Context()))
	}
	for _, want := range []string{filepath.Join(config.DataDir, "store"), "raft-chat members replace 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q: %v", want, err)
		}
	}
}
