// Splits the text of a message into plain text and links. Pure: no DOM.

// Where a link may begin. What it may be is decided by safeURL.
const candidate = /\b(?:https?:\/\/|mailto:)[^\s<>"]+/giu;
const schemes = new Set(['http:', 'https:', 'mailto:']);

/** safeURL returns text as a URL that may be linked, or null. */
export function safeURL(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return schemes.has(url.protocol) ? url.href : null;
}

/** parts splits text into [{text}] and [{text, href}]; joined, the texts are the whole. */
export function parts(text) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(candidate)) {
    const link = trimEnd(match[0]);
    const href = safeURL(link);
    if (href === null) continue;
    if (match.index > end) found.push({ text: text.slice(end, match.index) });
    found.push({ text: link, href });
    end = match.index + link.length;
  }
  if (end < text.length) found.push({ text: text.slice(end) });
  return found;
}

// trimEnd leaves out punctuation that belongs to the sentence, and a closing bracket that the link did not open.
function trimEnd(link) {
  for (;;) {
    const last = link.at(-1);
    const open = { ')': '(', ']': '[', '}': '{' }[last];
    const loose = open !== undefined && count(link, open) < count(link, last);
    if (!loose && !'.,;:!?\'*_~'.includes(last)) return link;
    link = link.slice(0, -1);
  }
}

function count(text, char) {
  return text.split(char).length - 1;
}
