// The newest log lines.

const LINES_SHOWN = 150;
const LINES_KEPT = 500;
const TIMES_KEPT = 50;
const LINES_A_REFRESH = 500;
const ACCESS = new Set(["connection", "request"]);
const SHOWN_FIELDS = new Set(["ts", "level", "event", "where", "traceback"]);

/** `times` has the milliseconds of the newest requests by endpoint. */
const log = { next: null, lines: [], times: new Map() };

/** Fetch the lines since the last call; on a busy edge only the newest. */
async function readLog() {
  const since = log.next === null ? "" : `since=${log.next}&`;
  let found = await get(`/api/logs?${since}count=${LINES_A_REFRESH}`);
  if (found.items.length === LINES_A_REFRESH) found = await get(`/api/logs?count=${LINES_A_REFRESH}`);
  if (log.next !== null && found.next < log.next) log.lines = []; // the edge was restarted
  const newest = log.lines.at(-1)?.number ?? -1;
  const fresh = found.items.filter((one) => one.number > newest);
  log.lines.push(...fresh);
  for (const { line } of fresh) if (line.event === "request" && line.endpoint) keepTime(line.endpoint, line.duration_ms);
  log.next = found.next;
  const keep = (isAccess) => log.lines.filter((one) => ACCESS.has(one.line.event) === isAccess).slice(-LINES_KEPT);
  log.lines = [...keep(true), ...keep(false)].sort((a, b) => a.number - b.number);
}

function keepTime(endpoint, milliseconds) {
  const times = log.times.get(endpoint) ?? [];
  times.push(milliseconds);
  log.times.set(endpoint, times.slice(-TIMES_KEPT));
}

/** Return {median, count} of the newest requests of an endpoint, in milliseconds; null: there are none. */
function latencyOf(endpoint) {
  const times = [...(log.times.get(endpoint) ?? [])].sort((a, b) => a - b);
  return times.length ? { median: times[Math.floor(times.length / 2)], count: times.length } : null;
}

/** Return whether a line matches the search: `field=value`, else a text anywhere in it. */
function isSearched(line, wanted) {
  if (wanted === "") return true;
  const [, field, value] = wanted.match(/^(\w+)=(.*)$/) ?? [];
  if (field !== undefined) return String(line[field]) === value;
  return JSON.stringify(Object.values(line)).toLowerCase().includes(wanted.toLowerCase());
}

/** Show the log lines of a search. */
function searchLog(wanted) {
  $("log-search").value = wanted;
  $("with-access").checked = true;
  drawLog();
  $("log").scrollIntoView({ block: "start" });
  $("log-search").focus({ preventScroll: true });
}

function drawLog() {
  const withAccess = $("with-access").checked;
  const wanted = $("log-search").value.trim();
  const shown = log.lines.filter((one) => (withAccess || !ACCESS.has(one.line.event)) && isSearched(one.line, wanted))
    .slice(-LINES_SHOWN).reverse();
  updateChildren($("log-lines"), shown, (one) => one.number, makeLine, () => {});
  setAttribute($("no-lines"), "hidden", shown.length ? "" : null);
  setText($("no-lines"), wanted ? "None of the newest lines matches; the log file has the older ones." : "No events have been logged.");
}

function makeLine({ line }) {
  const level = String(line.level ?? (ACCESS.has(line.event) ? "ACCESS" : "AUDIT")).toLowerCase();
  const facts = Object.entries(line).filter(([name, value]) => !SHOWN_FIELDS.has(name) && value !== null && value !== "")
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ");
  const time = typeof line.ts === "string" ? line.ts : "";
  return el("li", { "data-level": level },
    el("time", { datetime: time || null, title: time }, time.slice(11, 19)), el("span", { class: "level" }, level),
    el("span", { class: "event" }, String(line.event)), el("span", { class: "facts" }, facts),
    line.traceback ? el("pre", {}, String(line.traceback)) : null);
}

$("with-access").addEventListener("change", drawLog);
$("log-search").addEventListener("input", drawLog);
