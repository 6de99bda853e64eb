// Elements. Text goes in as text: whatever a backend, a client or a handler calls itself, it is never markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** Make an element: properties by name (`on…` listen, the others are attributes; null leaves out), then children. */
function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else put(node, name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Set an attribute if that changes it; null takes it away. */
function put(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Set the text if that changes it: a selection, and what a screen reader has read, stay. */
function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

/** Let a parent have one child for each item, in this order; those that stay are kept, with their focus. */
function keyed(parent, items, keyOf, make, update) {
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  const known = new Map();
  for (const child of [...parent.children]) {
    if (wanted.has(child.key)) known.set(child.key, child);
    else child.remove();
  }
  let place = 0;
  for (const [key, item] of wanted) {
    const node = known.get(key) ?? Object.assign(make(item), { key });
    update(node, item);
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
    place += 1;
  }
}

/** Make a table row of named parts: {name: [label, class]}; they are in `parts` of the row. */
function row(columns) {
  const parts = {};
  const node = el("tr");
  for (const [name, [label, kind = ""]] of Object.entries(columns)) {
    parts[name] = el("td", { "data-label": label, class: kind || null });
    node.append(parts[name]);
  }
  return Object.assign(node, { parts });
}
