// The figures above the map, and the tables of pools, frontends, services and actors.

const HISTORY_SECONDS = 600;
const MOST_POOLS = 20;
const MOST_BACKENDS = 200;

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
      if (series) drawSparkline(node.children[2], series);
    });
}

// Pools and their backends

function drawPools(pools, count, rates, toggleDrain) {
  updateChildren($("pools"), pools, (pool) => pool.name, makePool, (node, pool) => updatePool(node, pool, rates, toggleDrain));
  showEmpty("no-pools", pools.length === 0);
  setAttribute($("more-pools"), "hidden", count > pools.length ? null : "");
  setText($("more-pools"), `The first ${pools.length} of ${number(count)} pools are shown; GET /api/pools lists all.`);
}

function makePool(pool) {
  const heading = el("h3", {}, el("span", {}, pool.name), el("small"));
  const titles = [["Backend"], ["Place"], ["State"], ["Load", "load"], ["New", "number"], ["Requests", "number"],
    ["To clients", "number"], ["Errors", "number"], ["Last ten minutes"]];
  const head = el("tr", {}, ...titles.map(([title, kind]) => el("th", { scope: "col", class: kind ?? null }, title)),
    el("th", { scope: "col" }, el("span", { class: "unseen" }, "Actions")));
  return el("div", { class: "pool" }, heading,
    el("table", { "aria-label": `Backends of pool ${pool.name}` }, el("thead", {}, head), el("tbody")),
    el("p", { class: "empty" }));
}

function updatePool(node, pool, rates, toggleDrain) {
  const [heading, table, empty] = node.children;
  const facts = [
    pool.frontends.length ? `serves ${pool.frontends.join(", ")}` : "from an earlier configuration",
    `${number(pool.candidates)} of ${number(pool.backends)} take clients`,
    pool.health_check && pool.health_check !== "off" ? `probed by ${pool.health_check}` : "not probed",
    pool.shown.length < pool.backends ? `the first ${pool.shown.length} are shown` : "",
    pool.fails_open ? "all are down, all are used anyway" : "",
  ];
  setText(heading.lastChild, facts.filter(Boolean).join(" · "));
  setAttribute(table, "hidden", pool.shown.length ? null : "");
  setAttribute(empty, "hidden", pool.shown.length ? "" : null);
  setText(empty, pool.app === null ? "This pool has no server." :
    "No backend in the routing database yet: add some with scripts/seed_backends.py or POST /api/backends.");
  updateChildren(table.tBodies[0], pool.shown, (backend) => backend.key, (backend) => makeBackend(backend, pool, toggleDrain),
    (line, backend) => updateBackend(line, backend, rates, pool.isHttp));
}

function makeBackend(backend, pool, toggleDrain) {
  const line = row({
    backend: ["Backend", "name"], place: ["Place"], state: ["State"], load: ["Load", "load"],
    connections: ["New", "number"], requests: ["Requests", "number"], sent: ["To clients", "number"],
    errors: ["Errors", "number"], history: ["Last ten minutes", "history"], action: ["", "action"],
  });
  const { parts } = line;
  parts.backend.append(el("b", {}, backend.id), el("small"));
  parts.state.append(pill(), el("small"));
  parts.load.append(el("span", { class: "meter", "aria-hidden": "true" }, el("span")), el("span", { class: "of" }));
  parts.history.append(el("span", { class: "strip", role: "img" }));
  if (pool.app !== null) {
    line.button = el("button", { type: "button", onclick: () => toggleDrain(line.backend) });
    parts.action.append(line.button);
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

function drawFrontends(frontends, rates) {
  updateChildren($("frontend-rows"), frontends, (one) => one.name,
    (one) => {
      const line = row({ name: ["Frontend", "name"], listens: ["Listens on"], to: ["Pool"], open: ["Open", "number"],
        connections: ["New", "number"], requests: ["Requests", "number"], spark: ["Last two minutes", "sparks"] });
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

function drawServices(services) {
  updateChildren($("service-rows"), services, (one) => one.name,
    (one) => {
      const line = row({ name: ["Service", "name"], state: ["State"], use: ["In use", "number"],
        depth: ["Waiting", "number"], served: ["Calls", "number"], errors: ["Errors", "number"] });
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
      setText(parts.errors, number(one.errors + one.timeouts + one.busy + one.down));
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
