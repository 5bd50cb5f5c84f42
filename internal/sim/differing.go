package sim

import (
	"io"
	"iter"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/raftnode"
)

// differing is a store that can apply an entry otherwise than the others do, as a
// bug or broken memory would, again at each start. No client sees what it holds
// from then on, and nobody gets it as a snapshot: it is there to be found out.
type differing struct {
	*chat.Store
	machine *machine
}

// difference is what is wrong with a machine's state.
type difference struct {
	wanted bool
	at     uint64 // index of the entry that is applied otherwise; 0: the next
}

// Apply implements raftnode.StateMachine.
func (d differing) Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) ([]any, error) {
	m := d.machine
	return d.Store.Apply(func(yield func(uint64, []byte) bool) {
		for index, payload := range entries {
			if m.differs.wanted && m.differs.at == 0 {
				m.differs.at = index
			}
			if m.differs.at == index {
				payload = m.world.otherPost
			}
			if !yield(index, payload) {
				return
			}
		}
	}, last, meta)
}

// Restore implements raftnode.StateMachine: what another member had takes the
// place of what is wrong.
func (d differing) Restore(content io.Reader) error {
	err := d.Store.Restore(content)
	if applied, _ := d.Store.Applied(); err == nil && d.machine.differs.at <= applied && d.machine.differs.at > 0 {
		d.machine.world.tell("node %d holds what the others do again", d.machine.id)
		d.machine.differs = difference{}
	}
	return err
}

func otherPost() ([]byte, error) {
	return chat.EncodePosts(epoch, chat.PostRequest{Room: roomName(0), User: "nobody", Payload: []byte("what nobody has said")})
}

// compared acts on a verdict, as Node does.
func (p *process) compared(v raftnode.Verdict) {
	m, w := p.machine, p.machine.world
	known := false // that somebody's state differs
	for _, o := range w.machines {
		known = known || o.differed
	}
	switch {
	case v.Outcome == raftnode.Agree:
		w.counts.Agreed++
	case v.Outcome == raftnode.Undecided:
	case !known:
		w.inside.violate("agreement", "node %d takes equal states for different ones: %+v", m.id, v)
	case v.Outcome == raftnode.OutlierHere:
		w.counts.Outliers++
		p.after(0, func() { p.fail(v.Refusal(m.id)) })
	}
}
