// The state of the page and its updates. Every function is pure: it returns a new state and changes nothing it was
// given. Messages of a loaded room are always in the order of seq and each is there once.

/** How many messages of a room are kept while its reader stands at the end; more are kept only for who scrolled up. */
export const keptMessages = 500;

/** Messages of one author this close together, in ms, share a heading. */
const groupedWithin = 5 * 60 * 1000;

export function initialState() {
  return {
    user: '',
    current: null, // name of the open room
    connection: { phase: 'connecting', retryAt: 0 }, // phase: connecting, live, waiting
    rooms: new Map(), // by name
    following: true, // the reader stands at the end of the open room
    roomsError: '',
  };
}

function newRoom(name) {
  return {
    name,
    lastSeq: 0, // the newest message known to exist
    unread: 0,
    loaded: false, // messages holds the newest page and what came after it
    loading: '', // '', 'newest' or 'earlier'
    error: '',
    earlier: false, // there are messages before messages[0]
    messages: [],
    gone: new Set(), // seqs behind which messages are missing for good: they were dropped
    pending: [], // own messages without an answer yet, oldest first
  };
}

/** fromWire makes a message of the server's object. */
export function fromWire(wire) {
  return {
    room: wire.Room,
    seq: wire.Seq,
    id: wire.ID,
    user: wire.User,
    text: wire.Message ?? '',
    binary: typeof wire.Payload === 'string' ? base64Length(wire.Payload) : 0, // bytes of a payload that is no text
    postedAt: Date.parse(wire.PostedAt),
  };
}

function base64Length(text) {
  return Math.floor(text.length / 4) * 3 - (text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0);
}

function changeRoom(state, name, change) {
  const rooms = new Map(state.rooms);
  const room = rooms.get(name) ?? newRoom(name);
  rooms.set(name, { ...room, ...change(room) });
  return { ...state, rooms };
}

export function setUser(state, user) {
  return { ...state, user };
}

export function setConnection(state, connection) {
  return { ...state, connection };
}

export function setRoomsError(state, roomsError) {
  return { ...state, roomsError };
}

/**
 * setRooms takes the list of rooms; rooms that messages have made known meanwhile stay. What a known room has got more of
 * came while the page was not connected, and is unread.
 */
export function setRooms(state, infos) {
  const rooms = new Map(state.rooms);
  for (const info of infos) {
    const room = rooms.get(info.Name) ?? newRoom(info.Name);
    const lastSeq = Math.max(room.lastSeq, info.LastSeq ?? 0);
    const missed = room.lastSeq > 0 && info.Name !== state.current ? lastSeq - room.lastSeq : 0;
    rooms.set(info.Name, { ...room, lastSeq, unread: room.unread + missed });
  }
  return { ...state, rooms, roomsError: '' };
}

/** forgetHistory unloads a room that has moved on too far to be caught up with message by message. */
export function forgetHistory(state, name) {
  return changeRoom(state, name, () => ({ loaded: false, earlier: false, messages: [], gone: new Set() }));
}

/** openRoom shows a room, also one that does not exist yet, at its end. */
export function openRoom(state, name) {
  return { ...changeRoom(state, name, () => ({ unread: 0 })), current: name, following: true };
}

/** setFollowing notes whether the reader stands at the end of the open room; there, everything counts as read. */
export function setFollowing(state, following) {
  const next = following && state.current !== null ? changeRoom(state, state.current, () => ({ unread: 0 })) : state;
  return { ...next, following };
}

export function setLoading(state, name, loading) {
  return changeRoom(state, name, () => ({ loading, error: '' }));
}

export function setRoomError(state, name, error) {
  return changeRoom(state, name, () => ({ loading: '', error }));
}

/**
 * addLive takes messages of any rooms as they arrive. A room whose history is not loaded counts them only. seen says
 * whether the page is in front of its reader.
 */
export function addLive(state, messages, seen) {
  const byRoom = new Map();
  for (const message of messages) {
    if (!byRoom.has(message.room)) byRoom.set(message.room, []);
    byRoom.get(message.room).push(message);
  }
  for (const [name, fresh] of byRoom) {
    state = changeRoom(state, name, (room) => {
      const newer = fresh.filter((m) => m.seq > room.lastSeq);
      const foreign = newer.filter((m) => m.user !== state.user).length;
      const open = name === state.current && state.following && seen;
      const change = {
        lastSeq: newer.reduce((last, m) => Math.max(last, m.seq), room.lastSeq),
        unread: open ? 0 : room.unread + foreign,
      };
      if (!room.loaded) return change;
      const merged = merge(room.messages, fresh);
      if (merged.length > keptMessages && (name !== state.current || state.following)) {
        return { ...change, messages: merged.slice(-keptMessages), earlier: true };
      }
      return { ...change, messages: merged };
    });
  }
  return state;
}

/** addHistory takes a page. earlier: true or false when the page says whether there are messages before its first. */
export function addHistory(state, name, messages, earlier) {
  return changeRoom(state, name, (room) => ({
    loaded: true,
    loading: '',
    error: '',
    earlier: earlier ?? room.earlier,
    messages: merge(room.messages, messages),
    lastSeq: messages.reduce((last, m) => Math.max(last, m.seq), room.lastSeq),
  }));
}

// merge joins two lists by seq; where both have a message, it is the same one.
function merge(old, fresh) {
  if (fresh.length === 0) return old;
  const sorted = [...fresh].sort((a, b) => a.seq - b.seq);
  if (old.length === 0 || sorted[0].seq > old.at(-1).seq) return unique([...old, ...sorted]);
  return unique([...old, ...sorted].sort((a, b) => a.seq - b.seq));
}

function unique(sorted) {
  return sorted.filter((m, i) => i === 0 || m.seq !== sorted[i - 1].seq);
}

/** closeGap notes that the page asked for behind after does not begin there: what is missing was dropped. */
export function closeGap(state, name, after, page) {
  if (page.length > 0 && page[0].seq === after + 1) return state;
  return changeRoom(state, name, (room) => ({ gone: new Set(room.gone).add(after) }));
}

/** gapOf returns {after, before} around the first messages that are missing in a loaded room, or null. */
export function gapOf(room) {
  if (!room?.loaded) return null;
  for (let i = 1; i < room.messages.length; i++) {
    const after = room.messages[i - 1].seq;
    const before = room.messages[i].seq;
    if (before !== after + 1 && !room.gone.has(after)) return { after, before };
  }
  return null;
}

/** addPending notes a message that is being sent. */
export function addPending(state, name, { clientID, text, at }) {
  return changeRoom(state, name, (room) => ({
    pending: [...room.pending, {
      clientID, text, at, user: state.user, phase: 'sending', error: '', afterSeq: room.lastSeq,
    }],
  }));
}

/** setPending changes one: phase is sending, retrying or refused. */
export function setPending(state, name, clientID, phase, error = '') {
  return changeRoom(state, name, (room) => ({
    pending: room.pending.map((p) => (p.clientID === clientID ? { ...p, phase, error } : p)),
  }));
}

export function dropPending(state, name, clientID) {
  return changeRoom(state, name, (room) => ({ pending: room.pending.filter((p) => p.clientID !== clientID) }));
}

/**
 * visiblePending leaves out the messages whose stored form has arrived before the answer to their sender: frames of the
 * socket carry no client message id, so author, text and place have to do.
 */
export function visiblePending(room) {
  const taken = new Set();
  return room.pending.filter((p) => {
    if (p.phase === 'refused') return true;
    const arrived = room.messages.find(
      (m) => m.seq > p.afterSeq && m.user === p.user && m.text === p.text && !taken.has(m.seq));
    if (arrived) taken.add(arrived.seq);
    return !arrived;
  });
}

/** rowsOf lists what the view shows of a room: days, messages (head: with a heading), and pending ones. */
export function rowsOf(room) {
  const rows = [];
  let previous = null;
  const add = (kind, key, message, at) => {
    const day = new Date(at).toDateString();
    if (previous === null || previous.day !== day) {
      rows.push({ kind: 'day', key: `day ${day}`, at });
      previous = null;
    }
    const head = previous === null || previous.user !== message.user || at - previous.at > groupedWithin;
    rows.push({ kind, key, message, head, at });
    previous = { day, user: message.user, at };
  };
  for (const message of room.messages) add('message', `seq ${message.seq}`, message, message.postedAt);
  for (const pending of visiblePending(room)) {
    // Clocks differ: an own message never stands before the last stored one.
    add('pending', `own ${pending.clientID}`, pending, Math.max(pending.at, previous?.at ?? 0));
  }
  return rows;
}

/** roomList lists the rooms by name, those that hold filter in their name. */
export function roomList(state, filter) {
  const wanted = filter.trim().normalize('NFC').toLowerCase();
  return [...state.rooms.values()]
    .filter((room) => wanted === '' || room.name.toLowerCase().includes(wanted))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** unreadTotal is the number in the page's title. */
export function unreadTotal(state) {
  let total = 0;
  for (const room of state.rooms.values()) total += room.unread;
  return total;
}
