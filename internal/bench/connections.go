package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ConnectionsOptions say which servers are to hold how many idle connections.
type ConnectionsOptions struct {
	// Endpoints are the base URLs (http://host:port) of the nodes. Connections
	// are spread over them in turn. At least one.
	Endpoints []string
	// PIDs are the processes of these nodes, on this machine. At least one.
	PIDs []int
	// Counts are the numbers of connections at which memory is measured,
	// ascending, each 1 to 60,000.
	Counts []int
	// Rooms is how many rooms the connections follow, idle-0 and so on; 0: all
	// of them follow every room (/ws).
	Rooms int
	// Settle is how long to wait before each measurement, so that memory of the
	// handshakes can be given back. 0 means 5 s.
	Settle time.Duration
	// RequestTimeout is how long opening a connection may take. 0 means 10 s.
	RequestTimeout time.Duration

	// proc is where the kernel tells of processes; "" means /proc.
	proc string
}

// Validate reports the first option that is out of range.
func (o *ConnectionsOptions) Validate() error {
	if err := validEndpoints(o.Endpoints); err != nil {
		return err
	}
	switch {
	case len(o.PIDs) == 0:
		return fmt.Errorf("pid: the processes of the nodes are needed")
	case slices.Min(o.PIDs) < 1:
		return fmt.Errorf("pid: %d is not the id of a process", slices.Min(o.PIDs))
	case len(o.Counts) == 0:
		return fmt.Errorf("connections: at least one number is needed")
	case slices.Min(o.Counts) < 1 || slices.Max(o.Counts) > maxSockets:
		return fmt.Errorf("connections: not between 1 and %d", maxSockets)
	case !slices.IsSorted(o.Counts) || len(slices.Compact(slices.Clone(o.Counts))) != len(o.Counts):
		return fmt.Errorf("connections: the numbers do not ascend")
	case o.Rooms < 0:
		return fmt.Errorf("rooms: %d is less than 0", o.Rooms)
	case o.Settle < 0:
		return fmt.Errorf("settle: %s is less than 0", o.Settle)
	case o.RequestTimeout < 0:
		return fmt.Errorf("request timeout: %s is less than 0", o.RequestTimeout)
	}
	return nil
}

// ConnectionsReport is the result of Connections.
type ConnectionsReport struct {
	Endpoints []string `json:"endpoints"`
	PIDs      []int    `json:"pids"`
	Rooms     int      `json:"rooms"`
	// Interrupted says that not all steps were measured.
	Interrupted bool `json:"interrupted"`
	// BaseBytes is the resident memory of all processes together before the
	// first connection.
	BaseBytes int64            `json:"base_bytes"`
	Steps     []ConnectionStep `json:"steps"`
}

// ConnectionStep is one measurement.
type ConnectionStep struct {
	// Connections is how many were opened in all; Lost how many of them were
	// closed by then.
	Connections int `json:"connections"`
	Lost        int `json:"lost"`
	// ResidentBytes is the memory of all processes together.
	ResidentBytes int64 `json:"resident_bytes"`
	// BytesPerConnection is what has been added since the start, for each
	// connection that is open. Memory that a server gave back in the meantime
	// makes it smaller, down to below 0.
	BytesPerConnection float64 `json:"bytes_per_connection"`
}

// Connections opens idle WebSockets in steps and reports the servers' resident
// memory after each. When ctx ends early, the report has the steps up to then.
func Connections(ctx context.Context, o ConnectionsOptions) (ConnectionsReport, error) {
	if err := o.Validate(); err != nil {
		return ConnectionsReport{}, err
	}
	o.RequestTimeout = orStandard(o.RequestTimeout, defaultRequestTimeout)
	o.Settle = orStandard(o.Settle, 5*time.Second)
	if o.proc == "" {
		o.proc = "/proc"
	}
	addrs, err := dialAddresses(o.Endpoints)
	if err != nil {
		return ConnectionsReport{}, err
	}
	report := ConnectionsReport{Endpoints: o.Endpoints, PIDs: o.PIDs, Rooms: o.Rooms, Steps: []ConnectionStep{}}
	if report.BaseBytes, err = o.resident(); err != nil {
		return ConnectionsReport{}, err
	}

	live, closeAll := context.WithCancel(context.WithoutCancel(ctx))
	var reading sync.WaitGroup
	defer reading.Wait()
	defer closeAll()
	var lost atomic.Int64
	opened := 0
	for _, count := range o.Counts {
		err := openAll(ctx, count-opened, func(i int) error {
			i += opened
			path := "/ws"
			if o.Rooms > 0 {
				path = "/rooms/idle-" + strconv.Itoa(i%o.Rooms) + "/ws"
			}
			s, err := openSocket(live, addrs[i%len(addrs)], path, o.RequestTimeout, 0)
			if err != nil {
				return err
			}
			reading.Go(func() {
				defer s.close()
				for {
					if _, err := s.next(0); err != nil {
						lost.Add(1)
						return
					}
				}
			})
			return nil
		})
		if ctx.Err() != nil {
			report.Interrupted = true
			return report, nil
		}
		if err != nil {
			return report, fmt.Errorf("open connections %d to %d: %w", opened+1, count, err)
		}
		opened = count
		if !pause(ctx, o.Settle) {
			report.Interrupted = true
			return report, nil
		}
		step := ConnectionStep{Connections: count, Lost: int(lost.Load())}
		if step.ResidentBytes, err = o.resident(); err != nil {
			return report, err
		}
		if held := count - step.Lost; held > 0 {
			step.BytesPerConnection = float64(step.ResidentBytes-report.BaseBytes) / float64(held)
		}
		report.Steps = append(report.Steps, step)
	}
	return report, nil
}

// resident returns the memory of all processes together, in bytes.
func (o *ConnectionsOptions) resident() (int64, error) {
	sum := int64(0)
	for _, pid := range o.PIDs {
		n, err := residentBytes(o.proc, pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// WriteJSON writes the report as one indented JSON object.
func (r ConnectionsReport) WriteJSON(w io.Writer) error { return writeIndented(w, r) }

// WriteText writes the report for people.
func (r ConnectionsReport) WriteText(w io.Writer) error {
	var b strings.Builder
	follow := "every room"
	if r.Rooms > 0 {
		follow = plural(r.Rooms, "room")
	}
	fmt.Fprintf(&b, "idle WebSockets on %s, following %s%s\n", plural(len(r.Endpoints), "node"), follow, onlyIf(r.Interrupted, ", interrupted"))
	fmt.Fprintf(&b, "%11s  %6s  %9s  %15s\n", "connections", "lost", "RSS", "per connection")
	fmt.Fprintf(&b, "%11d  %6d  %5.1f MiB  %15s\n", 0, 0, mebibytes(r.BaseBytes), "")
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%11d  %6d  %5.1f MiB  %9.0f bytes\n", s.Connections, s.Lost, mebibytes(s.ResidentBytes), s.BytesPerConnection)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
