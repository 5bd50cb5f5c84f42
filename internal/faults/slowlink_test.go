//go:build linux

package faults

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func TestSlowLinkKeepsTheBytesInOrder(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		c, err := target.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // what the test reads shows whether it worked
	}()
	// Later pieces with shorter delays must not overtake.
	n := 0
	delay := make(chan struct{}, 1)
	link, err := openSlowLink("127.0.0.1:0", target.Addr().String(), func() time.Duration {
		delay <- struct{}{}
		defer func() { <-delay }()
		n++
		return time.Duration(10-n%10) * time.Millisecond
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", link.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var sent bytes.Buffer
	for i := range 20_000 {
		sent.WriteByte(byte(i * i))
	}
	go func() { _, _ = c.Write(sent.Bytes()) }() // a failure shows in what comes back
	got := make([]byte, sent.Len())
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent.Bytes()) {
		t.Error("other bytes came back than were sent")
	}
	// Closing it ends the connections and everything that served them.
	if err := link.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.Read(got); err == nil {
		t.Error("the connection outlives the link")
	}
	<-echoed
	if _, err := net.Dial("tcp", link.listener.Addr().String()); err == nil {
		t.Error("the link accepts connections after close")
	}
}
