// The newest log lines.

const LINES_SHOWN = 150;
const LINES_A_REFRESH = 500;
const ACCESS = new Set(["connection", "request"]);
const SHOWN_FIELDS = new Set(["ts", "level", "event", "where", "traceback"]);

const log = { next: null, lines: [] };

/** Fetch the lines since the last call; on a busy edge only the newest. */
async function readLog() {
  const since = log.next === null ? "" : `since=${log.next}&`;
  let found = await get(`/api/logs?${since}count=${LINES_A_REFRESH}`);
  if (found.items.length === LINES_A_REFRESH) found = await get(`/api/logs?count=${LINES_A_REFRESH}`);
  if (log.next !== null && found.next < log.next) log.lines = []; // the edge was restarted
  const newest = log.lines.at(-1)?.number ?? -1;
  log.lines.push(...found.items.filter((one) => one.number > newest));
  log.next = found.next;
  const keep = (isAccess) => log.lines.filter((one) => ACCESS.has(one.line.event) === isAccess).slice(-LINES_SHOWN);
  log.lines = [...keep(true), ...keep(false)].sort((a, b) => a.number - b.number);
}

function drawLog() {
  const withAccess = $("with-access").checked;
  const shown = log.lines.filter((one) => withAccess || !ACCESS.has(one.line.event)).slice(-LINES_SHOWN).reverse();
  updateChildren($("log-lines"), shown, (one) => one.number, makeLine, () => {});
  setAttribute($("no-lines"), "hidden", shown.length ? "" : null);
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
