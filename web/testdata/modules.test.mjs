// Tests of the modules that need no page: node --test web/testdata/

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

// Through a data URL, because without a package.json Node would not take a .js file for a module.
function load(name) {
  const code = readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
  return import(`data:text/javascript;base64,${Buffer.from(code).toString('base64')}`);
}

const state = await load('state.js');
const { maxLinks, parts, safeURL } = await load('text.js');
const { arrange } = await load('arrange.js');

function message(room, seq, more = {}) {
  return { room, seq, id: seq, user: 'ann', text: `text ${seq}`, binary: 0, postedAt: Date.UTC(2026, 0, 1) + seq, ...more };
}

function seqs(s, room) {
  return s.rooms.get(room).messages.map((m) => m.seq);
}

function frozen(value) {
  if (value instanceof Map) value.forEach(frozen);
  else if (typeof value === 'object' && value !== null) Object.values(value).forEach(frozen);
  return Object.freeze(value);
}

function loaded(...numbers) {
  const open = state.openRoom(state.initialState(), 'r');
  return frozen(state.addHistory(open, 'r', numbers.map((n) => message('r', n)), true));
}

test('history and live messages are merged by seq, each once', () => {
  let s = loaded(5, 4, 6);
  s = frozen(state.addLive(s, [message('r', 7), message('r', 6)], true));
  s = frozen(state.addHistory(s, 'r', [message('r', 2), message('r', 3), message('r', 4)], false));
  assert.deepEqual(seqs(s, 'r'), [2, 3, 4, 5, 6, 7]);
  assert.equal(s.rooms.get('r').earlier, false);
  assert.equal(s.rooms.get('r').lastSeq, 7);
});

test('a gap is found where seq jumps', () => {
  const s = state.addLive(loaded(1, 2), [message('r', 9)], true);
  assert.deepEqual(state.gapOf(s.rooms.get('r')), { after: 2, before: 9 });
  assert.equal(state.gapOf(state.addHistory(s, 'r', [3, 4, 5, 6, 7, 8].map((n) => message('r', n))).rooms.get('r')), null);
  assert.equal(state.gapOf(undefined), null);
});

test('what others write elsewhere counts as unread until it is seen', () => {
  let s = loaded(1);
  s = frozen(state.addLive(s, [message('r', 2), message('new', 1), message('new', 2)], true));
  assert.equal(s.rooms.get('r').unread, 0);
  assert.equal(s.rooms.get('new').unread, 2);
  assert.equal(s.rooms.get('new').loaded, false);
  s = frozen(state.addLive(s, [message('new', 2)], true)); // the same again
  assert.equal(state.unreadTotal(s), 2);
  s = frozen(state.addLive(s, [message('r', 3)], false)); // the page is in the background
  assert.equal(s.rooms.get('r').unread, 1);
  s = state.setFollowing(s, true);
  assert.equal(s.rooms.get('r').unread, 0);
  assert.equal(state.openRoom(s, 'new').rooms.get('new').unread, 0);
  const mine = state.addLive(state.setUser(s, 'ann'), [message('x', 1)], true);
  assert.equal(mine.rooms.get('x').unread, 0);
});

test('a reader at the end keeps a bounded number of messages, one further up keeps all', () => {
  const many = Array.from({ length: state.keptMessages + 50 }, (_, i) => message('r', i + 2));
  const end = state.addLive(loaded(1), many, true);
  assert.equal(seqs(end, 'r').length, state.keptMessages);
  assert.equal(seqs(end, 'r').at(-1), state.keptMessages + 51);
  assert.equal(end.rooms.get('r').earlier, true);
  const up = state.addLive(state.setFollowing(loaded(1), false), many, true);
  assert.equal(seqs(up, 'r').length, state.keptMessages + 51);
});

test('a pending message gives way to its stored form, one for one', () => {
  let s = state.setUser(loaded(1), 'zoe');
  for (const clientID of ['a', 'b']) s = frozen(state.addPending(s, 'r', { clientID, text: 'same', at: 0 }));
  assert.equal(state.visiblePending(s.rooms.get('r')).length, 2);
  s = frozen(state.addLive(s, [message('r', 2, { user: 'zoe', text: 'same' })], true));
  assert.deepEqual(state.visiblePending(s.rooms.get('r')).map((p) => p.clientID), ['b']);
  s = frozen(state.setPending(s, 'r', 'b', 'refused', 'no'));
  assert.equal(state.visiblePending(s.rooms.get('r')).at(-1).error, 'no');
  s = state.dropPending(state.dropPending(s, 'r', 'a'), 'r', 'b');
  assert.deepEqual(s.rooms.get('r').pending, []);
});

test('rows have days and headings', () => {
  const at = Date.UTC(2026, 0, 1, 12);
  const hour = 3_600_000;
  let s = state.openRoom(state.initialState(), 'r');
  s = state.addHistory(s, 'r', [
    message('r', 1, { postedAt: at }), message('r', 2, { postedAt: at + 1000 }), message('r', 3, { postedAt: at + 1000, user: 'bob' }),
    message('r', 4, { postedAt: at + hour, user: 'bob' }), message('r', 5, { postedAt: at + 48 * hour, user: 'bob' }),
  ], false);
  assert.deepEqual(state.rowsOf(s.rooms.get('r')).map((row) => (row.kind === 'day' ? 'day' : `${row.message.seq}${row.head ? 'h' : ''}`)),
    ['day', '1h', '2', '3h', '4h', 'day', '5h']);
});

test('rooms are listed by name and may be called anything', () => {
  const s = state.setRooms(state.initialState(), [{ Name: 'b' }, { Name: '__proto__', LastSeq: 3 }, { Name: 'Café' }]);
  assert.deepEqual(state.roomList(s, '').map((r) => r.name), ['Café', '__proto__', 'b']);
  assert.deepEqual(state.roomList(s, ' cafe\u0301').map((r) => r.name), ['Café']);
  assert.equal(s.rooms.get('__proto__').lastSeq, 3);
});

test('messages come off the wire', () => {
  const text = state.fromWire({ Room: 'r', Seq: 1, ID: 2, User: 'u', Message: 'm', PostedAt: '2026-01-01T00:00:00.5Z' });
  assert.deepEqual(text, { room: 'r', seq: 1, id: 2, user: 'u', text: 'm', binary: 0, postedAt: Date.UTC(2026, 0, 1, 0, 0, 0, 500) });
  for (const [payload, size] of [['//4A', 3], ['//4=', 2], ['/w==', 1]]) {
    assert.equal(state.fromWire({ Payload: payload }).binary, size);
  }
});

test('links are http, https and mailto, without the sentence around them', () => {
  const links = (text) => parts(text).filter((p) => p.href !== undefined).map((p) => p.text);
  assert.deepEqual(links('see https://a.example/x_(y)?z=1, (http://b.example). Or mailto:c@d.example!'),
    ['https://a.example/x_(y)?z=1', 'http://b.example', 'mailto:c@d.example']);
  assert.deepEqual(links('javascript:alert(1) data:text/html,x vbscript:x file:///etc/passwd ftp://x https:// xhttps://'), []);
  for (const text of ['', 'plain', 'https://a.example', 'a https://b.example c', '<b>https://c.example</b>', 'https://']) {
    assert.equal(parts(text).map((p) => p.text).join(''), text);
  }
  assert.equal(safeURL('javascript:alert(1)'), null);
  assert.equal(safeURL(' java\nscript:alert(1)'), null);
});

// A list that counts what is done to it, with as much of the DOM as arrange uses.
function listOf(...names) {
  const list = { children: [], moves: 0, removals: 0 };
  list.child = (name) => ({
    name,
    remove() { list.removals++; list.children.splice(list.children.indexOf(this), 1); },
    get nextElementSibling() { return list.children[list.children.indexOf(this) + 1] ?? null; },
  });
  Object.defineProperty(list, 'firstElementChild', { get: () => list.children[0] ?? null });
  list.insertBefore = (child, at) => {
    list.moves++;
    const old = list.children.indexOf(child);
    if (old >= 0) list.children.splice(old, 1);
    list.children.splice(at === null ? list.children.length : list.children.indexOf(at), 0, child);
  };
  list.children = names.map((name) => list.child(name));
  return list;
}

test('a row that goes and one that comes move no other', () => {
  const list = listOf(...Array.from({ length: 500 }, (_, i) => i));
  const wanted = [...list.children.slice(1), list.child(500)];
  arrange(list, wanted);
  assert.deepEqual(list.children.map((c) => c.name), wanted.map((c) => c.name));
  assert.deepEqual([list.moves, list.removals], [1, 1]);
  arrange(list, [wanted[3], wanted[1]]);
  assert.deepEqual(list.children.map((c) => c.name), [4, 2]);
});

test('a gap that was dropped is asked for once', () => {
  for (const page of [[], [message('r', 8)]]) {
    let s = frozen(state.addLive(loaded(1, 2), [message('r', 9)], true));
    s = state.closeGap(state.addHistory(s, 'r', page), 'r', 2, page);
    assert.equal(state.gapOf(s.rooms.get('r')), null);
  }
  // A page that begins where it should may be followed by another.
  let s = frozen(state.addLive(loaded(1, 2), [message('r', 9)], true));
  s = state.closeGap(state.addHistory(s, 'r', [message('r', 3)]), 'r', 2, [message('r', 3)]);
  assert.deepEqual(state.gapOf(s.rooms.get('r')), { after: 3, before: 9 });
});

test('what a list of rooms has more of is unread', () => {
  let s = state.setRooms(loaded(1), [{ Name: 'r', LastSeq: 1 }, { Name: 'x', LastSeq: 5 }]);
  assert.equal(state.unreadTotal(s), 0);
  s = state.setRooms(s, [{ Name: 'r', LastSeq: 3 }, { Name: 'x', LastSeq: 9 }]);
  assert.equal(s.rooms.get('x').unread, 4);
  assert.equal(s.rooms.get('r').unread, 0); // it is open, and is caught up with
  assert.deepEqual(state.forgetHistory(s, 'r').rooms.get('r').messages, []);
});

test('a message of brackets or links costs no more than its length', () => {
  // Quadratic work on this took 16 s; a test of its own in time would be one of the machine.
  const hostile = `https://a.example/${')'.repeat(65_500)}`;
  assert.deepEqual(parts(hostile).map((p) => p.text.length), [18, 65_500]);
  const many = parts('https://a.example '.repeat(3000));
  assert.equal(many.filter((p) => p.href !== undefined).length, maxLinks);
  assert.equal(many.map((p) => p.text).join(''), 'https://a.example '.repeat(3000));
});
