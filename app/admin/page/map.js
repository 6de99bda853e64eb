// The map: this edge, its backends, and where recent clients come from.

const PLACES = JSON.parse($("places").textContent);
const MAP_WIDTH = 1000;
const RING_SECONDS = 60;

/** Where something is on the map: its country, or at least its region; null: not known. */
function placeOf(country, region) {
  return PLACES[country] ?? PLACES[region] ?? null;
}

/** Map units to a pixel: marks and letters stay as large on a phone as on a wall. */
function unitsAPixel() {
  return MAP_WIDTH / Math.max(300, $("map").clientWidth);
}

/** Lay several marks at one place out like the seeds of a sunflower. */
function spread([x, y], index, count, unit) {
  if (count === 1) return [x, y];
  const distance = 9 * unit * Math.sqrt(index + 0.6);
  return [x + distance * Math.cos(index * 2.4), y + distance * Math.sin(index * 2.4)];
}

/** Give every backend that has a place its mark: {member, key, x, y, radius, state}. */
function marksOf(members, unit) {
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
      const [x, y] = spread(place, index, here.length, unit);
      const radius = (5 + 8 * Math.sqrt(Math.min(1.2, loadOf(member)))) * unit;
      marks.push({ member, key: member.key, x, y, radius, state: stateOf(member) });
    });
  }
  return marks;
}

function arcPath(from, to, unit) {
  const [x0, y0] = from;
  const [x1, y1] = to;
  const distance = Math.hypot(x1 - x0, y1 - y0);
  if (distance < 14 * unit) { // served where they are: a leaf
    const high = 34 * unit;
    return `M${x0} ${y0}C${x0 - high * 0.7} ${y0 - high} ${x0 + high * 0.7} ${y0 - high} ${x1} ${y1}`;
  }
  const lift = Math.min(110, distance * 0.28);
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
    const mark = origin.backend === null ? null : byBackend.get(`${poolOf.get(origin.frontend)} ${origin.backend}`);
    const to = mark ? [mark.x, mark.y] : origin.endpoint !== null ? pop : null;
    const where = origin.country ?? origin.region;
    const by = mark ? origin.backend : `endpoint ${origin.endpoint}`;
    const key = `${where} ${mark?.key ?? "pop"}`;
    const arc = arcs.get(key) ?? { key, where, from, to, by, count: 0 };
    arc.count += count;
    arcs.set(key, arc);
  }
  return { arcs: [...arcs.values()], unplaced };
}

function drawArcs(arcs, unit) {
  keyed($("map-arcs"), arcs.filter((arc) => arc.to !== null), (arc) => arc.key,
    () => svg("path", { class: "arc" }, svg("title")),
    (node, arc) => {
      put(node, "d", arcPath(arc.from, arc.to, unit));
      put(node, "stroke-width", ((1 + Math.log10(arc.count)) * 1.1 * unit).toFixed(2));
      say(node.firstChild, `${plural(arc.count, "client")} from ${arc.where}, served by ${arc.by}`);
    });
  const sources = new Map();
  for (const arc of arcs) {
    const known = sources.get(arc.where) ?? { ...arc, count: 0 };
    known.count += arc.count;
    sources.set(arc.where, known);
  }
  keyed($("map-clients"), [...sources.values()], (one) => one.where,
    () => svg("circle", { class: "client" }, svg("title")),
    (node, one) => {
      put(node, "cx", one.from[0]);
      put(node, "cy", one.from[1]);
      put(node, "r", ((1.6 + Math.log10(one.count)) * 1.3 * unit).toFixed(2));
      say(node.firstChild, `${plural(one.count, "client")} from ${one.where}`);
    });
}

function drawMarks(marks) {
  keyed($("map-backends"), marks, (mark) => mark.key,
    () => svg("g", { class: "mark" }, svg("circle", { class: "halo" }), svg("circle", { class: "core" }), svg("title")),
    (node, mark) => {
      put(node, "data-state", mark.state);
      for (const circle of [node.children[0], node.children[1]]) {
        put(circle, "cx", mark.x.toFixed(1));
        put(circle, "cy", mark.y.toFixed(1));
      }
      put(node.children[0], "r", (mark.radius * 1.7).toFixed(2));
      put(node.children[1], "r", mark.radius.toFixed(2));
      say(node.children[2], `${mark.member.id}: ${mark.state}, ${plural(mark.member.connections, "connection")}`);
    });
}

function drawPop(pop, region, unit) {
  keyed($("map-pop"), pop === null ? [] : [region], (one) => one,
    () => svg("g", { class: "pop" }, svg("circle"), svg("path"), svg("title")),
    (node) => {
      const size = 7 * unit;
      put(node.children[0], "cx", pop[0]);
      put(node.children[0], "cy", pop[1]);
      put(node.children[0], "r", size);
      put(node.children[1], "d", `M${pop[0] - size * 1.7} ${pop[1]}h${size * 3.4}M${pop[0]} ${pop[1] - size * 1.7}v${size * 3.4}`);
      say(node.children[2], `This edge, in region ${region}`);
    });
}

/** Name the marks, as far as one name does not lie on another; what is not well first. */
function drawLabels(marks, pop, region, unit) {
  const wanted = [...marks].sort((a, b) => STATES.indexOf(b.state) - STATES.indexOf(a.state))
    .map((mark) => ({ key: mark.key, text: mark.member.id, x: mark.x + mark.radius + 4 * unit, y: mark.y + 4 * unit, kind: mark.state }));
  if (pop !== null) wanted.unshift({ key: " pop", text: `this edge · ${region}`, x: pop[0] + 13 * unit, y: pop[1] - 6 * unit, kind: "pop" });
  const taken = [];
  const shown = wanted.filter((label) => {
    if (label.text.length > 24) label.text = `${label.text.slice(0, 23)}…`;
    const width = label.text.length * 7 * unit;
    if (label.x + width > MAP_WIDTH) label.x = MAP_WIDTH - width;
    const box = [label.x, label.y - 11 * unit, label.x + width, label.y + 3 * unit];
    const isFree = taken.every((other) => box[2] < other[0] || other[2] < box[0] || box[3] < other[1] || other[3] < box[1]);
    if (isFree) taken.push(box);
    return isFree;
  });
  keyed($("map-labels"), shown, (label) => label.key, () => svg("text"),
    (node, label) => {
      put(node, "x", label.x.toFixed(1));
      put(node, "y", label.y.toFixed(1));
      put(node, "font-size", (12 * unit).toFixed(2));
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
  const unit = unitsAPixel();
  const pop = placeOf(null, region);
  const marks = marksOf(members, unit);
  const { arcs, unplaced } = arcsOf(clients.items, marks, pop, poolOf);
  drawPop(pop, region, unit);
  drawMarks(marks);
  drawArcs(arcs, unit);
  drawLabels(marks, pop, region, unit);
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
    arcs.length ? `Arcs: clients of the last ${duration(covered)} and those connected now.` : "",
    unplaced ? `${plural(unplaced, "client")} from nobody knows where.` : "",
    homeless ? `${plural(homeless, "backend")} with no known place.` : "",
  ].filter(Boolean).join(" "));
}

new ResizeObserver(() => lastWorld && drawMap(lastWorld)).observe($("map"));
