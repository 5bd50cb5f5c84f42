package testaddr

import (
	"net"
	"strings"
	"testing"
)

func TestAddressesAreDistinctAndOurs(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		addr := Addr(t)
		if seen[addr] {
			t.Fatalf("%s was given out twice", addr)
		}
		seen[addr] = true
		if ip := net.ParseIP(Host()); !ip.IsLoopback() {
			t.Fatalf("%s is no loopback address", ip)
		}
	}
	l := Listen(t)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Otherwise a connection of a test could hold a port that a node wants back.
	if from := c.LocalAddr().String(); strings.HasPrefix(from, Host()+":") && Host() != "127.0.0.1" {
		t.Errorf("a connection to %s takes a port of it: %s", l.Addr(), from)
	}
}
