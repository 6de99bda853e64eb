// Elements. Text is always set as text, so that names of backends, clients and handlers are never markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** Create an element: properties (`on…` are listeners, others attributes; null: none), then children. */
function el(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else setAttribute(node, name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Set an attribute if its value changes; null removes it. */
function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Set the text if it changes, to keep a selection and not to make a screen reader repeat it. */
function setText(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

/** Give a parent one child for each item, in order. Existing children are reused, with their focus. */
function updateChildren(parent, items, keyOf, make, update) {
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

/** Create a table row with a cell for each {name: [label, class]}; `parts` of the row has them by name. */
function row(columns) {
  const parts = {};
  const node = el("tr");
  for (const [name, [label, kind = ""]] of Object.entries(columns)) {
    parts[name] = el("td", { "data-label": label, class: kind || null });
    node.append(parts[name]);
  }
  return Object.assign(node, { parts });
}
