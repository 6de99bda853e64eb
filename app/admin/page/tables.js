// The figures above the map, and the tables of pools, frontends, services and actors.

const HISTORY_SECONDS = 600;
const MOST_POOLS = 20;
/** Fetched of each pool, in one request, and shown of those that match. */
const MOST_BACKENDS = 1000;
const BACKENDS_A_REQUEST = 200;
const MOST_ROWS = 200;

/** Show either the note for an empty list or the table before it. */
function showEmpty(id, isEmpty) {
  setAttribute($(id), "hidden", isEmpty ? null : "");
  const table = $(id).previousElementSibling;
  if (table?.localName === "table") setAttribute(table, "hidden", isEmpty ? "" : null);
}

function pill() {
  return el("span", { class: "pill" });
}

function setState(node, state, text = state) {
  setAttribute(node, "data-state", state);
  setText(node, text);
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
  updateChildren($("figures"), figures, ([key]) => key,
    ([, label, , , series]) => el("div", {}, el("dt", {}, label), el("dd", {}, el("span"), el("small")), series ? sparkline() : null),
    (node, [, , value, rest, series]) => {
      setText(node.children[1].children[0], value);
      setText(node.children[1].children[1], rest);
      if (series) drawSparkline(node.children[2], series, node.key === "sent" ? (top) => `${bytes(top)}/s` : rate);
    });
}

// Pools and their backends

const BACKEND_COLUMNS = {
  backend: ["Backend", "name", (one) => one.id], place: ["Place", "", (one) => `${one.country ?? "~"} ${one.region ?? "~"}`],
  state: ["State", "", (one) => -severityOf(one)], load: ["Load", "load", loadOf],
  connections: ["New", "number", (one) => rates.of(`${one.key} connections`)],
  requests: ["Requests", "number", (one) => rates.of(`${one.key} requests`)],
  sent: ["To clients", "number", (one) => rates.of(`${one.key} sent`)],
  errors: ["Errors", "number", (one) => one.errors_total], history: ["Health, last 10 min", "history", null, () => [
    "Health", el("span", { class: "axis" }, el("span", {}, `${duration(HISTORY_SECONDS)} ago`), el("span", {}, "now"))]],
};
const ROW_COLUMNS = { ...BACKEND_COLUMNS, action: ["", "action"] };

/** Return how much a backend needs attention: problems first. */
const severityOf = (backend) => (PROBLEM_STATES.has(stateOf(backend)) ? STATES.indexOf(stateOf(backend)) : 0);

const isWanted = (backend) => matchesState(stateOf(backend)) &&
  matchesSearch(backend.id, backend.address, backend.host_name, backend.app, backend.country, backend.region);

function drawPools(pools, count, rates, toggleDrain) {
  for (const pool of pools) pool.matching = sorted("backends", pool.shown.filter(isWanted), BACKEND_COLUMNS, (one) => -severityOf(one));
  const shown = isFiltered() ? pools.filter((pool) => pool.matching.length) : pools;
  updateChildren($("pools"), shown, (pool) => pool.name, makePool, (node, pool) => updatePool(node, pool, rates, toggleDrain));
  setAttribute($("no-matches"), "hidden", pools.length && !shown.length ? null : "");
  showEmpty("no-pools", pools.length === 0);
  setAttribute($("more-pools"), "hidden", count > pools.length ? null : "");
  setText($("more-pools"), `The first ${pools.length} of ${number(count)} pools are shown; GET /api/pools lists all.`);
}

function makePool(pool) {
  const heading = el("h3", {}, el("span", {}, pool.name), el("small"));
  const head = el("thead");
  makeHead(head, "backends", BACKEND_COLUMNS, el("th", { scope: "col" }, el("span", { class: "unseen" }, "Actions")));
  return el("div", { class: "pool" }, heading,
    el("table", { "aria-label": `Backends of pool ${pool.name}` }, head, el("tbody")),
    el("p", { class: "empty" }));
}

function updatePool(node, pool, rates, toggleDrain) {
  const [heading, table, empty] = node.children;
  const facts = [
    pool.frontends.length ? `serves ${pool.frontends.join(", ")}` : "from an earlier configuration",
    `${number(pool.candidates)} of ${number(pool.backends)} take clients`,
    pool.health_check && pool.health_check !== "off" ? `probed by ${pool.health_check}` : "not probed",
    isFiltered() ? `${number(pool.matching.length)} of ${number(pool.shown.length)} match` : "",
    pool.matching.length > MOST_ROWS ? `${MOST_ROWS} are shown: search or sort for others` : "",
    pool.shown.length < pool.backends ? `only the first ${number(pool.shown.length)} are searched` : "",
    pool.fails_open ? "all are down, all are used anyway" : "",
  ];
  setText(heading.lastChild, facts.filter(Boolean).join(" · "));
  setAttribute(table, "hidden", pool.shown.length ? null : "");
  setAttribute(empty, "hidden", pool.shown.length ? "" : null);
  setText(empty, pool.app === null ? "This pool has no server." :
    "No backend in the routing database yet: add some with scripts/seed_backends.py or POST /api/backends.");
  updateChildren(table.tBodies[0], pool.matching.slice(0, MOST_ROWS), (backend) => backend.key, (backend) => makeBackend(backend, pool, toggleDrain),
    (line, backend) => updateBackend(line, backend, rates, pool.isHttp));
}

function makeBackend(backend, pool, toggleDrain) {
  const line = row(ROW_COLUMNS);
  const { parts } = line;
  parts.backend.append(el("b", {}, backend.id), el("small"));
  parts.state.append(pill(), el("small"));
  parts.load.append(el("span", { class: "meter", "aria-hidden": "true" }, el("span")), el("span", { class: "of" }));
  parts.history.append(el("span", { class: "strip", role: "img" }));
  parts.action.append(el("button", { type: "button", "aria-label": `Log lines of backend ${backend.id}`,
    onclick: () => searchLog(`backend=${backend.id}`) }, "Log"));
  if (pool.app !== null) {
    line.button = el("button", { type: "button", onclick: () => toggleDrain(line.backend) });
    parts.action.prepend(line.button);
  }
  return line;
}

function updateBackend(line, backend, rates, isHttp) {
  const { parts } = line;
  line.backend = backend;
  const state = stateOf(backend);
  setAttribute(line, "data-state", state);
  setText(parts.backend.lastChild, backend.address);
  setText(parts.place, [backend.country, backend.region].filter(Boolean).join(" · ") || "–");
  setState(parts.state.firstChild, state);
  setAttribute(parts.state.firstChild, "title", MEANINGS[state]);
  setText(parts.state.lastChild, state === "ejected" ? `for ${duration(backend.ejected_for_seconds)} more` : "");
  const load = loadOf(backend);
  parts.load.firstChild.firstChild.style.inlineSize = `${Math.min(100, load * 100)}%`;
  setAttribute(parts.load.firstChild, "data-over", load > 1 ? "" : null);
  setText(parts.load.lastChild, `${number(backend.connections)} of ${number(backend.hard_limit || backend.soft_limit)}`);
  setText(parts.connections, rate(rates.of(`${backend.key} connections`)));
  setText(parts.requests, isHttp ? rate(rates.of(`${backend.key} requests`)) : "–");
  const sent = rates.of(`${backend.key} sent`);
  setText(parts.sent, sent === null ? "–" : `${bytes(sent)}/s`);
  setText(parts.errors, number(backend.errors_total));
  setAttribute(parts.errors, "data-some", backend.errors_total ? "" : null);
  drawHistory(parts.history.firstChild, backend.history);
  if (line.button) {
    setText(line.button, backend.is_drained ? "Undrain" : "Drain");
    setAttribute(line.button, "aria-label", `${line.button.textContent} ${backend.id}`);
  }
}

/** Draw the states of the last ten minutes, the current one at the right. */
function drawHistory(strip, history) {
  const pieces = history.map((change, i) => {
    const from = Math.min(HISTORY_SECONDS, change.seconds_ago);
    const to = Math.min(HISTORY_SECONDS, history[i + 1]?.seconds_ago ?? 0);
    return { key: i, state: change.state, share: (from - to) / HISTORY_SECONDS };
  }).filter((piece) => piece.share > 0);
  updateChildren(strip, pieces, (piece) => piece.key, () => el("span"), (node, piece) => {
    setAttribute(node, "data-health", piece.state);
    node.style.inlineSize = `${(piece.share * 100).toFixed(1)}%`;
  });
  const words = history.map((change) => `${change.state} ${duration(change.seconds_ago)} ago`);
  setAttribute(strip, "aria-label", `Health: ${words.join(", then ")}`);
  setAttribute(strip, "title", words.join(", then "));
}

// Frontends, services, actors

const FRONTEND_COLUMNS = {
  name: ["Frontend", "name", (one) => one.name], listens: ["Listens on", "", (one) => one.listeners.join()],
  to: ["Pool", "", (one) => one.pool], open: ["Open", "number", (one) => one.connections],
  connections: ["New", "number", (one) => rates.of(`frontend ${one.name} connections`)],
  requests: ["Requests", "number", (one) => rates.of(`frontend ${one.name} requests`)], spark: ["Last two minutes", "sparks", null],
};
makeHead($("frontend-head"), "frontends", FRONTEND_COLUMNS);

function drawFrontends(frontends, rates) {
  const shown = frontends.filter((one) => matchesSearch(one.name, one.pool, ...one.listeners));
  updateChildren($("frontend-rows"), sorted("frontends", shown, FRONTEND_COLUMNS), (one) => one.name,
    (one) => {
      const line = row(FRONTEND_COLUMNS);
      line.parts.name.append(el("b", {}, one.name), el("small"));
      line.parts.to.append(el("span"), el("small"));
      line.parts.spark.append(sparkline());
      return line;
    },
    ({ parts }, one) => {
      const isHttp = one.protocol === "http";
      setText(parts.name.lastChild, one.protocol);
      setText(parts.listens, one.listeners.join(", ") || "closed");
      setText(parts.to.firstChild, one.pool || "endpoints only");
      setText(parts.to.lastChild, one.pool ? `${one.algorithm.replaceAll("_", " ")}${one.affinity ? ", sticky" : ""}` : "");
      setText(parts.open, number(one.connections));
      setText(parts.connections, rate(rates.of(`frontend ${one.name} connections`)));
      setText(parts.requests, isHttp ? rate(rates.of(`frontend ${one.name} requests`)) : "–");
      drawSparkline(parts.spark.firstChild, rates.series(`frontend ${one.name} ${isHttp ? "requests" : "connections"}`));
    });
  showEmpty("no-frontends", frontends.length === 0);
}

const failuresOf = (service) => service.errors + service.timeouts + service.busy + service.down;
const SERVICE_COLUMNS = {
  name: ["Service", "name", (one) => one.name], state: ["State", "", (one) => (one.is_up ? "up" : "down")],
  use: ["In use", "number", (one) => one.in_use], depth: ["Waiting", "number", (one) => one.depth],
  served: ["Calls", "number", (one) => one.served], errors: ["Errors", "number", failuresOf],
};
makeHead($("service-head"), "services", SERVICE_COLUMNS);

function drawServices(services) {
  const shown = services.filter((one) => matchesSearch(one.name, one.kind, one.settings.engine));
  updateChildren($("service-rows"), sorted("services", shown, SERVICE_COLUMNS), (one) => one.name,
    (one) => {
      const line = row(SERVICE_COLUMNS);
      line.parts.name.append(el("b", {}, one.name), el("small"));
      line.parts.state.append(pill(), el("small"));
      return line;
    },
    ({ parts }, one) => {
      setText(parts.name.lastChild, [one.kind, one.settings.engine].filter(Boolean).join(" · "));
      setState(parts.state.firstChild, one.is_up ? "healthy" : "unhealthy", one.is_up ? "up" : "down");
      setText(parts.state.lastChild, one.is_being_replaced ? "being replaced" : one.reason);
      setText(parts.use, `${number(one.in_use)} of ${number(one.connected)}`);
      setText(parts.depth, number(one.depth));
      setText(parts.served, number(one.served));
      setText(parts.errors, number(failuresOf(one)));
    });
  showEmpty("no-services", services.length === 0);
}

function drawActors(actors) {
  updateChildren($("actor-rows"), actors, (one) => one.name,
    (one) => {
      const line = row({ name: ["Actor", "name"], depth: ["Mailbox", "number"], restarts: ["Restarts", "number"],
        uptime: ["Up for", "number"] });
      line.parts.name.append(el("b", {}, one.name));
      return line;
    },
    ({ parts }, one) => {
      setText(parts.depth, number(one.mailbox_depth));
      setAttribute(parts.depth, "data-some", one.mailbox_depth > 10 ? "" : null);
      setText(parts.restarts, number(one.restarts));
      setAttribute(parts.restarts, "data-some", one.restarts ? "" : null);
      setText(parts.uptime, duration(one.uptime_seconds));
    });
}
