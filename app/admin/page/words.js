// How numbers, times and states are said.

function number(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 && !Number.isInteger(value) ? 1 : 0 });
}

function rate(value) {
  return value === null ? "–" : `${number(value)}/s`;
}

function bytes(value) {
  if (value === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${number(value)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB");
}

function ago(unixSeconds) {
  return unixSeconds === null ? "never" : `${duration(Date.now() / 1000 - unixSeconds)} ago`;
}

function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** What a backend is, in the order of the legend. */
const STATES = ["healthy", "full", "idle", "unknown", "draining", "ejected", "unhealthy"];
const MEANINGS = {
  healthy: "takes clients",
  full: "at its hard limit",
  idle: "weight 0: no new clients",
  unknown: "not probed yet",
  draining: "drained: no new connections",
  ejected: "its connections failed: cooling down",
  unhealthy: "probes fail, or the database says so",
};

function stateOf(member) {
  if (member.is_drained) return "draining";
  if (!member.is_healthy || member.state === "down") return "unhealthy";
  if (member.state === "ejected") return "ejected";
  if (member.state === "unknown") return "unknown";
  if (member.hard_limit > 0 && member.connections >= member.hard_limit) return "full";
  return member.weight === 0 ? "idle" : "healthy";
}

/** How busy a backend is: 1 at its soft limit. */
function loadOf(member) {
  const limit = member.hard_limit > 0 ? Math.min(member.soft_limit, member.hard_limit) : member.soft_limit;
  return limit > 0 ? member.connections / limit : 0;
}
