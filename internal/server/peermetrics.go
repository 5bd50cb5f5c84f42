package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/raft-chat/raft-chat/raftnode"
)

// peerMetrics shows to Prometheus what a node has refused on its peer listener.
type peerMetrics struct {
	node                                *raftnode.Node
	messages, requests, closed, current *prometheus.Desc
}

func newPeerMetrics(node *raftnode.Node) *peerMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("raft_chat_peer_"+name, help, labels, nil)
	}
	return &peerMetrics{
		node:     node,
		messages: desc("dropped_messages_total", "Raft messages dropped because no member can have sent them, by what is wrong.", "reason"),
		requests: desc("refused_requests_total", "Requests refused on the peer listener, by reason.", "reason"),
		closed:   desc("closed_connections_total", "Connections of the peer listener closed to make room, by what there was too much of.", "reason"),
		current:  desc("connections", "Connections to the peer listener that are open."),
	}
}

// Describe implements prometheus.Collector.
func (p *peerMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.messages, p.requests, p.closed, p.current} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (p *peerMetrics) Collect(c chan<- prometheus.Metric) {
	counts := p.node.PeerCounts()
	for _, each := range []struct {
		desc *prometheus.Desc
		by   map[string]uint64
	}{{p.messages, counts.DroppedMessages}, {p.requests, counts.RefusedRequests}, {p.closed, counts.ClosedConnections}} {
		for reason, n := range each.by {
			c <- prometheus.MustNewConstMetric(each.desc, prometheus.CounterValue, float64(n), reason)
		}
	}
	c <- prometheus.MustNewConstMetric(p.current, prometheus.GaugeValue, float64(counts.Connections))
}
