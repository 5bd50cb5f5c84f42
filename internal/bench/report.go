package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is the result of a run. All of it is about the measured window; see
// the package comment for what that takes in. The JSON form has durations in
// milliseconds.
type Report struct {
	Endpoints     []EndpointCount `json:"endpoints"`
	Concurrency   int             `json:"concurrency"`
	Rooms         int             `json:"rooms"`
	Bytes         int             `json:"bytes"`
	ClientIDs     bool            `json:"client_ids"`
	Seconds       float64         `json:"seconds"`        // length of the window
	WarmupSeconds float64         `json:"warmup_seconds"` // before it
	Interrupted   bool            `json:"interrupted"`

	// Acknowledged counts the answers 2xx; Repeated those of them that were 200
	// because an earlier attempt had stored the message already.
	Acknowledged uint64  `json:"acknowledged"`
	PerSecond    float64 `json:"acknowledged_per_second"`
	Repeated     uint64  `json:"repeated"`
	Latency      Latency `json:"latency_ms"`

	// Failed is the sum of Errors, which are sorted by count, largest first.
	Failed uint64       `json:"failed"`
	Errors []ErrorCount `json:"errors"`
}

// EndpointCount is how many messages one node acknowledged.
type EndpointCount struct {
	URL          string `json:"url"`
	Acknowledged uint64 `json:"acknowledged"`
}

// ErrorCount is how often one kind of failure was seen: "503 no_leader" for a
// refusal with a code, "502" for one without, words for a broken connection.
type ErrorCount struct {
	Kind  string `json:"kind"`
	Count uint64 `json:"count"`
}

// Latency is the time from writing a request to having read its answer, of the
// acknowledged messages, in milliseconds. Quantiles are less than 1 % off.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func newReport(o Options, t *tally, measured time.Duration, interrupted bool) Report {
	r := Report{
		Concurrency: o.Concurrency, Rooms: o.Rooms, Bytes: o.Bytes, ClientIDs: o.ClientIDs,
		Seconds: measured.Seconds(), WarmupSeconds: o.Warmup.Seconds(), Interrupted: interrupted,
		Acknowledged: t.acknowledged, Repeated: t.repeated,
		Endpoints: make([]EndpointCount, len(o.Endpoints)),
		Latency:   latencyOf(&t.latency),
	}
	if measured > 0 {
		r.PerSecond = float64(t.acknowledged) / measured.Seconds()
	}
	for i, e := range o.Endpoints {
		r.Endpoints[i] = EndpointCount{URL: e, Acknowledged: t.perEndpoint[i]}
	}
	r.Errors, r.Failed = t.sorted()
	return r
}

// sorted returns the errors, the most frequent first, and their sum.
func (t *tally) sorted() (list []ErrorCount, sum uint64) {
	list = make([]ErrorCount, 0, len(t.errors))
	for kind, n := range t.errors {
		list = append(list, ErrorCount{Kind: kind, Count: n})
		sum += n
	}
	slices.SortFunc(list, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Kind, b.Kind))
	})
	return list, sum
}

func latencyOf(h *Histogram) Latency {
	return Latency{
		Mean: milliseconds(h.Mean()),
		P50:  milliseconds(h.Quantile(0.5)),
		P90:  milliseconds(h.Quantile(0.9)),
		P99:  milliseconds(h.Quantile(0.99)),
		P999: milliseconds(h.Quantile(0.999)),
		Max:  milliseconds(h.Max()),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// WriteJSON writes the report as one indented JSON object.
func (r Report) WriteJSON(w io.Writer) error { return writeIndented(w, r) }

func writeIndented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "load          %s, %s, %d-byte messages%s\n",
		plural(r.Concurrency, "worker"), plural(r.Rooms, "room"), r.Bytes, onlyIf(r.ClientIDs, ", client message ids"))
	fmt.Fprintf(&b, "measured      %.1f s after %.1f s of warm-up%s\n", r.Seconds, r.WarmupSeconds, onlyIf(r.Interrupted, ", interrupted"))
	fmt.Fprintf(&b, "acknowledged  %d, %.1f/s\n", r.Acknowledged, r.PerSecond)
	if r.Repeated > 0 {
		fmt.Fprintf(&b, "              %d of them stored by an earlier attempt\n", r.Repeated)
	}
	if len(r.Endpoints) > 1 {
		for _, e := range r.Endpoints {
			fmt.Fprintf(&b, "              %d at %s\n", e.Acknowledged, e.URL)
		}
	}
	if r.Acknowledged > 0 {
		writeLatency(&b, "latency", r.Latency)
	}
	writeErrors(&b, r.Failed, r.Errors)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeLatency writes one line under a label, which may be empty.
func writeLatency(b *strings.Builder, label string, l Latency) {
	fmt.Fprintf(b, "%-13s p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n", label, l.P50, l.P90, l.P99, l.P999, l.Max)
}

func writeErrors(b *strings.Builder, failed uint64, errors []ErrorCount) {
	fmt.Fprintf(b, "errors        %d\n", failed)
	for _, e := range errors {
		fmt.Fprintf(b, "              %d × %s\n", e.Count, e.Kind)
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func onlyIf(cond bool, s string) string {
	if cond {
		return s
	}
	return ""
}
