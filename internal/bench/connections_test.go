package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// setResident writes what the kernel would tell of a process.
func setResident(t *testing.T, proc string, pid, kilobytes int) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("Name:\traft-chat\nVmHWM:\t   99999 kB\nVmRSS:\t  %d kB\nThreads:\t9\n", kilobytes)
	// Replaced in one step, because it may be read at the same time.
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "status")); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsMeasuresSteps(t *testing.T) {
	proc := t.TempDir()
	setResident(t, proc, 11, 1000)
	setResident(t, proc, 12, 2000)
	var mu sync.Mutex
	open := 0
	addr := serveSocket(t, func(ctx context.Context, c *websocket.Conn) {
		ctx = c.CloseRead(ctx)
		mu.Lock()
		open++
		setResident(t, proc, 12, 2000+4*open) // every connection costs 4 KiB
		mu.Unlock()
		<-ctx.Done()
	})
	report, err := Connections(t.Context(), ConnectionsOptions{
		Endpoints: []string{"http://" + addr}, PIDs: []int{11, 12}, Counts: []int{10, 30}, Rooms: 3,
		Settle: 200 * time.Millisecond, proc: proc,
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.BaseBytes != 3000<<10 || len(report.Steps) != 2 || report.Interrupted {
		t.Fatalf("report: %+v", report)
	}
	for i, n := range []int{10, 30} {
		s := report.Steps[i]
		if s.Connections != n || s.Lost != 0 {
			t.Errorf("step: %+v", s)
		}
		// The server may not have come to count the last ones yet.
		if s.BytesPerConnection > 4096 || s.ResidentBytes <= report.BaseBytes {
			t.Errorf("memory: %+v", s)
		}
	}
}

func TestConnectionsFollowWhatIsAsked(t *testing.T) {
	proc := t.TempDir()
	setResident(t, proc, 1, 1)
	for rooms, want := range map[int]int{0: 1, 4: 4} {
		c, url := startChatRooms(t)
		_, err := Connections(t.Context(), ConnectionsOptions{
			Endpoints: []string{url}, PIDs: []int{1}, Counts: []int{8}, Rooms: rooms, Settle: 1, proc: proc,
		})
		c.mu.Lock()
		if err != nil || len(c.paths) != want {
			t.Errorf("%d rooms: %v, %v", rooms, c.paths, err)
		}
		c.mu.Unlock()
	}
}

func TestConnectionsCountsLost(t *testing.T) {
	proc := t.TempDir()
	setResident(t, proc, 1, 100)
	var n atomic.Int64
	addr := serveSocket(t, func(ctx context.Context, c *websocket.Conn) {
		if n.Add(1) <= 3 {
			return
		}
		<-c.CloseRead(ctx).Done()
	})
	report, err := Connections(t.Context(), ConnectionsOptions{
		Endpoints: []string{"http://" + addr}, PIDs: []int{1}, Counts: []int{10}, Settle: time.Second, proc: proc,
	})
	if err != nil || len(report.Steps) != 1 || report.Steps[0].Lost != 3 {
		t.Errorf("report: %+v, %v", report, err)
	}
}

func TestConnectionsFails(t *testing.T) {
	proc := t.TempDir()
	setResident(t, proc, 1, 100)
	_, url := startChatRooms(t)
	base := ConnectionsOptions{Endpoints: []string{url}, PIDs: []int{1}, Counts: []int{1}, Settle: 1, proc: proc}
	for want, edit := range map[string]func(*ConnectionsOptions){
		"endpoints:":                 func(o *ConnectionsOptions) { o.Endpoints = nil },
		"pid: the processes":         func(o *ConnectionsOptions) { o.PIDs = nil },
		"pid: -1":                    func(o *ConnectionsOptions) { o.PIDs = []int{1, -1} },
		"connections: at least one":  func(o *ConnectionsOptions) { o.Counts = nil },
		"connections: not between":   func(o *ConnectionsOptions) { o.Counts = []int{0} },
		"connections: the numbers":   func(o *ConnectionsOptions) { o.Counts = []int{2, 2} },
		"rooms:":                     func(o *ConnectionsOptions) { o.Rooms = -1 },
		"settle:":                    func(o *ConnectionsOptions) { o.Settle = -1 },
		"request timeout:":           func(o *ConnectionsOptions) { o.RequestTimeout = -1 },
		"read memory of process 2: ": func(o *ConnectionsOptions) { o.PIDs = []int{2} },
		"open connections 1 to 1:":   func(o *ConnectionsOptions) { o.Endpoints = []string{"http://127.0.0.1:1"} },
	} {
		o := base
		edit(&o)
		if _, err := Connections(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := Connections(ctx, base); err != nil || !report.Interrupted {
		t.Errorf("interrupted: %+v, %v", report, err)
	}
}

func TestConnectionsReportForms(t *testing.T) {
	r := ConnectionsReport{
		Endpoints: []string{"http://a:1", "http://b:1"}, PIDs: []int{1, 2}, BaseBytes: 50 << 20,
		Steps: []ConnectionStep{{1000, 0, 60 << 20, 10485.76}, {10000, 2, 150 << 20, 10487.8}},
	}
	const want = `idle WebSockets on 2 nodes, following every room
connections    lost        RSS   per connection
          0       0   50.0 MiB                 
       1000       0   60.0 MiB      10486 bytes
      10000       2  150.0 MiB      10488 bytes
`
	var text, encoded strings.Builder
	if err := r.WriteText(&text); err != nil || text.String() != want {
		t.Errorf("text:\n%s\nwant:\n%s(%v)", text.String(), want, err)
	}
	var back ConnectionsReport
	if err := r.WriteJSON(&encoded); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(encoded.String()), &back); err != nil || fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("JSON: %+v, %v", back, err)
	}
}

func TestOwnMemory(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc here")
	}
	if n, err := residentBytes("/proc", os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func FuzzParseResident(f *testing.F) {
	f.Add([]byte("VmRSS:\t  12 kB\n"))
	f.Add([]byte("VmRSS: -1 kB"))
	f.Add([]byte("Name:\tx\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		if n, err := parseResident(status); err == nil && n < 0 {
			t.Errorf("%d bytes", n)
		}
	})
}
