// The transport: REST calls and the socket with every room's messages. It reconnects by itself.
//
// Events: 'connection' with detail {phase, retryAt} and 'message' with detail the server's message object. phase is
// connecting, live or waiting. Every connection starts at the present, so what was posted before it has to be fetched:
// of the rooms that somebody looks at, and not of all rooms there are.

const firstDelay = 500;
const longestDelay = 30_000;
/** A socket that stays open this long, in ms, was a success: the next delay starts small again. */
const stableAfter = 5_000;
/** Silence after which, in ms, the server is asked whether it is still there. */
const silentAfter = 45_000;
const probeTimeout = 5_000;
const callTimeout = 15_000;

/** Problem is an answer that is no success, or none at all (status 0). */
export class Problem extends Error {
  constructor(status, code, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter; // ms
  }

  /** The same request may succeed later, unchanged. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** newID returns a random id, also on pages without TLS, where crypto.randomUUID does not exist. */
export function newID() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** delayOf is how long to wait before try number attempt (0, 1, …), in ms: doubling, with half of it random. */
export function delayOf(attempt, random = Math.random()) {
  const full = Math.min(longestDelay, firstDelay * 2 ** attempt);
  return full / 2 + random * full / 2;
}

export class Client extends EventTarget {
  #socket = null;
  #attempt = 0;
  #retry = 0; // timer of the next try
  #heard = 0; // when the socket last said something
  #node = '';

  constructor() {
    super();
    globalThis.addEventListener('online', () => this.retryNow());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.retryNow();
    });
    setInterval(() => this.#probe(), silentAfter / 3);
  }

  /** The name of the node that answered last. */
  get node() {
    return this.#node;
  }

  /** connect opens the socket. It is called once; from then on the client reconnects. */
  connect() {
    clearTimeout(this.#retry);
    this.#retry = 0;
    const url = new URL('/ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#tell('connecting');
    const socket = new WebSocket(url);
    this.#socket = socket;
    let opened = 0;
    socket.addEventListener('open', () => {
      opened = Date.now();
      this.#heard = opened;
      this.#tell('live');
    });
    socket.addEventListener('message', (event) => {
      if (socket !== this.#socket) return;
      this.#heard = Date.now();
      const { Post: post } = JSON.parse(event.data);
      this.dispatchEvent(new CustomEvent('message', { detail: post }));
    });
    socket.addEventListener('close', () => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      if (opened !== 0 && Date.now() - opened > stableAfter) this.#attempt = 0;
      const delay = delayOf(this.#attempt++);
      this.#retry = setTimeout(() => this.connect(), delay);
      this.#tell('waiting', Date.now() + delay);
    });
  }

  /** retryNow ends the wait for the next try. */
  retryNow() {
    if (this.#retry !== 0) this.connect();
  }

  #tell(phase, retryAt = 0) {
    this.dispatchEvent(new CustomEvent('connection', { detail: { phase, retryAt } }));
  }

  // A browser does not notice that the other end of a quiet socket has vanished, and gives pages no ping.
  async #probe() {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN || Date.now() - this.#heard < silentAfter) return;
    try {
      const answer = await fetch('/livez', { signal: AbortSignal.timeout(probeTimeout), cache: 'no-store' });
      if (answer.ok) this.#heard = Date.now();
      else socket.close();
    } catch {
      socket.close();
    }
  }

  /** rooms returns every room's object, page by page. */
  async rooms() {
    const all = [];
    let path = '/rooms?details=true&limit=1000';
    while (path !== null) {
      const { body, links } = await this.#call(path);
      all.push(...body);
      path = links.next ?? null;
    }
    return all;
  }

  /** message returns one message of a room, or null where there is none. */
  async message(room, seq) {
    try {
      const { body } = await this.#call(`/rooms/${encodeURIComponent(room)}/${seq}`);
      return body;
    } catch (problem) {
      if (problem.status === 404 || problem.status === 400) return null;
      throw problem;
    }
  }

  /** messages returns a page of a room: {messages, earlier, later}. */
  async messages(room, { after, before, limit }) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (after !== undefined) query.set('after', String(after));
    if (before !== undefined) query.set('before', String(before));
    const { body, links } = await this.#call(`/rooms/${encodeURIComponent(room)}?${query}`);
    return { messages: body, earlier: links.prev !== undefined, later: links.next !== undefined };
  }

  /** post sends a message and returns the stored one. Sent again with the same clientID, it is stored once. */
  async post(room, { user, text, clientID }) {
    const { body } = await this.#call(`/rooms/${encodeURIComponent(room)}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ Message: text, User: user, ClientMessageID: clientID }),
    });
    return body;
  }

  async #call(path, options = {}) {
    let answer;
    let body;
    try {
      answer = await fetch(path, {
        ...options,
        headers: { Accept: 'application/json', ...options.headers },
        signal: AbortSignal.timeout(callTimeout),
      });
      body = await answer.json();
    } catch {
      if (answer !== undefined && !answer.ok) throw new Problem(answer.status, '', `The server answered ${answer.status}.`);
      throw new Problem(0, '', 'The server cannot be reached.');
    }
    this.#node = answer.headers.get('X-Raft-Chat-Node') ?? this.#node;
    if (!answer.ok) {
      const retryAfter = Number(answer.headers.get('Retry-After') ?? 0) * 1000;
      throw new Problem(answer.status, body.code ?? '', body.detail ?? `The server answered ${answer.status}.`, retryAfter);
    }
    return { body, links: linksOf(answer.headers.get('Link') ?? '') };
  }
}

/** linksOf reads a Link header into {rel: target}. */
export function linksOf(header) {
  const links = {};
  for (const [, target, rel] of header.matchAll(/<([^>]*)>\s*;\s*rel="([^"]*)"/g)) links[rel] = target;
  return links;
}
