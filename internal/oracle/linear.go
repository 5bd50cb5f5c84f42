package oracle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/anishathalye/porcupine"
)

// Bounds of one search for a linearization. Operations of a room have few legal
// orders, so that a search takes about as many steps as it has operations,
// unless one of them is wrong.
const (
	mostOperations = 256
	mostSteps      = 1 << 20
)

// operation is a post or a read of a room, as the model sees it.
type operation struct {
	post  bool
	seq   uint64 // that a post got, or the newest that a read saw
	begun int64
	ended int64
}

// operations lists those of a room of which the outcome is known or can be
// told, in the only order in which they can have happened, but for reads of the
// same state, which are as good in any order.
func (r *room) operations() []operation {
	var all []operation
	known := map[uint64]bool{}
	for _, p := range r.sent {
		if p.seq == 0 {
			continue // nobody knows of it, so it makes no difference
		}
		known[p.seq] = true
		op := operation{post: true, seq: p.seq, begun: p.begun.moment, ended: math.MaxInt64}
		if p.acknowledged() {
			op.ended = p.ended.moment
		}
		all = append(all, op)
	}
	// A message can be dropped before anybody saw it.
	last := r.last
	for _, read := range r.reads {
		last = max(last, read.last)
	}
	for seq := uint64(1); seq < r.dropped && seq <= last; seq++ {
		if !known[seq] {
			all = append(all, operation{post: true, seq: seq, ended: math.MaxInt64})
		}
	}
	for _, read := range r.reads {
		all = append(all, operation{seq: read.last, begun: read.begun.moment, ended: read.ended.moment})
	}
	slices.SortFunc(all, func(a, b operation) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), -compareBool(a.post, b.post), cmp.Compare(a.begun, b.begun))
	})
	return all
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// checkOrder judges O6 of a room.
func (r *room) checkOrder(found *findings) {
	for _, read := range r.reads {
		if read.empty && read.last >= max(r.dropped, 1) {
			found.add(o6, "a read of %v saw that it goes on to %d and got nothing", r, read.last)
		}
	}
	r.checkPieces(found, mostOperations)
}

// checkPieces searches a long history in pieces, each of which begins with the
// state that the one before must end with: then the whole is linearizable if
// every piece is and no operation of a piece had ended when one of an earlier
// piece began.
func (r *room) checkPieces(found *findings, size int) {
	rest := r.operations()
	before, latest := uint64(0), operation{} // of the pieces so far: their state, and which began last
	for len(rest) > 0 {
		piece := rest[:min(len(rest), size)]
		rest = rest[len(piece):]
		for _, op := range piece {
			if op.ended < latest.begun {
				found.add(o6, "%v: %s must come before %s, which had ended when that began", r, latest, op)
				return
			}
		}
		switch linearizable(before, piece) {
		case searchEnded:
			found.add(o6, "%v: not finished after %d steps with the %d operations from Seq %d on", r, mostSteps, len(piece), before)
			return
		case illegal:
			found.add(o6, "%v: no order explains the %d operations from Seq %d to %d%s", r, len(piece), piece[0].seq, piece[len(piece)-1].seq, suspects(before, piece))
			return
		}
		for _, op := range piece {
			if op.begun > latest.begun {
				latest = op
			}
			before = max(before, op.seq)
		}
	}
}

// suspects names the first operations of a piece that contradict each other, for
// people: they are in the order in which they must have happened.
func suspects(state uint64, piece []operation) string {
	latest := operation{}
	for _, op := range piece {
		switch {
		case op.post && op.seq != state+1 || !op.post && op.seq != state:
			return fmt.Sprintf("; %s cannot come when the newest is %d", op, state)
		case op.ended < latest.begun:
			return fmt.Sprintf("; %s must come before %s, which had ended when that began", latest, op)
		case op.begun > latest.begun:
			latest = op
		}
		state = op.seq
	}
	return ""
}

// verdict is the outcome of a search.
type verdict int

const (
	legal verdict = iota
	illegal
	searchEnded // without an answer
)

// linearizable searches an order of operations that respects when they began
// and ended and is legal for a room whose newest Seq is first. It gives up by
// the number of steps, not by a clock: the answer must be the same every time.
func linearizable(first uint64, operations []operation) verdict {
	history := make([]porcupine.Operation, len(operations))
	for i, op := range operations {
		history[i] = porcupine.Operation{Input: op, Call: op.begun, Return: op.ended}
	}
	steps := 0
	model := porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, _ any) (bool, any) {
			steps++
			last, op := state.(uint64), input.(operation)
			switch {
			case steps > mostSteps: // then nothing is legal, and the search runs out
				return false, last
			case op.post:
				return last == op.seq-1, op.seq
			default:
				return last == op.seq, last
			}
		},
	}
	switch {
	case porcupine.CheckOperations(model, history):
		return legal
	case steps > mostSteps:
		return searchEnded
	}
	return illegal
}

// String names the operation in reports.
func (o operation) String() string {
	if o.post {
		return "the post of Seq " + strconv.FormatUint(o.seq, 10)
	}
	return "a read that saw Seq " + strconv.FormatUint(o.seq, 10)
}
