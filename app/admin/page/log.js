// The newest lines of the log.

const LINES_SHOWN = 150;
const LINES_A_LOOK = 500;
const ACCESS = new Set(["connection", "request"]);
const SAID = new Set(["ts", "level", "event", "where", "traceback"]);

const log = { next: null, lines: [] };

/** Fetch what has been logged since; on a busy edge the newest alone. */
async function readLog() {
  const since = log.next === null ? "" : `since=${log.next}&`;
  let found = await get(`/api/logs?${since}count=${LINES_A_LOOK}`);
  if (found.items.length === LINES_A_LOOK) found = await get(`/api/logs?count=${LINES_A_LOOK}`);
  if (log.next !== null && found.next < log.next) log.lines = []; // the edge was started anew
  const newest = log.lines.at(-1)?.number ?? -1;
  log.lines.push(...found.items.filter((one) => one.number > newest));
  log.next = found.next;
  const keep = (isAccess) => log.lines.filter((one) => ACCESS.has(one.line.event) === isAccess).slice(-LINES_SHOWN);
  log.lines = [...keep(true), ...keep(false)].sort((a, b) => a.number - b.number);
}

function drawLog() {
  const withAccess = $("with-access").checked;
  const shown = log.lines.filter((one) => withAccess || !ACCESS.has(one.line.event)).slice(-LINES_SHOWN).reverse();
  keyed($("log-lines"), shown, (one) => one.number, makeLine, () => {});
  put($("no-lines"), "hidden", shown.length ? "" : null);
}

function makeLine({ line }) {
  const level = String(line.level ?? (ACCESS.has(line.event) ? "ACCESS" : "AUDIT")).toLowerCase();
  const facts = Object.entries(line).filter(([name, value]) => !SAID.has(name) && value !== null && value !== "")
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ");
  const time = typeof line.ts === "string" ? line.ts : "";
  return el("li", { "data-level": level },
    el("time", { datetime: time || null, title: time }, time.slice(11, 19)), el("span", { class: "level" }, level),
    el("span", { class: "event" }, String(line.event)), el("span", { class: "facts" }, facts),
    line.traceback ? el("pre", {}, String(line.traceback)) : null);
}

$("with-access").addEventListener("change", drawLog);
