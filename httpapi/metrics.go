package httpapi

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// metrics are the server's own counters. Label lookups happen when routes are built, never for a request.
type metrics struct {
	requests *prometheus.CounterVec
	unrouted *routeCounters
	panics   prometheus.Counter
	streams  prometheus.Gauge
	open     *prometheus.GaugeVec
	messages prometheus.Counter
	ended    *prometheus.CounterVec
	page     http.Handler
}

// newMetrics registers the counters on registry.
func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raft_chat_http_requests_total",
			Help: "Requests answered, by route pattern and class of the status.",
		}, []string{"route", "class"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "raft_chat_http_panics_total",
			Help: "Handlers that panicked.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "raft_chat_http_streams",
			Help: "Streams open now.",
		}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "raft_chat_http_streams_open",
			Help: "Streams open now, by form.",
		}, []string{"form"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "raft_chat_http_stream_messages_total",
			Help: "Messages written to streams.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raft_chat_http_streams_ended_total",
			Help: "Streams that ended, by reason.",
		}, []string{"reason"}),
		page: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	registry.MustRegister(m.requests, m.panics, m.streams, m.open, m.messages, m.ended)
	m.unrouted = m.route("other")
	return m
}

// routeCounters are the counters of one route: index 1 to 5 is the class of the status.
type routeCounters struct{ classes [6]prometheus.Counter }

// route returns the counters of a pattern.
func (m *metrics) route(pattern string) *routeCounters {
	c := new(routeCounters)
	for i, class := range [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		if class != "" {
			c.classes[i] = m.requests.WithLabelValues(pattern, class)
		}
	}
	return c
}

// count adds a request that was answered with status; 0 is a handler that wrote nothing, which net/http makes a 200.
func (c *routeCounters) count(status int) {
	if status == 0 {
		status = http.StatusOK
	}
	if class := status / 100; class >= 1 && class <= 5 {
		c.classes[class].Inc()
	}
}

// getMetrics is GET /metrics.
func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) *problem {
	lease := s.options.Budget.Account(budget.Pages).Lease()
	defer lease.Close()
	if !lease.Resize(scrapeBytes) {
		return overloaded("too many metrics are being read slowly")
	}
	s.metrics.page.ServeHTTP(stepped{w, s}, r)
	return nil
}

// scrapeBytes is about what the metrics hold while they are written.
const scrapeBytes = 128 << 10

// stepped gives each write of an answer its own time limit.
type stepped struct {
	http.ResponseWriter
	server *Server
}

// Write implements http.ResponseWriter.
func (w stepped) Write(b []byte) (int, error) {
	if err := w.server.writeStep(w.ResponseWriter, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// newLagGauge tells how far behind the newest message the slowest stream is, in IDs. A stream that waits for messages is
// not behind, however old the last one in its rooms is.
func newLagGauge(s *Server) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "raft_chat_http_stream_lag",
		Help: "Messages of the cluster between the oldest that is being written to a stream and the newest.",
	}, func() float64 {
		head, lag := s.options.Chat.Head(), uint64(0)
		s.mu.Lock()
		defer s.mu.Unlock()
		for f := range s.streams {
			if at := f.writing.Load(); at != 0 && at <= head {
				lag = max(lag, head-at+1)
			}
		}
		return float64(lag)
	})
}
