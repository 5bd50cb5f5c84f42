package oracle

// Post is one message that somebody wants to be stored, in one or more
// attempts.
type Post struct {
	h       *History
	message Message // as sent
	begun   date

	seq     uint64 // where it is stored; 0: nobody told
	from    source // who told, if seq is not 0
	ended   date   // of the first acknowledgement
	refused bool
}

// Send notes that somebody is about to post m for the first time, with Room,
// User, Body and ClientID set. Retries of the same message use the same Post. It
// panics if ClientID is empty or was sent to the room before.
func (h *History) Send(m Message) *Post {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &Post{h: h, message: Message{Room: m.Room, User: m.User, Body: m.Body, ClientID: m.ClientID}, begun: h.date()}
	r := h.room(m.Room)
	if m.ClientID == "" || r.posts[m.ClientID] != nil {
		panic("oracle: the client message id is empty or was sent before: " + p.message.String())
	}
	r.posts[m.ClientID] = p
	r.said[statement{m.User, m.Body}] = struct{}{}
	r.sent = append(r.sent, p)
	h.counts.Sends++
	return p
}

// Acknowledged notes an answer of success to any attempt. It may be called
// again for a late answer to another attempt.
func (p *Post) Acknowledged(stored Message) {
	h := p.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if !p.acknowledged() {
		p.ended = h.date()
		h.counts.Acknowledged++
		if p.refused {
			h.counts.Refused--
		}
	}
	if stored.ClientID == "" {
		stored.ClientID = p.message.ClientID
	}
	asked := p.message
	if stored.Room != asked.Room || stored.User != asked.User || stored.Body != asked.Body || stored.ClientID != asked.ClientID {
		h.found.add(o1, "%v was posted, the answer is %v", asked, stored)
		return
	}
	if stored.Seq == 0 || stored.ID != 0 && stored.ID < stored.Seq {
		h.found.add(o1, "no message can have the Seq and ID of the answer %v", stored)
		return
	}
	h.tell(acknowledgement, "an acknowledgement", stored)
}

// Refused notes that every attempt so far was answered "nothing was written".
// A later acknowledgement overrules it. Without either the outcome is unknown.
func (p *Post) Refused() {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	if !p.refused && !p.acknowledged() {
		p.refused = true
		p.h.counts.Refused++
	}
}

func (p *Post) acknowledged() bool { return p.ended.moment != 0 }
