// The map: this edge, its backends and the locations of recent clients.

const PLACES = JSON.parse($("places").textContent);
const MAP_WIDTH = 1000;
const RING_SECONDS = 60;
const MOST_LABELS = 60;

/** Return the point of a country, else of a region; null: unknown. */
function placeOf(country, region) {
  return PLACES[country] ?? PLACES[region] ?? null;
}

/** Return the map units per pixel, for text of constant size, and the scale of marks, which shrink a little with the map. */
function scales() {
  const unit = MAP_WIDTH / Math.max(280, $("map").clientWidth);
  return { unit, size: Math.max(unit, 1) ** 0.6 * Math.min(unit, 1) };
}

/** Arrange several marks at one place in a sunflower spiral. */
function spread([x, y], index, count, size) {
  if (count === 1) return [x, y];
  const distance = 12 * size * Math.sqrt(index + 0.6);
  return [x + distance * Math.cos(index * 2.4), y + distance * Math.sin(index * 2.4)];
}

/** Return a mark for every backend with a known place: {backend, key, x, y, radius, state}. */
function marksOf(backends, size) {
  const byPlace = new Map();
  for (const backend of backends) {
    const place = placeOf(backend.country, backend.region);
    if (place === null) continue;
    const here = byPlace.get(place) ?? [];
    here.push(backend);
    byPlace.set(place, here);
  }
  const marks = [];
  for (const [place, here] of byPlace) {
    here.forEach((backend, index) => {
      const [x, y] = spread(place, index, here.length, size);
      const radius = (5 + 8 * Math.sqrt(Math.min(1.2, loadOf(backend)))) * size;
      marks.push({ backend, key: backend.key, x, y, radius, state: stateOf(backend) });
    });
  }
  return marks;
}

function arcPath([x0, y0], [x1, y1]) {
  const lift = Math.min(90, Math.hypot(x1 - x0, y1 - y0) * 0.25);
  return `M${x0} ${y0}Q${(x0 + x1) / 2} ${(y0 + y1) / 2 - lift} ${x1} ${y1}`;
}

/** Sum up the origins by country and serving backend; `unplaced` counts clients of unknown origin. */
function arcsOf(origins, marks, pop, poolOf) {
  const byBackend = new Map(marks.map((mark) => [mark.key, mark]));
  const arcs = new Map();
  let unplaced = 0;
  for (const origin of origins) {
    const count = origin.open + origin.recent;
    const from = placeOf(origin.country, origin.region);
    if (from === null) {
      unplaced += count;
      continue;
    }
    const mark = byBackend.get(`${poolOf.get(origin.frontend)} ${origin.backend}`) ?? null;
    const isLocal = mark !== null && mark.backend.country !== null && mark.backend.country === origin.country;
    const to = mark ? [mark.x, mark.y] : origin.endpoint !== null ? pop : null;
    const where = origin.country ?? origin.region;
    const key = `${where} ${mark?.key ?? to}`;
    const arc = arcs.get(key) ?? { key, where, from, to, mark, isLocal, count: 0 };
    arc.by = mark ? origin.backend : "an endpoint of this edge";
    arc.count += count;
    arcs.set(key, arc);
  }
  return { arcs: [...arcs.values()], unplaced };
}

const weight = (count) => 1 + Math.log10(Math.max(1, count));

function drawArcs(arcs, size) {
  updateChildren($("map-arcs"), arcs.filter((arc) => arc.to !== null && !arc.isLocal), (arc) => arc.key,
    () => svg("g", { class: "arc" }, svg("path", { class: "way" }), svg("path", { class: "flow" }), svg("title")),
    (node, arc) => {
      const d = arcPath(arc.from, arc.to);
      setAttribute(node.children[0], "d", d);
      setAttribute(node.children[0], "stroke-width", (weight(arc.count) * 0.7 * size).toFixed(2));
      setAttribute(node.children[1], "d", d);
      setAttribute(node.children[1], "stroke-width", (weight(arc.count) * 1.05 * size).toFixed(2));
      setText(node.children[2], `${plural(arc.count, "client")} from ${arc.where}, served by ${arc.by}`);
    });
  updateChildren($("map-rings"), arcs.filter((arc) => arc.isLocal), (arc) => arc.key,
    () => svg("circle", { class: "ring" }, svg("title")),
    (node, arc) => {
      setAttribute(node, "cx", arc.mark.x.toFixed(1));
      setAttribute(node, "cy", arc.mark.y.toFixed(1));
      setAttribute(node, "r", (arc.mark.radius + 3.4 * size).toFixed(2));
      setAttribute(node, "stroke-width", (weight(arc.count) * 0.75 * size).toFixed(2));
      setText(node.firstChild, `${plural(arc.count, "client")} from ${arc.where}, served there by ${arc.by}`);
    });
  const sources = new Map();
  for (const arc of arcs) {
    if (arc.isLocal) continue;
    const known = sources.get(arc.where) ?? { ...arc, count: 0 };
    known.count += arc.count;
    sources.set(arc.where, known);
  }
  updateChildren($("map-clients"), [...sources.values()], (one) => one.where,
    () => svg("circle", { class: "client" }, svg("title")),
    (node, one) => {
      setAttribute(node, "cx", one.from[0]);
      setAttribute(node, "cy", one.from[1]);
      setAttribute(node, "r", (weight(one.count) * 1.25 * size).toFixed(2));
      setText(node.firstChild, `${plural(one.count, "client")} from ${one.where}`);
    });
}

function drawMarks(marks) {
  updateChildren($("map-backends"), marks, (mark) => mark.key,
    () => svg("circle", { class: "mark" }, svg("title")),
    (node, mark) => {
      setAttribute(node, "data-state", mark.state);
      setAttribute(node, "cx", mark.x.toFixed(1));
      setAttribute(node, "cy", mark.y.toFixed(1));
      setAttribute(node, "r", mark.radius.toFixed(2));
      setText(node.firstChild, `${mark.backend.id}: ${mark.state}, ${plural(mark.backend.connections, "connection")}`);
    });
}

function drawPop(pop, region, size) {
  updateChildren($("map-pop"), pop === null ? [] : [region], (one) => one,
    () => svg("g", { class: "pop" }, svg("rect"), svg("title")),
    (node) => {
      const half = 5 * size;
      const [x, y] = pop;
      for (const [name, value] of Object.entries({ x: x - half, y: y - half, width: 2 * half, height: 2 * half })) {
        setAttribute(node.firstChild, name, value.toFixed(2));
      }
      setAttribute(node.firstChild, "transform", `rotate(45 ${x} ${y})`);
      setText(node.lastChild, `This edge, in region ${region}`);
    });
}

/** Label the marks where there is space, unhealthy backends first. */
function drawLabels(marks, pop, region, { unit, size }) {
  const wanted = [...marks].sort((a, b) => STATES.indexOf(b.state) - STATES.indexOf(a.state)).slice(0, MOST_LABELS)
    .map((mark) => ({ key: mark.key, text: mark.backend.id, x: mark.x, y: mark.y, radius: mark.radius, kind: mark.state }));
  if (pop !== null) wanted.unshift({ key: " pop", text: `this edge · ${region}`, x: pop[0], y: pop[1], radius: 7 * size, kind: "pop" });
  const taken = [...marks, ...wanted].map(({ x, y, radius }) => [x - radius, y - radius, x + radius, y + radius]);
  const shown = [];
  for (const label of wanted) {
    if (label.text.length > 24) label.text = `${label.text.slice(0, 23)}…`;
    const width = label.text.length * 6.8 * unit;
    const gap = label.radius + 6 * unit;
    const places = [[label.x + gap, label.y], [label.x - gap - width, label.y], [label.x - width / 2, label.y - gap - 3 * unit],
      [label.x - width / 2, label.y + gap + 3 * unit]];
    for (const [left, middle] of places) {
      const box = [left, middle - 7 * unit, left + width, middle + 7 * unit];
      const isFree = box[0] >= 0 && box[2] <= MAP_WIDTH &&
        taken.every((other) => box[2] < other[0] || other[2] < box[0] || box[3] < other[1] || other[3] < box[1]);
      if (!isFree) continue;
      taken.push(box);
      shown.push({ ...label, x: left, y: middle + 4 * unit });
      break;
    }
  }
  updateChildren($("map-labels"), shown, (label) => label.key, () => svg("text"),
    (node, label) => {
      setAttribute(node, "x", label.x.toFixed(1));
      setAttribute(node, "y", label.y.toFixed(1));
      setAttribute(node, "font-size", (12 * unit).toFixed(2));
      setAttribute(node, "stroke-width", (3 * unit).toFixed(2));
      setAttribute(node, "data-kind", label.kind);
      setText(node, label.text);
    });
}

function drawLegend(backends) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const backend of backends) counts.set(stateOf(backend), counts.get(stateOf(backend)) + 1);
  const shown = STATES.filter((state) => counts.get(state) > 0);
  updateChildren($("legend"), shown, (state) => state,
    (state) => el("li", { "data-state": state, title: MEANINGS[state] }, el("span", { class: "swatch" }), el("span")),
    (node, state) => setText(node.lastChild, `${counts.get(state)} ${state}`));
  return shown.map((state) => `${counts.get(state)} ${state}`).join(", ");
}

let lastWorld = null;

function drawMap(world) {
  lastWorld = world;
  const { backends, clients, region, poolOf } = world;
  const scale = scales();
  const pop = placeOf(null, region);
  const marks = marksOf(backends, scale.size);
  const { arcs, unplaced } = arcsOf(clients.items, marks, pop, poolOf);
  drawPop(pop, region, scale.size);
  drawMarks(marks);
  drawArcs(arcs, scale.size);
  drawLabels(marks, pop, region, scale);
  const states = drawLegend(backends);
  for (const [id, isShown] of [["key-client", arcs.some((arc) => !arc.isLocal)], ["key-ring", arcs.some((arc) => arc.isLocal)],
    ["key-pop", pop !== null]]) setAttribute($(id), "hidden", isShown ? null : "");
  const from = [...new Set(arcs.map((arc) => arc.where))];
  const covered = Math.min(clients.covers_seconds, RING_SECONDS);
  setText($("map-summary"), [
    `World map. This edge is in ${region ?? "no region"}.`,
    backends.length ? `Backends: ${states}.` : "This edge has no backends.",
    from.length ? `Recent clients come from ${from.join(", ")}.` : "No recent client has a known location.",
  ].join(" "));
  const hidden = backends.length - marks.length;
  setText($("map-note"), [
    "Backends and clients are shown in the middle of their country; a mark grows with its load.",
    arcs.length ? `Clients are those connected now and those of the last ${duration(covered)}.` : "",
    unplaced ? `Not shown: ${plural(unplaced, "client")} from an unknown country.` : "",
    hidden ? `Not shown: ${plural(hidden, "backend")} without a known country or region.` : "",
  ].filter(Boolean).join(" "));
}

new ResizeObserver(() => lastWorld && drawMap(lastWorld)).observe($("map"));
