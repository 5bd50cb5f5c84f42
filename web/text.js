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

/** What comes after so many links of a message is left as text: each link is an element. */
export const maxLinks = 200;

/** parts splits text into [{text}] and [{text, href}]; joined, the texts are the whole. */
export function parts(text) {
  const found = [];
  let end = 0;
  let links = 0;
  for (const match of text.matchAll(candidate)) {
    if (links === maxLinks) break;
    const link = trimEnd(match[0]);
    const href = safeURL(link);
    if (href === null) continue;
    if (match.index > end) found.push({ text: text.slice(end, match.index) });
    found.push({ text: link, href });
    links++;
    end = match.index + link.length;
  }
  if (end < text.length) found.push({ text: text.slice(end) });
  return found;
}

const brackets = new Map([[')', '('], [']', '['], ['}', '{']]);

// trimEnd leaves out punctuation that belongs to the sentence, and a closing bracket that the link did not open. It goes
// over the link once: a message may be one long link.
function trimEnd(link) {
  const count = new Map();
  for (const char of link) count.set(char, (count.get(char) ?? 0) + 1);
  let end = link.length;
  while (end > 0) {
    const last = link[end - 1];
    const open = brackets.get(last);
    const loose = open !== undefined && (count.get(open) ?? 0) < count.get(last);
    if (!loose && !'.,;:!?\'*_~'.includes(last)) break;
    count.set(last, count.get(last) - 1);
    end--;
  }
  return link.slice(0, end);
}
