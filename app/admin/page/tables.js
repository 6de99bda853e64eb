// The tables of frontends, pools with their backends, services and actors, and the figures above the map.

const HISTORY_SECONDS = 600;
const MOST_POOLS = 20;
const MOST_MEMBERS = 200;

/** Show the note that there is nothing, or the table before it. */
function showEmpty(id, isEmpty) {
  put($(id), "hidden", isEmpty ? null : "");
  const table = $(id).previousElementSibling;
  if (table?.localName === "table") put(table, "hidden", isEmpty ? "" : null);
}

function pill() {
  return el("span", { class: "pill" });
}

function sayState(node, state, text = state) {
  put(node, "data-state", state);
  say(node, text);
}

// Figures

function drawFigures({ frontends, all, rates }) {
  const open = frontends.reduce((sum, one) => sum + one.connections, 0);
  const figures = [
    ["open", "Open connections", number(open), "", null],
    ["connections", "New connections", rate(rates.of("connections")), "", rates.series("connections")],
    ["requests", "HTTP requests", rate(rates.of("requests")), "", rates.series("requests")],
    ["sent", "To clients", rates.of("sent") === null ? "–" : `${bytes(rates.of("sent"))}/s`, "", rates.series("sent")],
    ["serving", "Backends taking clients", number(all.candidates), ` of ${number(all.backends)}`, null],
  ];
  keyed($("figures"), figures, ([key]) => key,
    ([, label, , , series]) => el("div", {}, el("dt", {}, label), el("dd", {}, el("span"), el("small")), series ? sparkline() : null),
    (node, [, , value, rest, series]) => {
      say(node.children[1].children[0], value);
      say(node.children[1].children[1], rest);
      if (series) drawSparkline(node.children[2], series);
    });
}

// Pools and their backends

function drawPools(pools, count, rates, turn) {
  keyed($("pools"), pools, (pool) => pool.name, makePool, (node, pool) => updatePool(node, pool, rates, turn));
  showEmpty("no-pools", pools.length === 0);
  put($("more-pools"), "hidden", count > pools.length ? null : "");
  say($("more-pools"), `The first ${pools.length} of ${number(count)} pools are shown; GET /api/pools has them all.`);
}

function makePool(pool) {
  const heading = el("h3", {}, el("span", {}, pool.name), el("small"));
  const titles = [["Backend"], ["Place"], ["State"], ["Load", "load"], ["New", "number"], ["Requests", "number"],
    ["To clients", "number"], ["Errors", "number"], ["Last ten minutes"]];
  const head = el("tr", {}, ...titles.map(([title, kind]) => el("th", { scope: "col", class: kind ?? null }, title)),
    el("th", { scope: "col" }, el("span", { class: "unseen" }, "What to do")));
  return el("div", { class: "pool" }, heading,
    el("table", { "aria-label": `Backends of pool ${pool.name}` }, el("thead", {}, head), el("tbody")),
    el("p", { class: "empty" }));
}

function updatePool(node, pool, rates, turn) {
  const [heading, table, empty] = node.children;
  const facts = [
    pool.frontends.length ? `behind ${pool.frontends.join(", ")}` : "of a former configuration",
    `${number(pool.candidates)} of ${number(pool.backends)} take clients`,
    pool.health_check && pool.health_check !== "off" ? `probed by ${pool.health_check}` : "not probed",
    pool.members.length < pool.backends ? `the first ${pool.members.length} are shown` : "",
    pool.fails_open ? "all are down: it serves all the same" : "",
  ];
  say(heading.lastChild, facts.filter(Boolean).join(" · "));
  put(table, "hidden", pool.members.length ? null : "");
  put(empty, "hidden", pool.members.length ? "" : null);
  say(empty, pool.app === null ? "This pool has no server." :
    "No backend in the routing database yet: scripts/seed_backends.py and POST /api/backends make some.");
  keyed(table.tBodies[0], pool.members, (member) => member.key, (member) => makeMember(member, pool, turn),
    (line, member) => updateMember(line, member, rates, pool.isHttp));
}

function makeMember(member, pool, turn) {
  const line = row({
    backend: ["Backend", "name"], place: ["Place"], state: ["State"], load: ["Load", "load"],
    connections: ["New", "number"], requests: ["Requests", "number"], sent: ["To clients", "number"],
    errors: ["Errors", "number"], history: ["Last ten minutes", "history"], action: ["", "action"],
  });
  const { parts } = line;
  parts.backend.append(el("b", {}, member.id), el("small"));
  parts.state.append(pill(), el("small"));
  parts.load.append(el("span", { class: "meter", "aria-hidden": "true" }, el("span")), el("span", { class: "of" }));
  parts.history.append(el("span", { class: "strip", role: "img" }));
  if (pool.app !== null) {
    line.button = el("button", { type: "button", onclick: () => turn(line.member) });
    parts.action.append(line.button);
  }
  return line;
}

function updateMember(line, member, rates, isHttp) {
  const { parts } = line;
  line.member = member;
  const state = stateOf(member);
  put(line, "data-state", state);
  say(parts.backend.lastChild, member.address);
  say(parts.place, [member.country, member.region].filter(Boolean).join(" · ") || "–");
  sayState(parts.state.firstChild, state);
  put(parts.state.firstChild, "title", MEANINGS[state]);
  say(parts.state.lastChild, state === "ejected" ? `for ${duration(member.ejected_for_seconds)} more` : "");
  const load = loadOf(member);
  parts.load.firstChild.firstChild.style.inlineSize = `${Math.min(100, load * 100)}%`;
  put(parts.load.firstChild, "data-over", load > 1 ? "" : null);
  say(parts.load.lastChild, `${number(member.connections)} of ${number(member.hard_limit || member.soft_limit)}`);
  say(parts.connections, rate(rates.of(`${member.key} connections`)));
  say(parts.requests, isHttp ? rate(rates.of(`${member.key} requests`)) : "–");
  const sent = rates.of(`${member.key} sent`);
  say(parts.sent, sent === null ? "–" : `${bytes(sent)}/s`);
  say(parts.errors, number(member.errors_total));
  put(parts.errors, "data-some", member.errors_total ? "" : null);
  drawHistory(parts.history.firstChild, member.history);
  if (line.button) {
    say(line.button, member.is_drained ? "Undrain" : "Drain");
    put(line.button, "aria-label", `${line.button.textContent} ${member.id}`);
  }
}

/** Draw the states of the last ten minutes, now at the right. */
function drawHistory(strip, history) {
  const pieces = history.map((change, i) => {
    const from = Math.min(HISTORY_SECONDS, change.seconds_ago);
    const to = Math.min(HISTORY_SECONDS, history[i + 1]?.seconds_ago ?? 0);
    return { key: i, state: change.state, share: (from - to) / HISTORY_SECONDS };
  }).filter((piece) => piece.share > 0);
  keyed(strip, pieces, (piece) => piece.key, () => el("span"), (node, piece) => {
    put(node, "data-health", piece.state);
    node.style.inlineSize = `${(piece.share * 100).toFixed(1)}%`;
  });
  const words = history.map((change) => `${change.state} since ${duration(change.seconds_ago)}`);
  put(strip, "aria-label", `Health: ${words.join(", then ")}`);
  put(strip, "title", words.join(", then "));
}

// Frontends, services, actors

function drawFrontends(frontends, rates) {
  keyed($("frontend-rows"), frontends, (one) => one.name,
    (one) => {
      const line = row({ name: ["Frontend", "name"], listens: ["Listens on"], to: ["Goes to"], open: ["Open", "number"],
        connections: ["New", "number"], requests: ["Requests", "number"], spark: ["Last two minutes", "sparks"] });
      line.parts.name.append(el("b", {}, one.name), el("small"));
      line.parts.to.append(el("span"), el("small"));
      line.parts.spark.append(sparkline());
      return line;
    },
    ({ parts }, one) => {
      const isHttp = one.protocol === "http";
      say(parts.name.lastChild, one.protocol);
      say(parts.listens, one.listeners.join(", ") || "nowhere: closed");
      say(parts.to.firstChild, one.pool || "endpoints alone");
      say(parts.to.lastChild, one.pool ? `${one.algorithm.replaceAll("_", " ")}${one.affinity ? ", sticky" : ""}` : "");
      say(parts.open, number(one.connections));
      say(parts.connections, rate(rates.of(`frontend ${one.name} connections`)));
      say(parts.requests, isHttp ? rate(rates.of(`frontend ${one.name} requests`)) : "–");
      drawSparkline(parts.spark.firstChild, rates.series(`frontend ${one.name} ${isHttp ? "requests" : "connections"}`));
    });
  showEmpty("no-frontends", frontends.length === 0);
}

function drawServices(services) {
  keyed($("service-rows"), services, (one) => one.name,
    (one) => {
      const line = row({ name: ["Service", "name"], state: ["State"], use: ["In use", "number"],
        depth: ["Waiting", "number"], served: ["Calls", "number"], errors: ["Errors", "number"] });
      line.parts.name.append(el("b", {}, one.name), el("small"));
      line.parts.state.append(pill(), el("small"));
      return line;
    },
    ({ parts }, one) => {
      say(parts.name.lastChild, [one.kind, one.settings.engine].filter(Boolean).join(" · "));
      sayState(parts.state.firstChild, one.is_up ? "healthy" : "unhealthy", one.is_up ? "up" : "down");
      say(parts.state.lastChild, one.is_being_replaced ? "being replaced" : one.reason);
      say(parts.use, `${number(one.in_use)} of ${number(one.connected)}`);
      say(parts.depth, number(one.depth));
      say(parts.served, number(one.served));
      say(parts.errors, number(one.errors + one.timeouts + one.busy + one.down));
    });
  showEmpty("no-services", services.length === 0);
}

function drawActors(actors) {
  keyed($("actor-rows"), actors, (one) => one.name,
    (one) => {
      const line = row({ name: ["Actor", "name"], depth: ["Mailbox", "number"], restarts: ["Restarts", "number"],
        uptime: ["Up for", "number"] });
      line.parts.name.append(el("b", {}, one.name));
      return line;
    },
    ({ parts }, one) => {
      say(parts.depth, number(one.mailbox_depth));
      put(parts.depth, "data-some", one.mailbox_depth > 10 ? "" : null);
      say(parts.restarts, number(one.restarts));
      put(parts.restarts, "data-some", one.restarts ? "" : null);
      say(parts.uptime, duration(one.uptime_seconds));
    });
}
