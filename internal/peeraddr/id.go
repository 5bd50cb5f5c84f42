package peeraddr

import (
	"fmt"
	"math"
)

// MaxID is the highest id that a member can have. The two above it are raft's
// own: messages to them go to the storage of the node that sends them.
const MaxID = math.MaxUint64 - 2

// CheckID returns why no member can have an id, or nil.
func CheckID(id uint64) error {
	switch {
	case id == 0:
		return fmt.Errorf("0 is not a node id: ids go from 1 to %d", uint64(MaxID))
	case id > MaxID:
		return fmt.Errorf("%d is not a node id: raft keeps the two highest numbers for itself; ids go from 1 to %d", id, uint64(MaxID))
	}
	return nil
}
