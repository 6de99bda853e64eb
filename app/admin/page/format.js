// Formatting of numbers, times and states.

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

/** The states of a backend, in the order of the legend. */
const STATES = ["healthy", "full", "weight 0", "unknown", "draining", "ejected", "unhealthy"];
const PROBLEM_STATES = new Set(["unhealthy", "ejected"]);
const MEANINGS = {
  healthy: "takes clients",
  full: "at its hard limit",
  "weight 0": "no new clients by its weight",
  unknown: "not probed yet",
  draining: "drained: no new connections",
  ejected: "for a while: connections to it failed",
  unhealthy: "probes fail, or the database says healthy = 0",
};

function stateOf(backend) {
  if (backend.is_drained) return "draining";
  if (!backend.is_healthy || backend.state === "down") return "unhealthy";
  if (backend.state === "ejected") return "ejected";
  if (backend.state === "unknown") return "unknown";
  if (backend.hard_limit > 0 && backend.connections >= backend.hard_limit) return "full";
  return backend.weight === 0 ? "weight 0" : "healthy";
}

/** Return the load of a backend: 1 at its soft limit. */
function loadOf(backend) {
  const limit = backend.hard_limit > 0 ? Math.min(backend.soft_limit, backend.hard_limit) : backend.soft_limit;
  return limit > 0 ? backend.connections / limit : 0;
}
