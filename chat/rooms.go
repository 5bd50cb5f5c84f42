package chat

import "container/list"

// maxCachedRooms bounds the rooms apply remembers between entries.
const maxCachedRooms = 16384

// room is apply's view of a room: what is stored, plus what the running Apply
// has decided but not committed.
type room struct {
	name string
	roomRecord
	roomState
	// touched: the running Apply changed the roomState.
	touched bool
}

func (r *room) info() RoomInfo { return roomInfo(r.name, r.roomRecord, r.roomState) }

func roomInfo(name string, rec roomRecord, st roomState) RoomInfo {
	info := RoomInfo{
		Name: name, DisplayName: rec.display, CreatedAt: timeOf(rec.createdUS),
		Messages: st.messages, FirstSeq: st.first, LastSeq: st.last,
	}
	if st.last > 0 {
		info.LastPostedAt = timeOf(st.lastPostedUS)
	}
	return info
}

// roomCache holds the rooms used last, by name. It is emptied to its bound by
// trim only, never while an Apply runs: a room with uncommitted changes that
// were forgotten would be read back from the store without them.
type roomCache struct {
	max    int
	byName map[string]*list.Element // of *room
	order  list.List                // most recently used first
}

func newRoomCache(max int) *roomCache {
	return &roomCache{max: max, byName: make(map[string]*list.Element)}
}

func (c *roomCache) get(name string) *room {
	e := c.byName[name]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*room)
}

func (c *roomCache) add(r *room) { c.byName[r.name] = c.order.PushFront(r) }

func (c *roomCache) trim() {
	for c.order.Len() > c.max {
		r := c.order.Remove(c.order.Back()).(*room)
		delete(c.byName, r.name)
	}
}

func (c *roomCache) clear() {
	clear(c.byName)
	c.order.Init()
}
