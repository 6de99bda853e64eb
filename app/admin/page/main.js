// Signing in and out, refreshing every two seconds, and reporting an edge that does not respond.

const REFRESH_MILLISECONDS = 2000;
const MESSAGE_MILLISECONDS = 8000;

const rates = new Rates();
/** The state of the page: time of the last refresh, its error, the number of the sign-in (0: signed out). */
const view = { at: null, refreshing: null, error: null, session: 0, bearer: null, found: null, messageTimer: null };
let sessions = 0;

function setPageState(state) {
  document.documentElement.dataset.state = state;
}

/** Show the result of a user's action for a while. */
function announce(text, state = "") {
  setText($("message"), text);
  setAttribute($("message"), "data-state", state || null);
  clearTimeout(view.messageTimer);
  view.messageTimer = setTimeout(() => setText($("message"), ""), MESSAGE_MILLISECONDS);
}

// Refreshing

async function fetchAll() {
  view.bearer ??= await get("/api/token"); // not in parallel: every failure counts against the limit
  const [status, frontends, allPools, clients, endpoints, services, actors] = await Promise.all([
    get("/api/status"), get("/api/frontends"), get("/api/pools"), get(`/api/clients?seconds=${RING_SECONDS}`),
    get("/api/endpoints"), get("/api/services"), get("/api/actors"), readLog(),
  ]);
  const realPools = allPools.items.filter((pool) => pool.name !== ""); // "": the pool of frontends without backends
  const pools = realPools.slice(0, MOST_POOLS);
  const listed = await Promise.all(pools.map(fetchBackends));
  pools.forEach((pool, i) => {
    pool.shown = listed[i];
    pool.isHttp = frontends.items.some((one) => one.pool === pool.name && one.protocol === "http");
    for (const backend of pool.shown) backend.key = `${pool.name} ${backend.id}`;
  });
  const lasts = new Map(pools.filter((pool) => pool.candidates === 1).flatMap((pool) =>
    pool.shown.filter((backend) => backend.takes_new_clients).map((backend) => [backend.id, pool.name])));
  for (const backend of pools.flatMap((pool) => pool.shown)) backend.lastOf = lasts.get(backend.id) ?? null;
  const sum = (field) => realPools.reduce((total, pool) => total + pool[field], 0);
  const all = { pools: realPools.length, backends: sum("backends"), candidates: sum("candidates"),
    sent: frontends.bytes_sent_total };
  return { status, frontends: frontends.items, pools, all, clients, endpoints: endpoints.items,
    services: services.items, actors: actors.items };
}

/** Fetch the first backends of a pool, in parts that do not hold up the edge. */
async function fetchBackends(pool) {
  const found = [];
  for (let first = 0; first !== null && first < MOST_BACKENDS;) {
    const { items, next } = await get(`/api/pools/${segment(pool.name)}/backends?first=${first}&count=${BACKENDS_A_REQUEST}`);
    found.push(...items);
    first = next;
  }
  return found;
}

function recordRates({ frontends, pools, all, endpoints }) {
  if (!rates.begin(performance.now() / 1000)) return;
  const sum = (field) => frontends.reduce((total, one) => total + one[field], 0);
  rates.record("connections", sum("connections_total"));
  rates.record("requests", sum("requests_total"));
  rates.record("sent", all.sent);
  for (const one of endpoints) {
    rates.record(`endpoint ${one.id} requests`, one.served + one.refused);
    rates.record(`endpoint ${one.id} errors`, one.errors + one.refused);
  }
  for (const one of frontends) {
    rates.record(`frontend ${one.name} connections`, one.connections_total);
    rates.record(`frontend ${one.name} requests`, one.requests_total);
  }
  for (const backend of pools.flatMap((pool) => pool.shown)) {
    rates.record(`${backend.key} connections`, backend.connections_total);
    rates.record(`${backend.key} requests`, backend.requests_total);
    rates.record(`${backend.key} sent`, backend.bytes_sent_total);
  }
  rates.end();
}

function draw(found) {
  const { status, frontends, pools, all, clients } = found;
  const backends = pools.flatMap((pool) => pool.shown);
  setState($("readiness"), status.ready ? "healthy" : "unhealthy", status.ready ? "ready" : status.reasons.join(", "));
  drawReplica(status.details.replica);
  setText($("region"), status.region ?? "");
  setText($("bearer"), `token ${view.bearer.name} · ${view.bearer.scopes.join(", ")}`);
  document.title = `edgeproxy ${status.region ?? ""} · ${status.ready ? "ready" : status.reasons.join(", ")}`;
  view.found = found;
  drawProblems(found);
  drawFigures({ frontends, all, rates });
  drawMap({ backends, clients, region: status.region, poolOf: new Map(frontends.map((one) => [one.name, one.pool])) });
  drawPools(pools, all.pools, rates, toggleDrain);
  drawFrontends(frontends, rates);
  drawEndpoints(found.endpoints);
  drawServices(found.services);
  drawActors(found.actors);
  drawLog();
}

/** Draw the data at hand again, after a search or another order. */
function redraw() {
  if (view.found !== null) draw(view.found);
}

/** Show the age of the replica, if the backends are replicated from etcd. */
function drawReplica(replica) {
  setAttribute($("replica"), "hidden", replica ? null : "");
  if (!replica) return;
  const { age_seconds: age, error } = replica;
  const doubts = [[replica.suspects?.count, "in doubt"], [replica.bad_records?.count, "bad"]];
  const words = [age === null ? "nothing from etcd yet" : `replica ${duration(age)} old`,
    ...doubts.filter(([count]) => count).map(([count, what]) => `${number(count)} ${what}`)];
  setState($("replica"), error ? "unhealthy" : words.length > 1 ? "draining" : "healthy", words.join(" · "));
  setAttribute($("replica"), "title", error);
}

/** Refresh now, after any running refresh: that one may have started too early. */
async function refresh() {
  await view.refreshing?.catch(() => {}); // reported by the caller that started it
  view.refreshing = refreshOnce();
  await view.refreshing;
}

async function refreshOnce() {
  const { session } = view;
  if (!session) return;
  try {
    const found = await fetchAll();
    if (session !== view.session) return;
    recordRates(found);
    draw(found);
    view.at = Date.now();
    view.error = null;
    setPageState("live");
  } catch (error) {
    if (session !== view.session) return;
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) signOut(view.at === null ? "This token is not valid." : "This token is no longer valid.");
    else if (error.status === 403 || error.status === 429) signOut(`${error.message}.`);
    else {
      view.error = error;
      setPageState(view.at === null ? "waiting" : "stale");
      setState($("readiness"), "unhealthy", "no response");
      document.title = "edgeproxy · no response";
    }
  } finally {
    drawAge();
  }
}

function drawAge() {
  const seconds = view.at === null ? 0 : (Date.now() - view.at) / 1000;
  const isLive = view.error === null;
  setText($("age"), view.at === null ? "" : isLive && seconds < 5 ? "live" : `${duration(seconds)} old`);
  setAttribute($("alert"), "hidden", isLive ? "" : null);
  if (isLive) return;
  const why = view.error.status === 0 ? "The edge does not respond" : `The edge responds with ${view.error.status}: ${view.error.message}`;
  setText($("alert"), view.at === null ? `${why}. Retrying.` :
    `${why}. The data shown is from ${clock(view.at)}. Retrying.`);
}

async function keepRefreshing() {
  try {
    if (!document.hidden && view.session) await refresh();
  } finally {
    setTimeout(keepRefreshing, REFRESH_MILLISECONDS);
  }
}

// Drain and undrain

async function toggleDrain(backend) {
  const verb = backend.is_drained ? "undrain" : "drain";
  if (verb === "drain" && backend.lastOf !== null && !(await confirmed(
    `${backend.id} is the last backend of pool ${backend.lastOf} that takes clients. Without it the pool refuses new connections.`, "Drain it"))) return;
  try {
    await call("POST", `/api/backends/${segment(backend.id)}/${verb}`);
    announce(verb === "drain" ? `${backend.id} takes no new connections.` : `${backend.id} takes new connections again.`, "healthy");
  } catch (error) {
    announce(`${backend.id} was not changed: ${error.message}.`, "unhealthy");
  }
  for (let tries = 0; tries < 5; tries += 1) { // the edge sees a change of its database within half a second
    await new Promise((done) => setTimeout(done, 200));
    await refresh();
  }
}

// Signing in and out

async function signIn() {
  sessions += 1;
  view.session = sessions;
  setPageState("waiting");
  await refresh();
}

function signOut(why = "") {
  sessionStorage.removeItem(TOKEN);
  Object.assign(view, { at: null, error: null, session: 0, bearer: null, found: null });
  $("confirm").close("");
  setPageState("signed-out");
  closeBox();
  setText($("sign-in-error"), why);
  announce("");
  drawAge();
  $("token").focus();
}

$("sign-out").addEventListener("click", () => signOut());
$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  setText($("sign-in-error"), "");
  await signIn();
  if (view.session) $("main").focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", () => !document.hidden && view.session && refresh());
setInterval(drawAge, 1000);

if (sessionStorage.getItem(TOKEN)) signIn();
else $("token").focus();
keepRefreshing();
