package raftnode

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// BootID names one start of a data directory. Zero is none.
type BootID uint64

// BootList is the newest starts of a directory, the oldest first. A directory
// that was put back to an older copy of itself, or is a copy, lacks the starts
// that the other one has had since.
type BootList []BootID

// maxBoots is how many starts a directory remembers. A member that was away for
// more of them takes the directory for an older copy.
const maxBoots = 256

func newBootID() (id BootID) {
	var b [8]byte
	for id == 0 {
		_, _ = rand.Read(b[:]) // never fails, as crypto/rand promises
		id = BootID(binary.BigEndian.Uint64(b[:]))
	}
	return id
}

// With returns the list after one more start.
func (l BootList) With(id BootID) BootList {
	l = append(slices.Clone(l), id)
	return l[max(0, len(l)-maxBoots):]
}

// Has reports whether the directory knows of a start; of none it always does.
func (l BootList) Has(id BootID) bool { return id == 0 || slices.Contains(l, id) }

// MarshalText gives 8 bytes for each start, in base64.
func (l BootList) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 8*len(l))
	for _, id := range l {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText accepts at most as many starts as a directory remembers.
func (l *BootList) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("list of starts: %w", err)
	}
	if len(b)%8 != 0 || len(b) > 8*maxBoots || bytes.ContainsAny(text, "\r\n") { // which base64 passes over
		return fmt.Errorf("list of starts: %d bytes", len(b))
	}
	*l = make(BootList, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		id := BootID(binary.BigEndian.Uint64(b))
		if id == 0 {
			return errors.New("list of starts: one is zero")
		}
		*l = append(*l, id)
	}
	return nil
}

// Met is the newest start that this member has met of each other member. It only
// decides; Node keeps it in the data directory.
type Met map[uint64]BootID

// Older reports whether the directory that a member shows lacks the start which
// was met last: it is an older copy, or a second one.
func (m Met) Older(id uint64, boots BootList) bool { return !boots.Has(m[id]) }

// Admits returns an *IdentityError, which stops the one that is refused, if the
// directory that a member shows is older than the one met last.
func (m Met) Admits(id uint64, boots BootList) error {
	if m.Older(id, boots) {
		return refusalOf(m.refusal(id))
	}
	return nil
}

func (m Met) refusal(id uint64) *Error { return errorf(codeOlderCopy, "%s", olderCopy(id)) }

// Mistaken returns an *IdentityError if a member that has met another start of this
// directory, which is member id's, is right to expect it here.
func (l BootList) Mistaken(id uint64, expected BootID) error {
	if l.Has(expected) {
		return nil
	}
	return &IdentityError{olderCopy(id)}
}

// Meet returns what is known after a member has shown its starts, and whether
// that is news, which has to be durable before any raft message passes. Members
// that were removed are forgotten then: their ids do not come back.
func (m Met) Meet(id uint64, boots BootList, removed func(id uint64) bool) (next Met, news bool) {
	if len(boots) == 0 || m.Older(id, boots) || m[id] == boots[len(boots)-1] {
		return m, false
	}
	next = maps.Clone(m)
	maps.DeleteFunc(next, func(id uint64, _ BootID) bool { return removed(id) })
	next[id] = boots[len(boots)-1]
	return next, true
}

func olderCopy(id uint64) string {
	return fmt.Sprintf("a later start of member %d has been met than this data directory knows of: this is an older copy or a second one, or it was started more than %d times without meeting that member, "+
		"and it may have forgotten what it acknowledged. Bring the newest directory back or, if it is lost, %s", id, maxBoots, remedy(id))
}

const (
	metVersion = 1
	metFile    = "met"
)

type metRecord struct {
	Version int      `json:"version"`
	Members []metOne `json:"members"` // by id
}

type metOne struct {
	ID   uint64 `json:"id"`
	Boot BootID `json:"boot"`
}

// loadMet reads what this directory knows of others; nothing if there is no file.
func loadMet(dir string) (Met, error) {
	path := filepath.Join(dir, metFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Met{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which members were met: %w", err)
	}
	m, err := decodeMet(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w. It only tells older copies of the other members from their newest directories: if those are known to be the newest, remove the file and start again", path, err)
	}
	return m, nil
}

func decodeMet(b []byte) (Met, error) {
	body, err := unseal(b)
	if err != nil {
		return nil, err
	}
	r := metRecord{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if r.Version != metVersion {
		return nil, fmt.Errorf("version %d is not known to this build", r.Version)
	}
	m := Met{}
	for _, x := range r.Members {
		if _, twice := m[x.ID]; twice || x.ID == 0 || x.Boot == 0 {
			return nil, fmt.Errorf("member %d is there twice, or with nothing", x.ID)
		}
		m[x.ID] = x.Boot
	}
	return m, nil
}

func (m Met) encode() ([]byte, error) {
	r := metRecord{Version: metVersion, Members: []metOne{}}
	for _, id := range slices.Sorted(maps.Keys(m)) {
		r.Members = append(r.Members, metOne{id, m[id]})
	}
	body, err := json.Marshal(r)
	return seal(body), err
}

// save replaces the file: a crash leaves the old one or the new one.
func (m Met) save(dir string) error {
	b, err := m.encode()
	if err == nil {
		err = replaceFile(filepath.Join(dir, metFile), b)
	}
	if err != nil {
		return fmt.Errorf("write which members were met: %w", err)
	}
	return nil
}

// noteStart notes durably that a member was met which shows these starts, or returns
// why it was not.
func (p *peers) noteStart(id uint64, boots BootList) error {
	p.meeting.Lock()
	defer p.meeting.Unlock()
	if p.met.Older(id, boots) {
		return p.met.refusal(id)
	}
	next, news := p.met.Meet(id, boots, p.n.IsIDRemoved)
	if !news {
		return nil
	}
	// Each attempt writes a file of its own, so that one after a failure, of a full
	// disk for instance, proves as much as a first one.
	if err := next.save(p.n.cfg.Dir); err != nil {
		p.n.logger.Error("a member is not let in before its start is noted", "member", id, "error", err)
		return err
	}
	p.met = next
	return nil
}

// metLast is the newest start of a member that was met; zero if none was.
func (p *peers) metLast(id uint64) BootID {
	p.meeting.Lock()
	defer p.meeting.Unlock()
	return p.met[id]
}

func (p *peers) older(id uint64, boots BootList) bool { return !boots.Has(p.metLast(id)) }

// mistaken returns an error if what a member expects of this one shows that this
// directory is not the one that it has met.
func (p *peers) mistaken(q *helloRequest) error {
	var wrong *IdentityError
	switch err := p.n.replica.mistaken(q.Expected); {
	case errors.As(err, &wrong):
		return p.n.wrongDirectory(wrong.Reason)
	case err != nil:
		return err
	}
	if err := p.n.identity.Starts.Mistaken(p.n.cfg.ID, q.ExpectedStart); errors.As(err, &wrong) {
		return p.n.wrongDirectory(wrong.Reason)
	}
	return nil
}

// wrongDirectory says which directory a reason is about.
func (n *Node) wrongDirectory(reason string) *IdentityError {
	return &IdentityError{fmt.Sprintf("data directory %s: %s", n.cfg.Dir, reason)}
}
