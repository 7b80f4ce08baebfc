// Writing to the page: only what has changed, since each write costs layout.

/** @returns {HTMLElement} */
export const by = (id) => document.getElementById(id);

/** The first element of a copy of a template. */
export const copy = (id) => by(id).content.firstElementChild.cloneNode(true);

/** Set a node's text unless it is that already. What was written is kept at the node: reading the page is slower. */
export function text(node, value) {
  if (node.written === value) return;
  node.written = value;
  node.textContent = value;
}

/** Set or (null) remove an attribute unless it is that already. */
export function attribute(node, name, value) {
  const written = node.attributesWritten ??= {};
  if (written[name] === value) return;
  written[name] = value;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

/** Set a property of the style; CSS variables, too. */
export function style(node, name, value) {
  const written = node.styleWritten ??= {};
  if (written[name] === value) return;
  written[name] = value;
  node.style.setProperty(name, value);
}

/** An element with attributes and children: element("p", {class: "x"}, "text", node). */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Make the children of `parent` these, in this order, by the fewest moves for a list that changes little. */
export function arrange(parent, nodes) {
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
}
