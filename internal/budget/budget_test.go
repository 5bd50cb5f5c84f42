package budget

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestOneUseCannotTakeWhatIsAnothers(t *testing.T) {
	b := New(1 << 20)
	connections, pages, peers := b.Account(Connections), b.Account(Pages), b.Account(Peers)
	for connections.Take(1 << 10) {
	}
	if !pages.Take(1 << 10) {
		t.Error("connections have starved pages")
	}
	for pages.Take(1 << 10) {
	}
	if !peers.Take(1 << 10) {
		t.Error("clients have starved peers")
	}
	if used := connections.Used() + pages.Used(); used > 1<<20/100*clientShare {
		t.Errorf("clients hold %d bytes, more than their share", used)
	}
	pages.Give(pages.Used())
	if !pages.Take(1 << 10) {
		t.Error("what was given back cannot be taken again")
	}
}

func TestLeaseCountsBeyondItsFreeBytes(t *testing.T) {
	a := New(1 << 20).Account(Pages)
	l := a.Lease()
	if !l.Resize(Free) || a.Used() != 0 {
		t.Errorf("the free bytes were counted: %d", a.Used())
	}
	if !l.Resize(Free+1000) || a.Used() != 1000 {
		t.Errorf("%d bytes used, want 1000", a.Used())
	}
	if l.Resize(1 << 30) {
		t.Error("a lease larger than the account was not refused")
	}
	if a.Used() != 1000 {
		t.Errorf("a refusal changed the lease: %d bytes used", a.Used())
	}
	l.Close()
	l.Close()
	if a.Used() != 0 {
		t.Errorf("%d bytes used after Close", a.Used())
	}
}

func TestWithoutABudgetNothingIsRefused(t *testing.T) {
	var b *Budget
	l := b.Account(Streams).Lease()
	if !l.Resize(1<<60) || !b.Account(Log).Take(1<<60) {
		t.Error("refused without a budget")
	}
	l.Close()
	var zero Lease
	if !zero.Resize(1 << 40) {
		t.Error("the zero lease refused")
	}
}

// Whatever many holders do at once, an account never goes over its limit by
// what was granted, and comes back to nothing.
func TestManyHolders(t *testing.T) {
	a := New(1 << 20).Account(Streams)
	var holders sync.WaitGroup
	for range 32 {
		holders.Go(func() {
			l := a.Lease()
			defer l.Close()
			for i := range int64(1000) {
				l.Resize(Free + i*100%50_000)
			}
		})
	}
	holders.Wait()
	if a.Used() != 0 {
		t.Errorf("%d bytes used in the end", a.Used())
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	b := New(1 << 20)
	b.Account(Pages).Take(1 << 30)
	problems, err := testutil.CollectAndLint(b)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	if n := testutil.CollectAndCount(b); n != 1+2*int(uses) {
		t.Errorf("%d metrics", n)
	}
}
