// Keeps the reader's place in a scrolling element while its content changes: at the end it stays at the end, anywhere
// else the topmost visible child with an id stays where it is on the screen.

/** This close to the end, in px, counts as the end. */
const nearEnd = 48;

export class ScrollKeeper {
  #box;
  #list;
  #end = true; // what the reader last chose; a change of size does not change it

  /** box scrolls; list holds the children that serve as anchors. onMove(atEnd, atTop) is called when the reader moves. */
  constructor(box, list, onMove) {
    this.#box = box;
    this.#list = list;
    box.addEventListener('scroll', () => {
      this.#end = box.scrollHeight - box.scrollTop - box.clientHeight <= nearEnd;
      onMove(this.#end, box.scrollTop < box.clientHeight / 2);
    }, { passive: true });
    // The keyboard of a phone, a growing message field or a turned screen changes the height of the box.
    new ResizeObserver(() => {
      if (this.#end) this.toEnd();
    }).observe(box);
  }

  get atEnd() {
    return this.#end;
  }

  toEnd() {
    this.#end = true;
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** show brings a child to the middle of the box. */
  show(child) {
    this.#end = false;
    child.scrollIntoView({ block: 'center' });
  }

  /** keep runs change, which alters the list, and puts the reader back. */
  keep(change) {
    if (this.#end) {
      change();
      this.toEnd();
      return;
    }
    const before = this.#anchors();
    change();
    for (const [id, top] of before) {
      const child = document.getElementById(id);
      if (child === null) continue;
      this.#box.scrollTop += child.getBoundingClientRect().top - top;
      return;
    }
  }

  // The visible children that have an id, as [id, top]. By id, because a change may replace an element; a child without
  // one, such as the name of a day, may move to another place.
  #anchors() {
    const { top, bottom } = this.#box.getBoundingClientRect();
    const found = [];
    for (const child of this.#list.children) {
      if (child.id === '') continue;
      const place = child.getBoundingClientRect();
      if (place.top > bottom) break;
      if (place.bottom > top) found.push([child.id, place.top]);
    }
    return found;
  }

  /** fits says whether there is nothing to scroll. */
  get fits() {
    return this.#box.scrollHeight <= this.#box.clientHeight;
  }
}
