// Signing in and out, looking at the edge every two seconds, and saying so when it does not answer.

const LOOK_MILLISECONDS = 2000;
const SAID_MILLISECONDS = 8000;

const rates = new Rates();
/** What is known of the edge: since when, what is wrong, under which sign-in (0: none). */
const seen = { at: null, looking: null, trouble: null, session: 0, bearer: null, hush: null };
let sessions = 0;

function become(state) {
  document.documentElement.dataset.state = state;
}

/** Tell what came of something that a person did, for long enough to be read. */
function announce(text, state = "") {
  say($("said"), text);
  put($("said"), "data-state", state || null);
  clearTimeout(seen.hush);
  seen.hush = setTimeout(() => say($("said"), ""), SAID_MILLISECONDS);
}

// The look

async function look() {
  seen.bearer ??= await get("/api/token"); // alone: every failure counts against the limit
  const [status, frontends, allPools, clients, endpoints, services, actors] = await Promise.all([
    get("/api/status"), get("/api/frontends"), get("/api/pools"), get(`/api/clients?seconds=${RING_SECONDS}`),
    get("/api/endpoints"), get("/api/services"), get("/api/actors"), readLog(),
  ]);
  const realPools = allPools.items.filter((pool) => pool.name !== ""); // "": of frontends that have but endpoints
  const pools = realPools.slice(0, MOST_POOLS);
  const listed = await Promise.all(pools.map((pool) => get(`/api/pools/${segment(pool.name)}/members?count=${MOST_MEMBERS}`)));
  pools.forEach((pool, i) => {
    pool.members = listed[i].items;
    pool.isHttp = frontends.items.some((one) => one.pool === pool.name && one.protocol === "http");
    for (const member of pool.members) member.key = `${pool.name} ${member.id}`;
  });
  const sum = (field) => realPools.reduce((total, pool) => total + pool[field], 0);
  const all = { pools: realPools.length, backends: sum("backends"), candidates: sum("candidates"),
    sent: frontends.bytes_sent_total };
  return { status, frontends: frontends.items, pools, all, clients, endpoints: endpoints.items,
    services: services.items, actors: actors.items };
}

function noteRates({ frontends, pools, all }) {
  if (!rates.begin(performance.now() / 1000)) return;
  const sum = (field) => frontends.reduce((total, one) => total + one[field], 0);
  rates.note("connections", sum("connections_total"));
  rates.note("requests", sum("requests_total"));
  rates.note("sent", all.sent);
  for (const one of frontends) {
    rates.note(`frontend ${one.name} connections`, one.connections_total);
    rates.note(`frontend ${one.name} requests`, one.requests_total);
  }
  for (const member of pools.flatMap((pool) => pool.members)) {
    rates.note(`${member.key} connections`, member.connections_total);
    rates.note(`${member.key} requests`, member.requests_total);
    rates.note(`${member.key} sent`, member.bytes_sent_total);
  }
  rates.end();
}

function draw(found) {
  const { status, frontends, pools, all, clients } = found;
  const members = pools.flatMap((pool) => pool.members);
  sayState($("readiness"), status.ready ? "healthy" : "unhealthy", status.ready ? "ready" : status.reasons.join(", "));
  drawReplica(status.details.replica);
  say($("region"), status.region ?? "");
  say($("bearer"), `token ${seen.bearer.name} · ${seen.bearer.scopes.join(", ")}`);
  document.title = `edgeproxy ${status.region ?? ""} · ${status.ready ? "ready" : status.reasons.join(", ")}`;
  drawFigures({ frontends, all, rates });
  drawMap({ members, clients, region: status.region, poolOf: new Map(frontends.map((one) => [one.name, one.pool])) });
  drawPools(pools, all.pools, rates, turn);
  drawFrontends(frontends, rates);
  drawEndpoints(found.endpoints);
  drawServices(found.services);
  drawActors(found.actors);
  drawLog();
}

/** Say how far behind etcd the backends may be, where they are its copy. */
function drawReplica(replica) {
  put($("replica"), "hidden", replica ? null : "");
  if (!replica) return;
  const { age_seconds: age, error } = replica;
  const doubts = [[replica.suspects?.count, "in doubt"], [replica.bad_records?.count, "bad"]];
  const words = [age === null ? "no word of etcd yet" : `replica ${duration(age)} old`,
    ...doubts.filter(([count]) => count).map(([count, what]) => `${number(count)} ${what}`)];
  sayState($("replica"), error ? "unhealthy" : words.length > 1 ? "draining" : "healthy", words.join(" · "));
  put($("replica"), "title", error);
}

/** Look once, now; one that is under way is waited for first, because it may have begun too early. */
async function lookAgain() {
  await seen.looking?.catch(() => {}); // whoever began it hears of it
  seen.looking = lookOnce();
  await seen.looking;
}

async function lookOnce() {
  const { session } = seen;
  if (!session) return;
  try {
    const found = await look();
    if (session !== seen.session) return;
    noteRates(found);
    draw(found);
    seen.at = Date.now();
    seen.trouble = null;
    become("live");
  } catch (error) {
    if (session !== seen.session) return;
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) signOut(seen.at === null ? "This is no valid token." : "This token is not valid any more.");
    else if (error.status === 403 || error.status === 429) signOut(`${error.message}.`);
    else {
      seen.trouble = error;
      become(seen.at === null ? "waiting" : "stale");
      sayState($("readiness"), "unhealthy", "no answer");
      document.title = "edgeproxy · no answer";
    }
  } finally {
    sayAge();
  }
}

function sayAge() {
  const seconds = seen.at === null ? 0 : (Date.now() - seen.at) / 1000;
  const isLive = seen.trouble === null;
  say($("age"), seen.at === null ? "" : isLive && seconds < 5 ? "live" : `${duration(seconds)} old`);
  put($("trouble"), "hidden", isLive ? "" : null);
  if (isLive) return;
  const why = seen.trouble.status === 0 ? "The edge does not answer" : `The edge answers ${seen.trouble.status}: ${seen.trouble.message}`;
  say($("trouble"), seen.at === null ? `${why}. Trying again.` :
    `${why}. What you see is of ${clock(seen.at)}. Trying again.`);
}

async function keepLooking() {
  try {
    if (!document.hidden && seen.session) await lookAgain();
  } finally {
    setTimeout(keepLooking, LOOK_MILLISECONDS);
  }
}

// Drain and undrain

async function turn(member) {
  const verb = member.is_drained ? "undrain" : "drain";
  try {
    await call("POST", `/api/backends/${segment(member.id)}/${verb}`);
    announce(verb === "drain" ? `${member.id} takes no new connections.` : `${member.id} serves again.`, "healthy");
  } catch (error) {
    announce(`${member.id} was not changed: ${error.message}.`, "unhealthy");
  }
  for (let tries = 0; tries < 5; tries += 1) { // the edge follows its database within half a second
    await new Promise((done) => setTimeout(done, 200));
    await lookAgain();
  }
}

// Signing in and out

async function signIn() {
  sessions += 1;
  seen.session = sessions;
  become("waiting");
  await lookAgain();
}

function signOut(why = "") {
  sessionStorage.removeItem(TOKEN);
  Object.assign(seen, { at: null, trouble: null, session: 0, bearer: null });
  become("signed-out");
  closeBox();
  say($("refusal"), why);
  announce("");
  sayAge();
  $("token").focus();
}

$("sign-out").addEventListener("click", () => signOut());
$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  say($("refusal"), "");
  await signIn();
  if (seen.session) $("main").focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", () => !document.hidden && seen.session && lookAgain());
setInterval(sayAge, 1000);

if (sessionStorage.getItem(TOKEN)) signIn();
else $("token").focus();
keepLooking();
