// Rates from counters: the growth of totals between refreshes and over the last seconds.

const SERIES_LENGTH = 60;
const SMOOTH_SECONDS = 9;
const LEAST_SECONDS = 1.5;

class Rates {
  #samples = new Map();
  #round = 0;
  at = -Infinity;

  /** Begin a refresh at `at`, in monotonic seconds. Returns false if it is too soon after the last one for a rate. */
  begin(at) {
    if (at - this.at < LEAST_SECONDS) return false; // the edge updates its totals once a second
    this.at = at;
    this.#round += 1;
    return true;
  }

  record(key, total) {
    const samples = this.#samples.get(key) ?? [];
    if (samples.length && total < samples.at(-1).total) samples.length = 0; // the edge was restarted
    samples.push({ at: this.at, total });
    if (samples.length > SERIES_LENGTH + 1) samples.shift();
    samples.round = this.#round;
    this.#samples.set(key, samples);
  }

  /** Remove totals that this refresh did not record. */
  end() {
    for (const [key, samples] of this.#samples) if (samples.round !== this.#round) this.#samples.delete(key);
  }

  /** Return the rate per second over the last seconds; null before the second refresh. */
  of(key) {
    const samples = this.#samples.get(key) ?? [];
    if (samples.length < 2) return null;
    const last = samples.at(-1);
    const first = samples.find((sample) => sample.at >= last.at - SMOOTH_SECONDS) ?? samples[0];
    const base = first === last ? samples.at(-2) : first;
    return (last.total - base.total) / (last.at - base.at);
  }

  /** Return how much a total grew while the page has known it, at most over the last two minutes. */
  growth(key) {
    const samples = this.#samples.get(key) ?? [];
    return samples.length ? samples.at(-1).total - samples[0].total : 0;
  }

  /** Return how many seconds ago a total was seen to grow first. */
  secondsSinceGrowth(key) {
    const samples = this.#samples.get(key) ?? [];
    const first = samples.find((one) => one.total > samples[0].total);
    return first ? performance.now() / 1000 - first.at : null;
  }

  /** Return the rates per second between refreshes, oldest first. */
  series(key) {
    const samples = this.#samples.get(key) ?? [];
    return samples.slice(1).map((one, i) => (one.total - samples[i].total) / (one.at - samples[i].at));
  }
}

/** Create a chart with its axis: its time span, and the greatest value. The newest value at the right. It is hidden from screen readers: the text beside it has the value. */
function sparkline() {
  const axis = el("span", { class: "axis" }, el("span"), el("span"), el("span", {}, "now"));
  return el("span", { class: "chart", "aria-hidden": "true" }, lineChart(), axis);
}

function lineChart() {
  return svg("svg", { class: "spark", viewBox: `0 0 ${SERIES_LENGTH} 20`, preserveAspectRatio: "none" },
    svg("path", { class: "area" }), svg("path", { class: "stroke" }));
}

/** Draw a series, its greatest value written by `write`. */
function drawSparkline(chart, series, write = rate) {
  const [node, axis] = chart.children;
  setText(axis.children[0], `${duration((SERIES_LENGTH * REFRESH_MILLISECONDS) / 1000)} ago`);
  setText(axis.children[1], series.length ? `max ${write(Math.max(...series))}` : "");
  const top = Math.max(1, ...series);
  const start = SERIES_LENGTH - series.length;
  const points = series.map((value, i) => `${start + i + 1} ${(19 - (value / top) * 17).toFixed(1)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  setAttribute(node.children[0], "d", points.length ? `${line}V20H${start + 1}z` : "");
  setAttribute(node.children[1], "d", line);
}
