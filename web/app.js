// Wires the page: the address bar, the transport and what the reader does become updates of the state, and every update
// is drawn with the next frame.

import { Client, Problem, newID } from './client.js';
import { ScrollKeeper } from './scroll.js';
import * as update from './state.js';
import { View, find, roomPath } from './view.js';

const nameKey = 'raft-chat.name';
const draftLimit = 64 * 1024; // bytes of a message that the server takes by default
const pageSize = 50;
const searchPageSize = 500; // for a link to an old message
const searchPages = 20;
const farBack = searchPageSize * searchPages; // messages: too many to fetch for a link to an old one
const retryDelays = [1000, 2000, 4000, 8000, 15000]; // ms; the last one repeats
const lobby = 'general';

const client = new Client();
const keeper = new ScrollKeeper(find('log'), find('messages'), onMove);
const view = new View({ openRoom: go, edit, discard, retryHistory: () => loadNewest(state.current) }, keeper);
let state = update.setUser(update.initialState(), storedName());
let arrived = []; // messages of the socket that are not in the state yet
let drawing = false;

// Drawing

function change(next) {
  state = next;
  draw();
}

// One drawing a frame, however many changes. A page in the background has no frames, and a title to keep.
function draw() {
  if (drawing) return;
  drawing = true;
  if (document.hidden) setTimeout(drawNow, 250);
  else requestAnimationFrame(drawNow);
}

function drawNow() {
  drawing = false;
  if (arrived.length > 0) {
    state = update.addLive(state, arrived, !document.hidden);
    arrived = [];
    fillGap(state.current);
  }
  view.draw(state, { filter: find('find-name').value, node: client.node, now: Date.now() });
  // What fits on the screen cannot be scrolled up to ask for more.
  if (keeper.fits && state.current !== null) loadEarlier(state.current);
}

// The address bar

/** place reads the room and the message out of the URL. */
function place() {
  const match = /^\/rooms\/([^/]+)(?:\/(\d+))?$/.exec(location.pathname);
  if (match === null) return { room: null, seq: 0 };
  try {
    // The server knows rooms by their NFC names; a link may be written otherwise.
    return { room: decodeURIComponent(match[1]).normalize('NFC'), seq: Number(match[2] ?? 0) };
  } catch {
    return { room: null, seq: 0 };
  }
}

function go(room) {
  if (location.pathname !== roomPath(room)) history.pushState(null, '', roomPath(room));
  open(room, 0);
  closeSide();
  // On a narrow screen the focus would bring up the keyboard over what the reader came for.
  if (!matchMedia('(max-width: 45rem)').matches) find('text').focus();
}

function open(room, seq) {
  find('composer-note').textContent = '';
  change(update.openRoom(state, room));
  if (seq > 0) {
    showMessage(room, seq);
    return;
  }
  keeper.toEnd();
  if (!state.rooms.get(room).loaded) loadNewest(room);
  else fillGap(room);
}

globalThis.addEventListener('popstate', () => {
  const { room, seq } = place();
  if (room !== null) open(room, seq);
});

// History

async function load(room, kind, ask) {
  change(update.setLoading(state, room, kind));
  try {
    const page = await client.messages(room, ask);
    const messages = page.messages.map(update.fromWire);
    const next = update.addHistory(state, room, messages, ask.after === undefined ? page.earlier : undefined);
    change(kind === 'gap' ? update.closeGap(next, room, ask.after, messages) : next);
    return true;
  } catch (problem) {
    change(update.setRoomError(state, room, problem.message));
    return false;
  }
}

async function loadNewest(room) {
  if (room === null || state.rooms.get(room).loading !== '') return;
  if (await load(room, 'newest', { limit: pageSize })) await fillGap(room);
}

async function loadEarlier(room, limit = pageSize) {
  const known = state.rooms.get(room);
  if (!known?.loaded || !known.earlier || known.loading !== '' || known.error !== '') return false;
  return load(room, 'earlier', { before: known.messages[0].seq, limit });
}

// fillGap fetches messages that are missing between two that are there.
async function fillGap(room) {
  for (;;) {
    const known = state.rooms.get(room);
    const gap = update.gapOf(known);
    if (gap === null || known.loading !== '') return;
    if (!await load(room, 'gap', { ...gap, limit: searchPageSize })) return;
  }
}

// catchUp fetches what was posted before a connection, which starts at the present.
async function catchUp() {
  await loadRooms();
  for (const room of state.rooms.values()) {
    const last = room.messages.at(-1);
    if (!room.loaded || room.loading !== '') continue;
    if (last !== undefined && room.lastSeq - last.seq > update.keptMessages) change(update.forgetHistory(state, room.name));
    if (last === undefined || !state.rooms.get(room.name).loaded) await loadNewest(room.name);
    else if (await load(room.name, 'newer', { after: last.seq, limit: searchPageSize })) await fillGap(room.name);
  }
}

// showMessage brings a message to the screen, or says why it does not.
async function showMessage(room, seq) {
  const note = (text) => { if (state.current === room) find('composer-note').textContent = text; };
  if (!state.rooms.get(room).loaded) await loadNewest(room);
  let wanted;
  try {
    wanted = await client.message(room, seq);
  } catch (problem) {
    note(`Message ${seq} cannot be shown. ${problem.message}`);
    return;
  }
  if (wanted === null) {
    note(`There is no message ${seq} in this room.`);
    return;
  }
  if (state.rooms.get(room).lastSeq - seq > farBack) {
    const { user, text, postedAt } = update.fromWire(wanted);
    note(`Message ${seq} is too far back to scroll to. ${user} wrote on ${new Date(postedAt).toLocaleString()}: ${text.slice(0, 300)}`);
    return;
  }
  for (let page = 0; page < searchPages; page++) {
    if ((state.rooms.get(room).messages[0]?.seq ?? 0) <= seq) break;
    if (!await loadEarlier(room, searchPageSize)) break;
  }
  if (state.current !== room) return;
  drawNow();
  if (view.showMessage(seq)) change(update.setFollowing(state, false));
}

async function loadRooms() {
  try {
    const infos = await client.rooms(); // first, because the state changes meanwhile
    change(update.setRooms(state, infos));
  } catch (problem) {
    change(update.setRoomsError(state, `The list of rooms is not complete. ${problem.message}`));
  }
}

function onMove(atEnd, atTop) {
  if (atEnd !== state.following) change(update.setFollowing(state, atEnd));
  if (atTop && state.current !== null) loadEarlier(state.current);
}

// Sending

const outbox = new Map(); // by room: ends when all that was written there is stored or refused

// send shows a message as pending at once and sends it when those before it have their answer: they are stored in the
// order in which they were written.
function send(room, text) {
  const pending = { clientID: newID(), text, at: Date.now() };
  const { user } = state;
  change(update.addPending(state, room, pending));
  keeper.toEnd();
  outbox.set(room, (outbox.get(room) ?? Promise.resolve()).then(() => deliver(room, user, pending)));
}

async function deliver(room, user, { clientID, text }) {
  for (let attempt = 0; ; attempt++) {
    try {
      const stored = await client.post(room, { user, text, clientID });
      // What was dropped since an earlier attempt is nothing to show.
      const seen = stored.Trimmed ? state : update.addLive(state, [update.fromWire(stored)], true);
      change(update.dropPending(seen, room, clientID));
      fillGap(room);
      return;
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.temporary) {
        change(update.setPending(state, room, clientID, 'refused', `Not sent. ${problem.message}`));
        return;
      }
      // What became of the message is not known, or nothing did: the same id makes a repetition harmless in both cases.
      change(update.setPending(state, room, clientID, 'retrying', 'Not confirmed yet, trying again …'));
      const delay = Math.max(problem.retryAfter, retryDelays[Math.min(attempt, retryDelays.length - 1)]);
      await new Promise((resolve) => { setTimeout(resolve, delay); });
    }
  }
}

function discard(pending) {
  change(update.dropPending(state, state.current, pending.clientID));
}

function edit(pending) {
  discard(pending);
  find('text').value = pending.text;
  fitText();
  find('text').focus();
}

async function submit() {
  const text = find('text').value;
  const note = find('composer-note');
  note.textContent = '';
  if (text.trim() === '' || state.current === null) return;
  if (new TextEncoder().encode(text).length > draftLimit) {
    note.textContent = 'This message is longer than 64 KiB. Please split it.';
    return;
  }
  if (state.user === '' && !await askName()) return;
  find('text').value = '';
  fitText();
  find('text').focus();
  send(state.current, text);
}

// The name

function storedName() {
  try {
    return localStorage.getItem(nameKey) ?? '';
  } catch {
    return ''; // storage is switched off: the name lasts as long as the page
  }
}

function keepName(name) {
  try {
    localStorage.setItem(nameKey, name);
  } catch {
    // As above.
  }
}

/** askName resolves to whether there is a name now. */
function askName() {
  const dialog = find('name-dialog');
  const field = find('name-field');
  field.value = state.user;
  find('name-error').textContent = '';
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(state.user !== ''), { once: true });
  });
}

function takeName(event) {
  event.preventDefault();
  const name = find('name-field').value.trim().normalize('NFC');
  if (name === '') return;
  if (new TextEncoder().encode(name).length > 64) {
    find('name-error').textContent = 'This name is too long.';
    return;
  }
  keepName(name);
  change(update.setUser(state, name));
  find('name-dialog').close();
}

// The list of rooms on narrow screens

function openSide() {
  find('app').classList.add('side-shown');
  find('shade').hidden = false;
  find('side-open').setAttribute('aria-expanded', 'true');
  find('side-close').focus();
}

function closeSide() {
  if (find('shade').hidden) return;
  find('app').classList.remove('side-shown');
  find('shade').hidden = true;
  find('side-open').setAttribute('aria-expanded', 'false');
  find('side-open').focus();
}

// The message field grows with its text; style.css sets the limit.
function fitText() {
  const field = find('text');
  field.style.height = 'auto';
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

// Events

client.addEventListener('message', ({ detail }) => {
  arrived.push(update.fromWire(detail));
  draw();
});
client.addEventListener('connection', ({ detail }) => {
  change(update.setConnection(state, detail));
  if (detail.phase === 'live') catchUp();
});
// The seconds until the next try.
setInterval(() => {
  if (state.connection.phase === 'waiting') draw();
}, 1000);

find('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
find('text').addEventListener('input', fitText);
find('text').addEventListener('keydown', (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
find('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = find('find-name').value.trim().normalize('NFC');
  if (name === '') return;
  find('find-name').value = '';
  go(name);
});
find('find-name').addEventListener('input', draw);
find('jump').addEventListener('click', () => {
  keeper.toEnd();
  change(update.setFollowing(state, true));
});
find('status-retry').addEventListener('click', () => client.retryNow());
find('me-change').addEventListener('click', askName);
find('name-form').addEventListener('submit', takeName);
find('name-cancel').addEventListener('click', () => find('name-dialog').close());
find('side-open').addEventListener('click', openSide);
find('side-close').addEventListener('click', closeSide);
find('shade').addEventListener('click', closeSide);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') closeSide();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && state.following) change(update.setFollowing(state, true));
});

client.connect();
const start = place();
open(start.room ?? lobby, start.seq);
if (start.room === null) history.replaceState(null, '', roomPath(lobby));
