package sim

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// certain is how old damage must be to be found for certain: what was written
// within the lag of the high-water record can look like a torn tail.
const certain = 2 * highWaterLag

// rot damages a record that has a whole later write behind it, and says what
// was done; "" if there is none.
func (d *disk) rot(n uint64) string {
	states := 0
	end := 0 // records before it have a state and a record behind them
	for i := len(d.records) - 2; i > 0; i-- {
		if d.records[i].state != nil {
			states++
			end = i
			break
		}
	}
	if states == 0 || end == 0 {
		return ""
	}
	at := int(n % uint64(end))
	d.records[at].rot = true
	return fmt.Sprintf("record %d of %d is damaged", at, len(d.records))
}

// truncate cuts the log behind a sync, so that nothing in it looks wrong: only
// the high-water record can tell.
func (d *disk) truncate(n uint64) string {
	var cuts []int
	lost := false // what is cut has changed what the log reaches
	for i := len(d.records) - 1; i > 0; i-- {
		r := d.records[i]
		if r.entry != nil && r.at+certain < d.highAt {
			lost = true
		}
		if r.mark != nil {
			break
		}
		if lost && d.records[i-1].state != nil {
			cuts = append(cuts, i)
		}
	}
	if len(cuts) == 0 {
		return ""
	}
	at := cuts[n%uint64(len(cuts))]
	said := fmt.Sprintf("the log is cut at record %d of %d", at, len(d.records))
	d.records = d.records[:at]
	d.synced = at
	return said
}

// loseStore empties the store, if its log does not reach back to the beginning.
func (m *machine) loseStore() string {
	for _, r := range m.disk.records {
		if r.mark.GetIndex() > 1 && m.disk.staged[r.mark.GetIndex()] == nil && r.mark.GetIndex() <= m.disk.state().GetCommit() {
			m.fs = vfs.NewCrashableMem()
			return "the store is gone"
		}
	}
	return ""
}
