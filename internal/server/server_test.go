package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// A directory with everything but a whole store: the refusal says what to do.
func TestDamagedStoreNamesTheRemedy(t *testing.T) {
	slow.Test(t)
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

// alone is the configuration of a cluster of one on free ports.
func alone(t *testing.T) Config {
	return Config{ID: 1, DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", ListenPeer: "127.0.0.1:0",
		Cluster: []Peer{{ID: 1, URL: "http://127.0.0.1:12379"}}, MinFreeBytes: -1}
}

func freePort(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A start that fails lets go of everything it had taken.
func TestFailedStartReleasesEverything(t *testing.T) {
	t.Run("a port is in use", func(t *testing.T) {
		taken := freePort(t).Addr().String()
		for setting, edit := range map[string]func(c *Config){
			"listen-peer":   func(c *Config) { c.ListenPeer = taken },
			"port":          func(c *Config) { c.Listen = taken },
			"listen-health": func(c *Config) { c.ListenHealth = taken },
			"listen-grpc":   func(c *Config) { c.ListenGRPC = taken },
		} {
			c := alone(t)
			edit(&c)
			if setting != "port" {
				c.APIListener = freePort(t)
			}
			if setting != "listen-peer" {
				c.PeerListener = freePort(t)
			}
			_, err := Open(t.Context(), c)
			var bad *ListenError
			if !errors.As(err, &bad) || bad.Setting != setting || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken) {
				t.Errorf("%s: %v", setting, err)
			}
			wantClosed(t, c.APIListener, c.PeerListener)
			if _, err := os.Stat(c.DataDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the data directory was made: %v", setting, err)
			}
		}
	})
	t.Run("the directory is in use", func(t *testing.T) {
		c := alone(t)
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		again := c
		again.APIListener, again.PeerListener = freePort(t), freePort(t)
		if _, err := Open(t.Context(), again); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("a second node on the directory: %v", err)
		}
		wantClosed(t, again.APIListener, again.PeerListener)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if s, err = Open(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func wantClosed(t *testing.T, listeners ...net.Listener) {
	t.Helper()
	for _, l := range listeners {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener on %s is still open (%v)", l.Addr(), err)
		}
	}
}
