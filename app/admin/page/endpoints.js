// Endpoints, their versions, and the deploy box.

const EXAMPLE = `"""Says hello."""


def handle(request, context):
    return {"hello": "world"}
`;

/** The endpoint in the deploy box, the stored version of its source, if any, and the running actions. */
const box = { id: null, stored: null, isActing: false, pending: 0 };

const ENDPOINT_COLUMNS = {
  name: ["Endpoint", "name", (one) => one.id], rule: ["Rule", "", (one) => one.path], version: ["Version", "", null],
  requests: ["Requests", "number", (one) => rates.of(`endpoint ${one.id} requests`)],
  latency: ["Latency", "number", (one) => latencyOf(one.id)?.median],
  errors: ["Errors", "number", (one) => one.errors + one.refused], action: ["Log", "action", null],
};
makeHead($("endpoint-head"), "endpoints", ENDPOINT_COLUMNS);

function drawEndpoints(endpoints) {
  const shown = endpoints.filter((one) => matchesSearch(one.id, one.name, one.path, one.domain));
  updateChildren($("endpoint-rows"), sorted("endpoints", shown, ENDPOINT_COLUMNS), (one) => one.id,
    (one) => {
      const line = row(ENDPOINT_COLUMNS);
      for (const part of [line.parts.requests, line.parts.latency, line.parts.errors]) part.append(el("span"), el("small"));
      line.parts.action.append(el("button", { type: "button", "aria-label": `Log lines of endpoint ${one.id}`,
        onclick: () => searchLog(`endpoint=${one.id}`) }, "Log"));
      line.parts.name.append(el("button", { type: "button", class: "link", onclick: () => openBox(one.id) }, one.id), el("small"));
      line.parts.rule.append(el("code"), el("small"));
      line.parts.version.append(pill(), el("small"));
      return line;
    },
    (line, one) => {
      const { parts } = line;
      setAttribute(line, "aria-current", one.id === box.id ? "true" : null);
      setText(parts.name.lastChild, one.name === one.id ? "" : one.name);
      setText(parts.rule.firstChild, one.path);
      setText(parts.rule.lastChild, [one.methods.join(" "), one.domain].filter(Boolean).join(" · "));
      const state = !one.is_enabled ? "off" : one.serving ? "healthy" : "unknown";
      setState(parts.version.firstChild, state, !one.is_enabled ? "off" : one.serving ? `v${one.serving.number}` : "none");
      setText(parts.version.lastChild, one.draining.map((old) => `v${old.number} draining, ${old.active} left`).join(", "));
      const latency = latencyOf(one.id);
      setText(parts.requests.firstChild, rate(rates.of(`endpoint ${one.id} requests`)));
      setText(parts.requests.lastChild, `${number(one.served)} in all${one.active ? `, ${number(one.active)} now` : ""}`);
      setText(parts.latency.firstChild, latency ? `${number(latency.median)} ms` : "–");
      setText(parts.latency.lastChild, latency ? `median of ${number(latency.count)}` : "");
      setText(parts.errors.firstChild, number(one.errors + one.refused));
      setText(parts.errors.lastChild, one.errors + one.refused ? rate(rates.of(`endpoint ${one.id} errors`)) : "");
      setAttribute(parts.errors, "data-some", one.errors + one.refused ? "" : null);
    });
  showEmpty("no-endpoints", endpoints.length === 0);
  const boxed = endpoints.find((one) => one.id === box.id);
  if (box.id !== null && boxed === undefined) closeBox();
  box.serving = boxed?.serving?.number ?? null;
}

function closeBox() {
  box.id = null;
  setAttribute($("deploy-box"), "hidden", "");
}

async function openBox(id) {
  box.id = id;
  box.stored = null;
  $("source").value = "";
  setAttribute($("deploy-box"), "hidden", null);
  setText($("deploy-title"), id);
  showOutcome("");
  $("deploy-title").focus({ preventScroll: true });
  $("deploy-title").scrollIntoView({ block: "nearest" });
  await attempt(async () => {
    const versions = await drawVersions();
    const last = versions.find((one) => one.number === box.serving) ?? versions.at(-1);
    if (box.id !== id) return;
    const isUntouched = () => $("source").value === ""; // the user may already type
    if (last) await showSource(id, last.number, isUntouched);
    else if (isUntouched()) $("source").value = EXAMPLE;
  });
  refresh();
}

async function drawVersions() {
  if (box.id === null) return [];
  const id = box.id;
  const { items } = await get(`/api/endpoints/${segment(id)}/versions`);
  if (box.id !== id) return [];
  updateChildren($("version-rows"), [...items].reverse(), (one) => `${id} ${one.number}`,
    (one) => {
      const line = row({ number: ["Version", "name"], checksum: ["Checksum"], stored: ["Stored"], deployed: ["Deployed"],
        action: ["", "action"] });
      line.parts.number.append(el("b", {}, `v${one.number}`), pill());
      line.parts.checksum.append(el("code", { title: one.checksum }, one.checksum.slice(0, 8)));
      line.parts.action.append(
        el("button", { type: "button", "aria-label": `Show the source of version ${one.number}`,
          onclick: () => attempt(() => showSource(id, one.number)) }, "Source"),
        el("button", { type: "button", "aria-label": `Deploy version ${one.number}`,
          onclick: () => deployVersion(one.number) }, "Deploy"));
      return line;
    },
    ({ parts }, one) => {
      const serves = one.number === box.serving;
      setState(parts.number.lastChild, serves ? "healthy" : "off", serves ? "serving" : "");
      setAttribute(parts.number.lastChild, "hidden", serves ? null : "");
      setText(parts.stored, ago(one.created_at));
      setText(parts.deployed, ago(one.deployed_at));
    });
  showEmpty("no-versions", items.length === 0);
  return items;
}

// Actions of the deploy box

function showOutcome(text, state = "", traceback = "") {
  setText($("outcome"), text);
  setAttribute($("outcome"), "data-state", state || null);
  setText($("traceback"), traceback);
  setAttribute($("traceback"), "hidden", traceback ? null : "");
}

/**
 * Run an action on the endpoint in the box and show its result; `done` formats it. A second click during an action does
 * nothing. The box may show another endpoint when the response arrives.
 */
async function attempt(work, done = null) {
  const { id } = box;
  if (done && box.isActing) return;
  box.isActing ||= done !== null;
  box.pending += 1;
  setAttribute($("deploy-box"), "aria-busy", "true");
  try {
    const result = await work(id);
    if (done && box.id === id) showOutcome(done(result), "healthy");
    else if (done) announce(`${id}: ${done(result)}`, "healthy");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const [first] = error.errors;
    const isTraceback = error.status === 422 && first !== undefined;
    const words = isTraceback ? `${first.where}: ${first.rule}` : error.message;
    if (box.id === id) showOutcome(words, "unhealthy", isTraceback ? error.message : "");
    else announce(`${id}: ${words}`, "unhealthy");
  } finally {
    if (done) box.isActing = false;
    await refresh();
    await drawVersions().catch(() => []);
    box.pending -= 1;
    setAttribute($("deploy-box"), "aria-busy", box.pending ? "true" : null);
  }
}

const endpointPath = (id, rest) => `/api/endpoints/${segment(id)}/${rest}`;

async function showSource(id, version, isWanted = () => true) {
  const { source } = await get(endpointPath(id, `versions/${version}/source`));
  if (box.id !== id || !isWanted()) return;
  $("source").value = source;
  box.stored = { source, number: version };
}

/** Store the source in the box as a version, unless it is stored already. Returns its number. */
async function store(id) {
  const source = $("source").value;
  if (box.stored?.source === source) return box.stored.number;
  const { number } = await call("POST", endpointPath(id, "versions"), { source });
  if (box.id === id) box.stored = { source, number };
  return number;
}

const servingMessage = (version) => version.frontends.length
  ? `Version ${version.number} is serving.`
  : `Version ${version.number} is deployed, but no frontend leads to endpoints (gateway: on).`;

function deployVersion(version) {
  return attempt((id) => call("POST", endpointPath(id, `versions/${version}/deploy`)), servingMessage);
}

function deploy() {
  return attempt(async (id) => call("POST", endpointPath(id, `versions/${await store(id)}/deploy`)), servingMessage);
}

function compile() {
  return attempt(async (id) => call("POST", endpointPath(id, `versions/${await store(id)}/compile`)),
    (version) => `Version ${version.number} compiles; it is not deployed.`);
}

async function rollBack() {
  const { id, serving } = box;
  const now = serving === null ? "Its last version serves again." : `Version ${serving} stops, and the version before it serves again.`;
  if (!(await confirmed(`Roll back endpoint ${id}? ${now}`, "Roll back")) || box.id !== id) return undefined;
  return attempt((id) => call("POST", endpointPath(id, "roll-back")), (version) => `Rolled back. ${servingMessage(version)}`);
}

async function undeploy() {
  const { id } = box;
  if (!(await confirmed(`Undeploy endpoint ${id}? Its requests get 503 until a version is deployed.`, "Undeploy")) || box.id !== id) return undefined;
  return attempt((id) => call("POST", endpointPath(id, "undeploy")), () => "Undeployed: no version is serving.");
}

async function create(event) {
  event.preventDefault();
  const form = event.target;
  const { id, path, methods, domain } = form.elements;
  const endpoint = {
    id: id.value.trim(), path: path.value.trim(), methods: methods.value.toUpperCase().split(/[\s,]+/).filter(Boolean),
    domain: domain.value.trim() || null,
  };
  try {
    await call("POST", "/api/endpoints", endpoint);
  } catch (error) {
    announce([error.message, ...(error.errors ?? []).map((fault) => `${fault.where}: ${fault.rule}`)].join("; "), "unhealthy");
    return;
  }
  form.reset();
  $("new-endpoint").open = false;
  announce(`Endpoint ${endpoint.id} was created; deploy a handler for it.`, "healthy");
  await refresh();
  await openBox(endpoint.id);
}

$("deploy").addEventListener("click", deploy);
$("compile").addEventListener("click", compile);
$("roll-back").addEventListener("click", rollBack);
$("undeploy").addEventListener("click", undeploy);
$("create").addEventListener("submit", create);
$("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) $("source").value = await file.text();
  event.target.value = "";
});
