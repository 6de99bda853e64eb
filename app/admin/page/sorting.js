// Searching, filtering and sorting of the tables.

const NUMBERS = new Set(["number", "load"]);
/** The order that the user chose, by table: {by, isDown}. */
const orders = {};

/**
 * Fill the head of a table: columns are {key: [label, class, value of an item to sort by (null: not sorted by), head]};
 * `head` makes the content of the head if it is not the label.
 */
function makeHead(thead, table, columns, last = null) {
  const cells = Object.entries(columns).map(([key, [label, kind, valueOf, head]]) => {
    const sort = valueOf && el("button", { type: "button", class: "sort", onclick: () => changeOrder(table, key, kind) }, label);
    return Object.assign(el("th", { scope: "col", class: kind || null }, ...(sort ? [sort] : head?.() ?? [label])), { key, table });
  });
  thead.replaceChildren(el("tr", {}, ...cells, last));
}

/** First click: ascending, numbers descending; second: the other way; third: the order of the edge. */
function changeOrder(table, by, kind) {
  const known = orders[table];
  const isFirstDown = NUMBERS.has(kind);
  if (known?.by !== by) orders[table] = { by, isDown: isFirstDown };
  else if (known.isDown === isFirstDown) known.isDown = !isFirstDown;
  else delete orders[table];
  for (const cell of document.querySelectorAll("th")) {
    const order = orders[cell.table];
    setAttribute(cell, "aria-sort", order && order.by === cell.key ? (order.isDown ? "descending" : "ascending") : null);
  }
  redraw();
}

/** Return the items in the chosen order of a table, else by `usual`, else as they are. */
function sorted(table, items, columns, usual = null) {
  const order = orders[table];
  const valueOf = order ? columns[order.by][2] : usual;
  if (valueOf === null) return items;
  const sign = order?.isDown ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  return items.map((item) => [valueOf(item) ?? -1, item]).sort(([a], [b]) => sign * compare(a, b)).map(([, item]) => item);
}

/** Return whether the search matches one of these texts. */
function matchesSearch(...texts) {
  const wanted = $("search").value.trim().toLowerCase();
  return wanted === "" || texts.some((text) => text && String(text).toLowerCase().includes(wanted));
}

function matchesState(state) {
  const wanted = $("state-filter").value;
  return wanted === "" || wanted === state || (wanted === "problems" && PROBLEM_STATES.has(state));
}

const isFiltered = () => $("search").value.trim() !== "" || $("state-filter").value !== "";

$("state-filter").append(el("option", { value: "" }, "every state"), el("option", { value: "problems" }, "problems"),
  ...STATES.map((state) => el("option", { value: state }, state)));
$("search").addEventListener("input", () => redraw());
$("state-filter").addEventListener("change", () => redraw());
