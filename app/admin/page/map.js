// The map: this edge, its backends, and where recent clients come from.

const PLACES = JSON.parse($("places").textContent);
const MAP_WIDTH = 1000;
const RING_SECONDS = 60;

/** Where something is on the map: its country, or at least its region; null: not known. */
function placeOf(country, region) {
  return PLACES[country] ?? PLACES[region] ?? null;
}

/** Map units to a pixel, and how much larger than on a wall marks are: letters keep their size, marks not quite. */
function scales() {
  const unit = MAP_WIDTH / Math.max(280, $("map").clientWidth);
  return { unit, size: Math.max(unit, 1) ** 0.6 * Math.min(unit, 1) };
}

/** Lay several marks at one place out like the seeds of a sunflower. */
function spread([x, y], index, count, size) {
  if (count === 1) return [x, y];
  const distance = 12 * size * Math.sqrt(index + 0.6);
  return [x + distance * Math.cos(index * 2.4), y + distance * Math.sin(index * 2.4)];
}

/** Give every backend that has a place its mark: {member, key, x, y, radius, state}. */
function marksOf(members, size) {
  const byPlace = new Map();
  for (const member of members) {
    const place = placeOf(member.country, member.region);
    if (place === null) continue;
    const here = byPlace.get(place) ?? [];
    here.push(member);
    byPlace.set(place, here);
  }
  const marks = [];
  for (const [place, here] of byPlace) {
    here.forEach((member, index) => {
      const [x, y] = spread(place, index, here.length, size);
      const radius = (5 + 8 * Math.sqrt(Math.min(1.2, loadOf(member)))) * size;
      marks.push({ member, key: member.key, x, y, radius, state: stateOf(member) });
    });
  }
  return marks;
}

function arcPath([x0, y0], [x1, y1]) {
  const lift = Math.min(90, Math.hypot(x1 - x0, y1 - y0) * 0.25);
  return `M${x0} ${y0}Q${(x0 + x1) / 2} ${(y0 + y1) / 2 - lift} ${x1} ${y1}`;
}

/** Sum the origins up by country and by who serves; `unplaced` is how many come from nobody knows where. */
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
    const isLocal = mark !== null && mark.member.country !== null && mark.member.country === origin.country;
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
  keyed($("map-arcs"), arcs.filter((arc) => arc.to !== null && !arc.isLocal), (arc) => arc.key,
    () => svg("g", { class: "arc" }, svg("path", { class: "way" }), svg("path", { class: "flow" }), svg("title")),
    (node, arc) => {
      const d = arcPath(arc.from, arc.to);
      put(node.children[0], "d", d);
      put(node.children[0], "stroke-width", (weight(arc.count) * 0.7 * size).toFixed(2));
      put(node.children[1], "d", d);
      put(node.children[1], "stroke-width", (weight(arc.count) * 1.05 * size).toFixed(2));
      say(node.children[2], `${plural(arc.count, "client")} from ${arc.where}, served by ${arc.by}`);
    });
  keyed($("map-rings"), arcs.filter((arc) => arc.isLocal), (arc) => arc.key,
    () => svg("circle", { class: "ring" }, svg("title")),
    (node, arc) => {
      put(node, "cx", arc.mark.x.toFixed(1));
      put(node, "cy", arc.mark.y.toFixed(1));
      put(node, "r", (arc.mark.radius + 3.4 * size).toFixed(2));
      put(node, "stroke-width", (weight(arc.count) * 0.75 * size).toFixed(2));
      say(node.firstChild, `${plural(arc.count, "client")} from ${arc.where}, served there by ${arc.by}`);
    });
  const sources = new Map();
  for (const arc of arcs) {
    if (arc.isLocal) continue;
    const known = sources.get(arc.where) ?? { ...arc, count: 0 };
    known.count += arc.count;
    sources.set(arc.where, known);
  }
  keyed($("map-clients"), [...sources.values()], (one) => one.where,
    () => svg("circle", { class: "client" }, svg("title")),
    (node, one) => {
      put(node, "cx", one.from[0]);
      put(node, "cy", one.from[1]);
      put(node, "r", (weight(one.count) * 1.25 * size).toFixed(2));
      say(node.firstChild, `${plural(one.count, "client")} from ${one.where}`);
    });
}

function drawMarks(marks) {
  keyed($("map-backends"), marks, (mark) => mark.key,
    () => svg("circle", { class: "mark" }, svg("title")),
    (node, mark) => {
      put(node, "data-state", mark.state);
      put(node, "cx", mark.x.toFixed(1));
      put(node, "cy", mark.y.toFixed(1));
      put(node, "r", mark.radius.toFixed(2));
      say(node.firstChild, `${mark.member.id}: ${mark.state}, ${plural(mark.member.connections, "connection")}`);
    });
}

function drawPop(pop, region, size) {
  keyed($("map-pop"), pop === null ? [] : [region], (one) => one,
    () => svg("g", { class: "pop" }, svg("rect"), svg("title")),
    (node) => {
      const half = 5 * size;
      const [x, y] = pop;
      for (const [name, value] of Object.entries({ x: x - half, y: y - half, width: 2 * half, height: 2 * half })) {
        put(node.firstChild, name, value.toFixed(2));
      }
      put(node.firstChild, "transform", `rotate(45 ${x} ${y})`);
      say(node.lastChild, `This edge, in region ${region}`);
    });
}

/** Name the marks, beside, above or below, where nothing else lies; what is not well first, what has no room not. */
function drawLabels(marks, pop, region, { unit, size }) {
  const wanted = [...marks].sort((a, b) => STATES.indexOf(b.state) - STATES.indexOf(a.state))
    .map((mark) => ({ key: mark.key, text: mark.member.id, x: mark.x, y: mark.y, radius: mark.radius, kind: mark.state }));
  if (pop !== null) wanted.unshift({ key: " pop", text: `this edge · ${region}`, x: pop[0], y: pop[1], radius: 7 * size, kind: "pop" });
  const taken = wanted.map(({ x, y, radius }) => [x - radius, y - radius, x + radius, y + radius]);
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
  keyed($("map-labels"), shown, (label) => label.key, () => svg("text"),
    (node, label) => {
      put(node, "x", label.x.toFixed(1));
      put(node, "y", label.y.toFixed(1));
      put(node, "font-size", (12 * unit).toFixed(2));
      put(node, "stroke-width", (3 * unit).toFixed(2));
      put(node, "data-kind", label.kind);
      say(node, label.text);
    });
}

function drawLegend(members) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const member of members) counts.set(stateOf(member), counts.get(stateOf(member)) + 1);
  const shown = STATES.filter((state) => counts.get(state) > 0);
  keyed($("legend"), shown, (state) => state,
    (state) => el("li", { "data-state": state, title: MEANINGS[state] }, el("span", { class: "swatch" }), el("span")),
    (node, state) => say(node.lastChild, `${counts.get(state)} ${state}`));
  return shown.map((state) => `${counts.get(state)} ${state}`).join(", ");
}

let lastWorld = null;

function drawMap(world) {
  lastWorld = world;
  const { members, clients, region, poolOf } = world;
  const scale = scales();
  const pop = placeOf(null, region);
  const marks = marksOf(members, scale.size);
  const { arcs, unplaced } = arcsOf(clients.items, marks, pop, poolOf);
  drawPop(pop, region, scale.size);
  drawMarks(marks);
  drawArcs(arcs, scale.size);
  drawLabels(marks, pop, region, scale);
  const states = drawLegend(members);
  const from = [...new Set(arcs.map((arc) => arc.where))];
  const covered = Math.min(clients.covers_seconds, RING_SECONDS);
  say($("map-summary"), [
    `World map. This edge is in ${region ?? "no region"}.`,
    members.length ? `Backends: ${states}.` : "It has no backend.",
    from.length ? `Recent clients come from ${from.join(", ")}.` : "No recent client has a known place.",
  ].join(" "));
  const homeless = members.length - marks.length;
  say($("map-note"), [
    "Backends and clients stand in the middle of their country; a mark grows with its load.",
    arcs.length ? `Arcs, and rings for those served in their own country: clients of the last ${duration(covered)} and those connected now.` : "",
    unplaced ? `Not on it: ${plural(unplaced, "client")} of no known country.` : "",
    homeless ? `Not on it: ${plural(homeless, "backend")} of no known country or region.` : "",
  ].filter(Boolean).join(" "));
}

new ResizeObserver(() => lastWorld && drawMap(lastWorld)).observe($("map"));
