// What is wrong, since when, and where the log says more: the first thing on the page.

const MOST_PROBLEMS = 20;

/** Return the problems, the worst first: {key, state, what, why, seconds (since; null: unknown), log (a search)}. */
function problemsOf({ status, pools, endpoints, services }) {
  return [...problemsOfEdge(status), ...problemsOfPools(pools), ...endpoints.flatMap(problemsOfEndpoint),
    ...services.filter((one) => !one.is_up).map((one) => ({
      key: `service ${one.name}`, what: `Service ${one.name} is down`, why: one.reason, log: `service ${one.name}` }))]
    .map((one) => ({ state: "unhealthy", why: "", seconds: null, log: null, ...one }));
}

function problemsOfEdge({ ready, reasons, details }) {
  const { routing, gateway, replica, dark_frontends: dark } = details;
  const refused = routing.rows_refused;
  const every = [
    [!ready, "ready", "This edge is not ready", reasons.join(", ")],
    [!details.configuration_is_current, "configuration", "The configuration file is refused", "the former one is in force", "configuration"],
    [routing.stale, "routing", "The routing database cannot be read", `${routing.stale}; the last backends serve`, "routing"],
    [refused, "rows", `${plural(refused, "row")} of the routing database ${refused === 1 ? "is" : "are"} refused`, "", "row refused"],
    [gateway?.restore_error, "gateway", "Endpoints are not restored", gateway?.restore_error, "gateway"],
    ...Object.entries(gateway?.damaged_rows ?? {}).map(([row, fault]) => [
      true, `damaged ${row}`, `${row[0].toUpperCase()}${row.slice(1)} is damaged and left out`, fault, `${row} is damaged`]),
    [replica?.error, "replica", "The replica of etcd is not current", replica?.error, null],
    ...dark.map((name) => [true, `frontend ${name}`, `Frontend ${name} is dark`, "no backend of its pool takes clients", "no candidate backend"]),
  ];
  return every.filter(([isOne]) => isOne).map(([, key, what, why, log]) => ({ key, what, why, log }));
}

function problemsOfPools(pools) {
  return pools.flatMap((pool) => [
    ...(pool.fails_open ? [{ key: `pool ${pool.name}`, what: `Pool ${pool.name}: every backend is down`, why: "all are used anyway", log: `pool=${pool.name}` }] : []),
    ...pool.shown.filter((backend) => PROBLEM_STATES.has(stateOf(backend))).map((backend) => ({
      key: `backend ${backend.key}`, state: stateOf(backend), what: `Backend ${backend.id} of pool ${pool.name} is ${stateOf(backend)}`,
      why: reasonOf(backend), seconds: isJudged(backend) ? backend.seconds_in_state : null, log: `backend=${backend.id}` })),
  ]);
}

/** Return whether probes or traffic judged it, which has a time; the database has none. */
const isJudged = (backend) => backend.state === "down" || backend.state === "ejected";

function reasonOf(backend) {
  if (!backend.is_healthy) return "the database says healthy = 0";
  if (backend.state === "down") return "its probes fail";
  return `${plural(backend.consecutive_failures, "connection")} in a row failed; tried again in ${duration(backend.ejected_for_seconds)}`;
}

function problemsOfEndpoint(one) {
  const failed = rates.growth(`endpoint ${one.id} errors`), all = rates.growth(`endpoint ${one.id} requests`);
  if (failed > 0) {
    return [{ key: `endpoint ${one.id}`, what: `Endpoint ${one.id} fails`, seconds: rates.secondsSinceGrowth(`endpoint ${one.id} errors`),
      why: `${number(failed)} of ${plural(all, "request")} in the last two minutes`, log: `endpoint=${one.id}` }];
  }
  if (one.serving === null || one.frontends.length) return [];
  return [{ key: `endpoint ${one.id}`, state: "draining", what: `No request reaches endpoint ${one.id}`, why: "no frontend has gateway: on" }];
}

function drawProblems(found) {
  const problems = problemsOf(found);
  updateChildren($("problem-list"), problems.slice(0, MOST_PROBLEMS), (one) => one.key,
    () => {
      const node = el("li", {}, el("b"), el("span", { class: "why" }), el("span", { class: "since" }));
      node.link = el("button", { type: "button", class: "link", onclick: () => searchLog(node.search) }, "Log");
      node.append(node.link);
      return node;
    },
    (node, one) => {
      const [what, why, since] = node.children;
      setAttribute(node, "data-state", one.state);
      setText(what, one.what);
      setText(why, one.why ?? "");
      setText(since, one.seconds === null ? "" : `since ${clock(Date.now() - one.seconds * 1000)}, ${duration(one.seconds)}`);
      node.search = one.log;
      setAttribute(node.link, "hidden", one.log ? null : "");
      setAttribute(node.link, "aria-label", `Log lines: ${one.what}`);
    });
  setAttribute($("no-problems"), "hidden", problems.length ? "" : null);
  setAttribute($("more-problems"), "hidden", problems.length > MOST_PROBLEMS ? null : "");
  setText($("more-problems"), `and ${number(problems.length - MOST_PROBLEMS)} more: filter the tables by problems`);
}
