// Draws a state. Text from others becomes text nodes, never markup. Rows that have not changed keep their elements, so
// that selections, focus and screen readers are not disturbed.

import { arrange } from './arrange.js';
import { roomList, rowsOf, unreadTotal } from './state.js';
import { parts } from './text.js';

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

/** find returns the element with an id; the page has all that are asked for. */
export function find(id) {
  return document.getElementById(id);
}

/** element makes an element with properties and children; strings become text nodes. */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function roomPath(name) {
  return `/rooms/${encodeURIComponent(name)}`;
}

// hueOf gives every name its colour.
function hueOf(name) {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  return (hash * 137) % 360;
}

function fillAvatar(avatar, name) {
  avatar.textContent = name === '' ? '?' : [...name][0].toUpperCase();
  // Through the object model: a style attribute in markup would break the content security policy.
  avatar.style.setProperty('--hue', String(hueOf(name)));
}

function bodyOf(message) {
  const body = element('p', { className: 'text', dir: 'auto' });
  if (message.binary > 0) {
    body.classList.add('binary');
    body.append(`${message.binary} bytes that are not text`);
    return body;
  }
  for (const part of parts(message.text)) {
    if (part.href === undefined) {
      body.append(part.text);
      continue;
    }
    body.append(element('a', { href: part.href, target: '_blank', rel: 'noopener noreferrer nofollow' }, part.text));
  }
  return body;
}

function dayRow(row) {
  return element('li', { className: 'day' }, element('span', {}, dayFormat.format(row.at)));
}

function messageRow(row, actions) {
  const { message } = row;
  const item = element('li', { className: row.head ? 'message head-row' : 'message' });
  const at = new Date(row.at);
  let time;
  if (row.kind === 'message') {
    item.id = `message-${message.seq}`;
    time = element('a', { className: 'time', href: `${roomPath(message.room)}/${message.seq}`, title: fullFormat.format(at) },
      element('time', { dateTime: at.toISOString() }, timeFormat.format(at)));
    time.setAttribute('aria-label', `${timeFormat.format(at)}, link to this message`);
  } else {
    item.classList.add('pending', message.phase);
    time = element('span', { className: 'time' });
  }
  if (row.head) {
    const avatar = element('span', { className: 'avatar' });
    avatar.setAttribute('aria-hidden', 'true');
    fillAvatar(avatar, message.user);
    const author = element('span', { className: 'author', dir: 'auto' }, message.user);
    author.style.setProperty('--hue', String(hueOf(message.user)));
    item.append(avatar, element('div', { className: 'by' }, author, time));
  } else {
    item.append(time);
  }
  item.append(bodyOf(message));
  if (row.kind === 'pending' && message.phase !== 'sending') item.append(pendingNote(message, actions));
  return item;
}

function pendingNote(message, actions) {
  const note = element('p', { className: 'note' }, message.error, ' ');
  const add = (label, action) => {
    const button = element('button', { type: 'button', className: 'link-button' }, label);
    button.addEventListener('click', () => action(message));
    note.append(button, ' ');
  };
  if (message.phase === 'refused') {
    add('Edit', actions.edit);
    add('Discard', actions.discard);
  }
  return note;
}

export class View {
  #actions;
  #keeper;
  #rows = new Map(); // key -> {element, print}
  #room = null;
  #links = new Map(); // room name -> {element, print}

  /** actions: openRoom(name), edit(pending), discard(pending), retryHistory(). */
  constructor(actions, keeper) {
    this.#actions = actions;
    this.#keeper = keeper;
  }

  /** draw shows a state. filter is what stands in the field for rooms, now the time in ms. */
  draw(state, { filter, node, now }) {
    this.#drawRooms(state, filter);
    this.#drawConnection(state.connection, now);
    this.#drawLog(state);
    this.#drawSelf(state, node);
    const unread = unreadTotal(state);
    const room = state.current === null ? '' : `${state.current} · `;
    document.title = `${unread > 0 ? `(${unread}) ` : ''}${room}raft-chat`;
  }

  #drawSelf(state, node) {
    fillAvatar(find('me-avatar'), state.user);
    setText(find('me-name'), state.user);
    setText(find('me-change'), state.user === '' ? 'Choose a name' : 'Change name');
    find('status').title = node === '' ? '' : `Served by ${node}`;
  }

  #drawRooms(state, filter) {
    const rooms = roomList(state, filter);
    const wanted = new Map();
    for (const room of rooms) {
      const open = room.name === state.current;
      const print = `${open} ${room.unread}`;
      let known = this.#links.get(room.name);
      if (known === undefined) {
        known = { element: this.#roomLink(room.name), print: '' };
        this.#links.set(room.name, known);
      }
      if (known.print !== print) {
        known.print = print;
        const link = known.element.firstElementChild;
        if (open) link.setAttribute('aria-current', 'page');
        else link.removeAttribute('aria-current');
        link.classList.toggle('unread', room.unread > 0);
        const badge = link.lastElementChild;
        badge.hidden = room.unread === 0;
        badge.textContent = room.unread > 99 ? '99+' : String(room.unread);
        badge.setAttribute('aria-label', `${room.unread} unread`);
      }
      wanted.set(room.name, known);
    }
    arrange(find('rooms'), Array.from(wanted.values(), (known) => known.element));
    this.#links = wanted;
    const note = find('rooms-note');
    const text = state.roomsError !== '' ? state.roomsError
      : rooms.length > 0 ? ''
      : filter.trim() === '' ? 'No rooms yet. Name one above to open it.'
      : `No room of that name yet. Press Enter to open it.`;
    setText(note, text);
    note.hidden = text === '';
  }

  #roomLink(name) {
    const badge = element('span', { className: 'badge', hidden: true });
    const link = element('a', { href: roomPath(name), title: name },
      element('span', { className: 'hash' }, '#'), element('span', { className: 'room-name', dir: 'auto' }, name), badge);
    link.firstElementChild.setAttribute('aria-hidden', 'true');
    link.addEventListener('click', (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      this.#actions.openRoom(name);
    });
    return element('li', {}, link);
  }

  #drawConnection({ phase, retryAt }, now) {
    const status = find('status');
    status.dataset.phase = phase;
    const seconds = Math.max(0, Math.ceil((retryAt - now) / 1000));
    // The seconds are left to the eye: a screen reader would speak each of them.
    setText(find('status-text'), phase === 'live' ? 'Live' : phase === 'connecting' ? 'Connecting …' : 'Connection lost');
    const retry = find('status-retry');
    retry.hidden = phase !== 'waiting';
    if (!retry.hidden) setText(retry, seconds > 0 ? `Try now (${seconds} s)` : 'Try now');
  }

  #drawLog(state) {
    const list = find('messages');
    const room = state.current === null ? undefined : state.rooms.get(state.current);
    setText(find('title'), state.current ?? 'Choose a room');
    find('composer').hidden = room === undefined;
    find('jump').hidden = room === undefined || state.following || !room.loaded;
    if (room !== undefined) {
      setText(find('jump'), room.unread > 0 ? `${room.unread} new ↓` : 'Newest messages ↓');
      find('text').placeholder = `Message ${room.name}`;
    }
    if (this.#room !== state.current) {
      this.#room = state.current;
      this.#rows.clear();
      list.replaceChildren();
      this.#keeper.toEnd();
    }
    this.#keeper.keep(() => {
      this.#drawTop(room);
      this.#drawRows(list, room === undefined ? [] : rowsOf(room));
    });
  }

  #drawTop(room) {
    const top = find('log-top');
    const print = room === undefined ? 'none'
      : room.error !== '' ? `error ${room.error}`
      : room.loading === 'newest' || !room.loaded ? 'loading'
      : room.loading === 'earlier' ? 'earlier'
      : room.earlier ? 'more'
      : room.messages.length === 0 ? 'empty' : 'start';
    if (top.dataset.print === print) return;
    top.dataset.print = print;
    top.replaceChildren();
    switch (print) {
      case 'none':
        top.append(element('p', { className: 'big' }, 'Open a room on the left, or name a new one.'));
        break;
      case 'loading':
        top.append(element('p', {}, 'Loading messages …'));
        break;
      case 'earlier':
        top.append(element('p', {}, 'Loading earlier messages …'));
        break;
      case 'more':
        top.append(element('p', {}, ' '));
        break;
      case 'empty':
        top.append(element('p', { className: 'big' }, 'Nothing here yet. The first message makes the room.'));
        break;
      case 'start':
        top.append(element('p', {}, 'This is where the room begins.'));
        break;
      default: {
        const button = element('button', { type: 'button', className: 'link-button' }, 'Try again');
        button.addEventListener('click', () => this.#actions.retryHistory());
        top.append(element('p', { className: 'error' }, `${room.error} `, button));
      }
    }
  }

  #drawRows(list, rows) {
    const wanted = new Map();
    for (const row of rows) {
      const print = `${row.head} ${row.message?.phase ?? ''} ${row.message?.error ?? ''}`;
      let known = this.#rows.get(row.key);
      if (known?.print !== print) known = { element: row.kind === 'day' ? dayRow(row) : messageRow(row, this.#actions), print };
      wanted.set(row.key, known);
    }
    arrange(list, Array.from(wanted.values(), (known) => known.element));
    this.#rows = wanted;
  }

  /** showMessage brings a message to the middle and marks it. It returns false when it is not there. */
  showMessage(seq) {
    const item = find(`message-${seq}`);
    if (item === null) return false;
    for (const marked of document.querySelectorAll('.marked')) marked.classList.remove('marked');
    item.classList.add('marked');
    this.#keeper.show(item);
    return true;
  }
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
