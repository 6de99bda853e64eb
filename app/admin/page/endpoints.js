// Endpoints, their versions, and the deploy box.

const EXAMPLE = `"""Says hello."""


def handle(request, context):
    return {"hello": "world"}
`;

/** The endpoint in the deploy box, the version that its source was kept as, if it was, and what is under way. */
const box = { id: null, kept: null, isActing: false, underWay: 0 };

function drawEndpoints(endpoints) {
  keyed($("endpoint-rows"), endpoints, (one) => one.id,
    (one) => {
      const line = row({ name: ["Endpoint", "name"], rule: ["Answers"], version: ["Version"],
        active: ["Active", "number"], served: ["Served", "number"], errors: ["Errors", "number"] });
      line.parts.name.append(el("button", { type: "button", class: "link", onclick: () => openBox(one.id) }, one.id), el("small"));
      line.parts.rule.append(el("code"), el("small"));
      line.parts.version.append(pill(), el("small"));
      return line;
    },
    (line, one) => {
      const { parts } = line;
      put(line, "aria-current", one.id === box.id ? "true" : null);
      say(parts.name.lastChild, one.name === one.id ? "" : one.name);
      say(parts.rule.firstChild, one.path);
      say(parts.rule.lastChild, [one.methods.join(" "), one.domain].filter(Boolean).join(" · "));
      const state = !one.is_enabled ? "idle" : one.serving ? "healthy" : "unknown";
      sayState(parts.version.firstChild, state, !one.is_enabled ? "off" : one.serving ? `v${one.serving.number}` : "none");
      say(parts.version.lastChild, one.draining.map((old) => `v${old.number} drains, ${old.active} left`).join(", "));
      say(parts.active, number(one.active));
      say(parts.served, number(one.served));
      say(parts.errors, number(one.errors + one.refused));
      put(parts.errors, "data-some", one.errors + one.refused ? "" : null);
    });
  showEmpty("no-endpoints", endpoints.length === 0);
  const shown = endpoints.find((one) => one.id === box.id);
  if (box.id !== null && shown === undefined) closeBox();
  box.serving = shown?.serving?.number ?? null;
}

function closeBox() {
  box.id = null;
  put($("deploy-box"), "hidden", "");
}

async function openBox(id) {
  box.id = id;
  box.kept = null;
  $("source").value = "";
  put($("deploy-box"), "hidden", null);
  say($("deploy-title"), id);
  sayOutcome("");
  $("deploy-title").focus({ preventScroll: true });
  $("deploy-title").scrollIntoView({ block: "nearest" });
  await attempt(async () => {
    const versions = await drawVersions();
    const last = versions.find((one) => one.number === box.serving) ?? versions.at(-1);
    if (box.id !== id) return;
    const isUntouched = () => $("source").value === ""; // somebody may type already
    if (last) await showSource(id, last.number, isUntouched);
    else if (isUntouched()) $("source").value = EXAMPLE;
  });
  lookAgain();
}

async function drawVersions() {
  if (box.id === null) return [];
  const id = box.id;
  const { items } = await get(`/api/endpoints/${segment(id)}/versions`);
  if (box.id !== id) return [];
  keyed($("version-rows"), [...items].reverse(), (one) => `${id} ${one.number}`,
    (one) => {
      const line = row({ number: ["Version", "name"], checksum: ["Checksum"], kept: ["Kept"], deployed: ["Deployed"],
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
      sayState(parts.number.lastChild, serves ? "healthy" : "idle", serves ? "serves" : "");
      put(parts.number.lastChild, "hidden", serves ? null : "");
      say(parts.kept, ago(one.created_at));
      say(parts.deployed, ago(one.deployed_at));
    });
  showEmpty("no-versions", items.length === 0);
  return items;
}

// What the box does

function sayOutcome(text, state = "", traceback = "") {
  say($("outcome"), text);
  put($("outcome"), "data-state", state || null);
  say($("traceback"), traceback);
  put($("traceback"), "hidden", traceback ? null : "");
}

/**
 * Do something with the endpoint in the box and say what came of it; `done` makes the words of its result. What is
 * pressed twice is done once; and the box may have another endpoint in it when the answer comes.
 */
async function attempt(work, done = null) {
  const { id } = box;
  if (done && box.isActing) return;
  box.isActing ||= done !== null;
  box.underWay += 1;
  put($("deploy-box"), "aria-busy", "true");
  try {
    const result = await work(id);
    if (done && box.id === id) sayOutcome(done(result), "healthy");
    else if (done) announce(`${id}: ${done(result)}`, "healthy");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const [first] = error.errors;
    const isTraceback = error.status === 422 && first !== undefined;
    const words = isTraceback ? `${first.where}: ${first.rule}` : error.message;
    if (box.id === id) sayOutcome(words, "unhealthy", isTraceback ? error.message : "");
    else announce(`${id}: ${words}`, "unhealthy");
  } finally {
    if (done) box.isActing = false;
    await lookAgain();
    await drawVersions().catch(() => []);
    box.underWay -= 1;
    put($("deploy-box"), "aria-busy", box.underWay ? "true" : null);
  }
}

const endpointPath = (id, rest) => `/api/endpoints/${segment(id)}/${rest}`;

async function showSource(id, version, isWanted = () => true) {
  const { source } = await get(endpointPath(id, `versions/${version}/source`));
  if (box.id !== id || !isWanted()) return;
  $("source").value = source;
  box.kept = { source, number: version };
}

/** Keep what is in the box as a version, unless it is one already; returns its number. */
async function keep(id) {
  const source = $("source").value;
  if (box.kept?.source === source) return box.kept.number;
  const { number } = await call("POST", endpointPath(id, "versions"), { source });
  if (box.id === id) box.kept = { source, number };
  return number;
}

const saysItServes = (version) => `Version ${version.number} serves.`;

function deployVersion(version) {
  return attempt((id) => call("POST", endpointPath(id, `versions/${version}/deploy`)), saysItServes);
}

function deploy() {
  return attempt(async (id) => call("POST", endpointPath(id, `versions/${await keep(id)}/deploy`)), saysItServes);
}

function compile() {
  return attempt(async (id) => call("POST", endpointPath(id, `versions/${await keep(id)}/compile`)),
    (version) => `Version ${version.number} compiles; it does not serve yet.`);
}

function rollBack() {
  return attempt((id) => call("POST", endpointPath(id, "roll-back")), (version) => `Rolled back: version ${version.number} serves.`);
}

function undeploy() {
  return attempt((id) => call("POST", endpointPath(id, "undeploy")), () => "No version serves any more.");
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
  announce(`Endpoint ${endpoint.id} is there; deploy a handler for it.`, "healthy");
  await lookAgain();
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
