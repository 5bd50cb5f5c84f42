package budget

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// PerConnection is what an open connection is charged: its goroutines and
	// buffers, in bytes.
	PerConnection = 16 << 10
	// Free is how much a connection may hold without a lease, in bytes: it counts
	// with the connection.
	Free = 16 << 10
)

// Use is what memory is held for.
type Use int

// The uses. Those of members come last.
const (
	Connections Use = iota // open connections of clients and their sessions
	Requests               // bodies and frames that are read
	Pages                  // answers that are written
	Streams                // what streams are writing, and what waits in sessions
	Cache                  // encodings of messages that are shared
	Peers                  // connections and requests of members, and what is sent to them
	Log                    // entries that wait to be written or applied
	uses
)

// shares gives each use its name and the part of the budget that it may take,
// in percent. What clients use is bounded to clientShare together, so the sum
// of theirs may be more.
func shares() [uses]struct {
	name    string
	percent int64
	members bool
} {
	return [uses]struct {
		name    string
		percent int64
		members bool
	}{
		Connections: {"connections", 65, false},
		Requests:    {"requests", 20, false},
		Pages:       {"pages", 20, false},
		Streams:     {"streams", 40, false},
		Cache:       {"cache", 10, false},
		Peers:       {"peers", 10, true},
		Log:         {"log", 15, true},
	}
}

// clientShare is what all uses of clients may take together, in percent. The
// rest is for members.
const clientShare = 75

// Budget is the memory that clients and peers can make a node hold. All methods
// may be called concurrently. A nil Budget has nil accounts, which refuse nothing.
type Budget struct {
	limit    int64
	clients  atomic.Int64
	accounts [uses]Account

	limitDesc, usedDesc, refusedDesc *prometheus.Desc
}

// New returns a budget of limit bytes.
func New(limit int64) *Budget {
	b := &Budget{
		limit:       limit,
		limitDesc:   prometheus.NewDesc("raft_chat_memory_budget_bytes", "Bytes that clients and peers may make this node hold.", nil, nil),
		usedDesc:    prometheus.NewDesc("raft_chat_memory_used_bytes", "Bytes of the memory budget that are taken, by use.", []string{"use"}, nil),
		refusedDesc: prometheus.NewDesc("raft_chat_memory_refused_total", "Requests and streams that the memory budget refused, by use.", []string{"use"}, nil),
	}
	for u, s := range shares() {
		a := &b.accounts[u]
		a.name, a.limit = s.name, limit/100*s.percent
		if !s.members {
			a.clients, a.clientLimit = &b.clients, limit/100*clientShare
		}
	}
	return b
}

// Limit returns the bytes of the whole budget; 0 for a nil Budget.
func (b *Budget) Limit() int64 {
	if b == nil {
		return 0
	}
	return b.limit
}

// Account returns the account of a use.
func (b *Budget) Account(u Use) *Account {
	if b == nil {
		return nil
	}
	return &b.accounts[u]
}

// Describe implements prometheus.Collector.
func (b *Budget) Describe(c chan<- *prometheus.Desc) {
	c <- b.limitDesc
	c <- b.usedDesc
	c <- b.refusedDesc
}

// Collect implements prometheus.Collector.
func (b *Budget) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.MustNewConstMetric(b.limitDesc, prometheus.GaugeValue, float64(b.limit))
	for u := range b.accounts {
		a := &b.accounts[u]
		c <- prometheus.MustNewConstMetric(b.usedDesc, prometheus.GaugeValue, float64(a.used.Load()), a.name)
		c <- prometheus.MustNewConstMetric(b.refusedDesc, prometheus.CounterValue, float64(a.refused.Load()), a.name)
	}
}

// Account is one use of a budget. All methods may be called concurrently, and on
// nil, which refuses nothing and counts nothing.
type Account struct {
	name        string
	limit       int64
	used        atomic.Int64
	refused     atomic.Uint64
	clients     *atomic.Int64 // nil for a use of members
	clientLimit int64
}

// Take takes n bytes, or reports false and takes nothing. Whoever takes gives
// back, in as many pieces as it likes.
func (a *Account) Take(n int64) bool {
	if a == nil || n <= 0 {
		return true
	}
	if a.used.Add(n) > a.limit {
		a.used.Add(-n)
		a.refused.Add(1)
		return false
	}
	if a.clients != nil && a.clients.Add(n) > a.clientLimit {
		a.clients.Add(-n)
		a.used.Add(-n)
		a.refused.Add(1)
		return false
	}
	return true
}

// Give gives n bytes back.
func (a *Account) Give(n int64) {
	if a == nil || n <= 0 {
		return
	}
	a.used.Add(-n)
	if a.clients != nil {
		a.clients.Add(-n)
	}
}

// Used returns the bytes that are taken.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.used.Load()
}

// Limit returns the bytes that may be taken at most; 0 for a nil Account.
func (a *Account) Limit() int64 {
	if a == nil {
		return 0
	}
	return a.limit
}

// Lease is what one holder has taken of an account. It belongs to one goroutine
// at a time; the zero value refuses nothing.
type Lease struct {
	account *Account
	held    int64
}

// Lease returns an empty lease.
func (a *Account) Lease() Lease { return Lease{account: a} }

// Resize makes the lease n bytes. A larger one may be refused: then it is as it
// was. The first Free bytes are not counted, see [Free].
func (l *Lease) Resize(n int64) bool {
	n = max(n-Free, 0)
	if n > l.held && !l.account.Take(n-l.held) {
		return false
	}
	if n < l.held {
		l.account.Give(l.held - n)
	}
	l.held = n
	return true
}

// Close gives everything back. The lease can be used again.
func (l *Lease) Close() { l.Resize(0) }
