// Puts children in order with as few changes of the document as that takes: whatever moves loses its selection and its
// focus, and is read out again.

/** arrange makes wanted the children of list, in that order. */
export function arrange(list, wanted) {
  const kept = new Set(wanted);
  // First what goes. If it stayed in between, everything behind it would be moved around it.
  for (const child of [...list.children]) {
    if (!kept.has(child)) child.remove();
  }
  let at = list.firstElementChild;
  for (const child of wanted) {
    if (at === child) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
}
