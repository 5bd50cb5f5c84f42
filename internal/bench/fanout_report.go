package bench

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// FanoutReport is the result of Fanout. The counts of messages and deliveries
// are of messages that were due inside the measured window; the JSON form has
// durations in milliseconds.
type FanoutReport struct {
	Endpoints     []string `json:"endpoints"`
	Rooms         int      `json:"rooms"`
	Subscribers   int      `json:"subscribers_per_room"`
	Stalled       int      `json:"stalled"`
	Rate          float64  `json:"rate_per_second"` // asked for
	Bytes         int      `json:"bytes"`
	Seconds       float64  `json:"seconds"`
	WarmupSeconds float64  `json:"warmup_seconds"`
	Interrupted   bool     `json:"interrupted"`

	// Acknowledged is how many messages the cluster has taken; SendLatency the
	// time from when each was due to its acknowledgement.
	Acknowledged uint64  `json:"acknowledged"`
	SendLatency  Latency `json:"send_latency_ms"`

	// Expected is what the subscribers should have received of these, Delivered
	// what they have. Latency is the time from when a message was due to its
	// delivery.
	Expected  uint64  `json:"expected"`
	Delivered uint64  `json:"delivered"`
	PerSecond float64 `json:"delivered_per_second"`
	Latency   Latency `json:"latency_ms"`

	// Incomplete is how many subscribers lack a message at the end. Skipped and
	// Repeated count breaks in the order of Seq, over all subscribers and the
	// whole run. Lost is how many subscribers lost their connection.
	Incomplete int    `json:"incomplete_subscribers"`
	Skipped    uint64 `json:"skipped"`
	Repeated   uint64 `json:"repeated"`
	Lost       int    `json:"lost_subscribers"`
	// StalledCut is how many of the stalled subscribers the servers had cut off
	// at the end.
	StalledCut int `json:"stalled_cut"`

	// Failed is the sum of Errors, over the whole run.
	Failed uint64       `json:"failed"`
	Errors []ErrorCount `json:"errors"`
}

// report sums up a run whose goroutines have ended. held is how many stalled
// subscribers were not cut off.
func (f *fanout) report(measured time.Duration, interrupted bool, held int) FanoutReport {
	o := &f.options
	r := FanoutReport{
		Endpoints: o.Endpoints, Rooms: o.Rooms, Subscribers: o.Subscribers, Stalled: o.Stalled, Rate: o.Rate, Bytes: o.Bytes,
		Seconds: measured.Seconds(), WarmupSeconds: o.Warmup.Seconds(), Interrupted: interrupted,
		SendLatency: latencyOf(&f.sent.latency), StalledCut: o.Stalled - held,
	}
	for i := range f.posted {
		n := f.posted[i].measured.Load()
		r.Acknowledged += n
		r.Expected += n * uint64(o.Subscribers)
	}
	var latency Histogram
	for i := range f.shards {
		r.Delivered += f.shards[i].delivered
		latency.Merge(&f.shards[i].latency)
	}
	r.Latency = latencyOf(&latency)
	if measured > 0 {
		r.PerSecond = float64(r.Delivered) / measured.Seconds()
	}
	for _, s := range f.subscribers {
		r.Skipped += s.skipped
		r.Repeated += s.repeated
		if s.received.Load() < f.posted[s.room].acknowledged.Load() {
			r.Incomplete++
		}
		// At the end the sockets are closed here, which fails otherwise.
		var closed *closeError
		if errors.As(s.err, &closed) {
			r.Lost++
			f.sent.countError(closed.Error(), 1)
		} else if kind := transportKind(s.err); kind == connectionClosed || kind == "timeout" || errors.Is(s.err, errFrame) {
			r.Lost++
			f.sent.countError("subscriber: "+kind, 1)
		}
	}
	r.Errors, r.Failed = f.sent.sorted()
	return r
}

// WriteJSON writes the report as one indented JSON object.
func (r FanoutReport) WriteJSON(w io.Writer) error { return writeIndented(w, r) }

// WriteText writes the report for people.
func (r FanoutReport) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "load          %s × %s, %.1f messages/s of %d bytes%s\n", plural(r.Rooms, "room"), plural(r.Subscribers, "subscriber"),
		r.Rate, r.Bytes, onlyIf(r.Stalled > 0, fmt.Sprintf(", %d stalled subscribers", r.Stalled)))
	fmt.Fprintf(&b, "measured      %.1f s after %.1f s of warm-up%s\n", r.Seconds, r.WarmupSeconds, onlyIf(r.Interrupted, ", interrupted"))
	fmt.Fprintf(&b, "acknowledged  %d\n", r.Acknowledged)
	if r.Acknowledged > 0 {
		writeLatency(&b, "", r.SendLatency)
	}
	fmt.Fprintf(&b, "delivered     %d of %d, %.1f/s\n", r.Delivered, r.Expected, r.PerSecond)
	if r.Delivered > 0 {
		writeLatency(&b, "latency", r.Latency)
	}
	fmt.Fprintf(&b, "subscribers   %d incomplete, %d lost their connection; %d messages skipped, %d repeated\n",
		r.Incomplete, r.Lost, r.Skipped, r.Repeated)
	if r.Stalled > 0 {
		fmt.Fprintf(&b, "stalled       %d of %d cut off\n", r.StalledCut, r.Stalled)
	}
	writeErrors(&b, r.Failed, r.Errors)
	_, err := io.WriteString(w, b.String())
	return err
}
