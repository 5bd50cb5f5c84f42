package server

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Settings that are fine by themselves and contradict each other are told.
func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(c *Config)
		want []string // what each warning contains
	}{
		{name: "the defaults", edit: func(*Config) {}},
		{name: "requests give up before an election ends", edit: func(c *Config) { c.RequestTimeout = time.Second },
			want: []string{"request-timeout (1s) is shorter than an election (up to 2s"}},
		{name: "elections are slow", edit: func(c *Config) { c.TickInterval, c.ElectionTicks = time.Second, 10 },
			want: []string{"request-timeout (5s) is shorter than an election (up to 20s", "leader-grace (10s) is shorter than an election (up to 20s"}},
		{name: "elections at their slowest", edit: func(c *Config) { c.TickInterval, c.ElectionTicks = time.Minute, 1000 },
			want: []string{"request-timeout", "leader-grace (10s) is shorter than an election (up to 33h20m0s"}},
		{name: "streams end before an election does", edit: func(c *Config) { c.LeaderGrace = time.Millisecond }, want: []string{"leader-grace (1ms)"}},
		{name: "pongs are slow", edit: func(c *Config) { c.PongTimeout = time.Minute }, want: []string{"pong-timeout (1m0s) is longer than ping-interval (20s)"}},
		{name: "gRPC nowhere", edit: func(c *Config) { c.AdvertiseGRPC = "chat.example:9000" }, want: []string{"without listen-grpc nothing is served"}},
		{name: "no disk is that large", edit: func(c *Config) { c.MinFreeBytes = 1 << 62 }, want: []string{"no message will ever be taken"}},
		{name: "no reserve", edit: func(c *Config) { c.MinFreeBytes = -1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{ID: 1, Cluster: []Peer{{ID: 1, URL: "http://127.0.0.1:12379"}}, DataDir: filepath.Join(t.TempDir(), "not", "made", "yet"), CatchUpBytes: 1 << 20, MinFreeBytes: 1}
			tt.edit(&c)
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			if got := c.warnings(); !slices.EqualFunc(got, tt.want, strings.Contains) {
				t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestDiskSize(t *testing.T) {
	dir := t.TempDir()
	size, known := diskSize(dir)
	deep, deepKnown := diskSize(filepath.Join(dir, "a", "b"))
	if !known || size <= 0 || !deepKnown || deep != size {
		t.Errorf("%d, %v; below it, before it is made: %d, %v", size, known, deep, deepKnown)
	}
	if _, known := diskSize("a\x00b"); known {
		t.Error("a name that no file can have is on some disk")
	}
}
