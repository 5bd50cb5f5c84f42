package server

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// What is told to others can be reached by others, or a warning says who
// cannot.
func TestAdvertisedAddresses(t *testing.T) {
	const (
		others = "clients of other machines will be told"
		own    = "listens for other machines, whose clients will be told"
		open   = "there are no accounts yet: anyone who reaches the "
	)
	for _, tt := range []struct {
		name         string
		peerURL      string
		api, grpc    string // where the listeners are bound
		edit         func(c *Config)
		client, told string
		warnings     []string // what each contains
	}{
		{name: "one machine", peerURL: "http://127.0.0.1:12379", api: "127.0.0.1:12380", grpc: "127.0.0.1:9000",
			client: "http://127.0.0.1:12380", told: "127.0.0.1:9000"},
		{name: "one machine, two addresses", peerURL: "http://127.0.0.1:12379", api: "127.0.0.2:12380",
			client: "http://127.0.0.2:12380"},
		{name: "every address, peers elsewhere", peerURL: "http://10.0.0.1:12379", api: "0.0.0.0:12380", grpc: "[::]:9000",
			client: "http://10.0.0.1:12380", told: "10.0.0.1:9000", warnings: []string{open + "API on 0.0.0.0:12380 and the gRPC on [::]:9000"}},
		{name: "every address, peers by name", peerURL: "http://node1.example:12379", api: "[::]:12380", grpc: "0.0.0.0:9000",
			client: "http://node1.example:12380", told: "node1.example:9000", warnings: []string{open}},
		{name: "every address, peers on IPv6", peerURL: "http://[fd00::1]:12379", api: "[::]:12380",
			client: "http://[fd00::1]:12380", warnings: []string{open}},
		{name: "every address of the other family", peerURL: "http://[fd00::1]:12379", api: "0.0.0.0:12380",
			client: "http://127.0.0.1:12380", warnings: []string{others + " 127.0.0.1:12380, which is themselves; let it listen on an address that they reach, or name one with --advertise-client", open}},
		{name: "every address, peers on this machine", peerURL: "http://127.0.0.2:12379", api: "0.0.0.0:12380", grpc: "0.0.0.0:9000",
			client: "http://127.0.0.2:12380", told: "127.0.0.2:9000", warnings: []string{
				"0.0.0.0:12380 " + own + " 127.0.0.2:12380, which is themselves; name an address that they reach with --advertise-client",
				"0.0.0.0:9000 " + own + " 127.0.0.2:9000, which is themselves; name an address that they reach with --advertise-grpc", open}},
		{name: "every address, peers at localhost", peerURL: "http://localhost:12379", api: "[::]:12380",
			client: "http://127.0.0.1:12380", warnings: []string{own, open}},
		{name: "this machine only, peers elsewhere", peerURL: "http://10.0.0.1:12379", api: "127.0.0.1:12380", grpc: "[::1]:9000",
			client: "http://127.0.0.1:12380", told: "[::1]:9000", warnings: []string{others + " 127.0.0.1:12380", others + " [::1]:9000, which is themselves; let it listen on an address that they reach, or name one with --advertise-grpc"}},
		{name: "an address of its own", peerURL: "http://10.0.0.1:12379", api: "10.0.0.7:12380", grpc: "10.0.0.8:9000",
			client: "http://10.0.0.7:12380", told: "10.0.0.8:9000", warnings: []string{open}},
		{name: "named", peerURL: "http://10.0.0.1:12379", api: "127.0.0.1:12380", grpc: "0.0.0.0:9000", edit: func(c *Config) {
			c.AdvertiseClient, c.AdvertiseGRPC = "https://chat.example/", "chat.example:443"
		}, client: "https://chat.example", told: "chat.example:443", warnings: []string{open + "gRPC on 0.0.0.0:9000"}},
		{name: "named by the list", peerURL: "http://10.0.0.1:12379", api: "127.0.0.1:12380", grpc: "0.0.0.0:9000", edit: func(c *Config) {
			c.AdvertiseClient, c.Cluster[0].GRPCAddr = "http://chat.example", "10.0.0.9:9000"
		}, client: "http://chat.example", told: "10.0.0.9:9000", warnings: []string{open}},
		{name: "a port that was free", peerURL: "http://10.0.0.1:12379", api: "0.0.0.0:54321", edit: func(c *Config) { c.Listen = "0.0.0.0:0" },
			client: "http://10.0.0.1:54321", warnings: []string{open}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{ID: 1, Cluster: []Peer{{ID: 1, URL: tt.peerURL}}, DataDir: t.TempDir(), InsecurePeers: true}
			if tt.edit != nil {
				tt.edit(&c)
			}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			var grpc net.Addr
			if tt.grpc != "" {
				grpc = tcpAddr(t, tt.grpc)
			}
			got := c.advertised(tcpAddr(t, tt.api), grpc)
			if got.client != tt.client || got.grpc != tt.told {
				t.Errorf("told %q and %q, want %q and %q", got.client, got.grpc, tt.client, tt.told)
			}
			if !slices.EqualFunc(got.warnings, tt.warnings, strings.Contains) {
				t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got.warnings, "\n"), strings.Join(tt.warnings, "\n"))
			}
		})
	}
}

func tcpAddr(t *testing.T, s string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSameListener(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{"0.0.0.0:1", "127.0.0.1:1", true},
		{":1", "[::1]:1", true},
		{"[::]:1", "10.0.0.1:1", true},
		{"0.0.0.0:1", "[::1]:1", true},
		{"0.0.0.0:1", "LocalHost:1", true},
		{"localhost:1", "LOCALHOST:1", true},
		{"0.0.0.0:1", "node1:1", true},
		{"node1:1", "node2:1", false},
	} {
		if got, back := sameListener(tt.a, tt.b), sameListener(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("%s and %s: %v, %v, want %v", tt.a, tt.b, got, back, tt.want)
		}
	}
}
