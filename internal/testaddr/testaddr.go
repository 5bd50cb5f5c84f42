// Package testaddr gives tests addresses that are theirs alone.
//
// A test that stops a node and starts it again needs its port back, so it cannot
// take whatever port is free: another test, or a connection of anybody's, may
// take the port meanwhile. All of 127.0.0.0/8 is this machine, so each test
// process takes an address of its own from it, and has all ports there.
// Connections to such an address come from 127.0.0.1, so they take none of them.
package testaddr

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
)

// Host is the loopback address of this process. Elsewhere than on Linux only
// 127.0.0.1 is there, which other processes use as well.
func Host() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid := os.Getpid() // below 2^22 on Linux
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>16&63, pid>>8&255, pid&255)
}

// last is the port given out last. Ports of 32768 and above are for outgoing
// connections, where addresses are shared.
var last atomic.Int32

// Port returns a port of Host that nobody has: neither another call nor a
// program that listens on all addresses of the machine.
func Port(t testing.TB) int {
	t.Helper()
	for {
		port := 13_000 + int(last.Add(1))
		if port >= 32_768 {
			t.Fatal("this process has used up its ports")
		}
		l, err := net.Listen("tcp", net.JoinHostPort(Host(), fmt.Sprint(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
}

// Addr is a host:port of Host that nobody has.
func Addr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort(Host(), fmt.Sprint(Port(t)))
}

// Listen listens on an address of Host that nobody has.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
