// Rates from counters: what a total has grown by since it was seen last, and over the last seconds.

const SERIES_LENGTH = 60;
const SMOOTH_SECONDS = 9;
const LEAST_SECONDS = 1.5;

class Rates {
  #samples = new Map();
  #round = 0;
  at = -Infinity;

  /** A look at the edge begins: `at` in seconds of a steady clock. False: too soon after the last to tell a rate. */
  begin(at) {
    if (at - this.at < LEAST_SECONDS) return false; // the edge adds its totals up once a second
    this.at = at;
    this.#round += 1;
    return true;
  }

  note(key, total) {
    const samples = this.#samples.get(key) ?? [];
    if (samples.length && total < samples.at(-1).total) samples.length = 0; // the edge was started anew
    samples.push({ at: this.at, total });
    if (samples.length > SERIES_LENGTH + 1) samples.shift();
    samples.round = this.#round;
    this.#samples.set(key, samples);
  }

  /** Forget what this look has not seen. */
  end() {
    for (const [key, samples] of this.#samples) if (samples.round !== this.#round) this.#samples.delete(key);
  }

  /** Per second, over the last few; null before the second look. */
  of(key) {
    const samples = this.#samples.get(key) ?? [];
    if (samples.length < 2) return null;
    const last = samples.at(-1);
    const first = samples.find((sample) => sample.at >= last.at - SMOOTH_SECONDS) ?? samples[0];
    const base = first === last ? samples.at(-2) : first;
    return (last.total - base.total) / (last.at - base.at);
  }

  /** Per second, from look to look, oldest first. */
  series(key) {
    const samples = this.#samples.get(key) ?? [];
    return samples.slice(1).map((one, i) => (one.total - samples[i].total) / (one.at - samples[i].at));
  }
}

/** A line of what was, the newest at the right. It says nothing that is not written beside it. */
function sparkline() {
  return svg("svg", { class: "spark", viewBox: `0 0 ${SERIES_LENGTH} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area" }), svg("path", { class: "stroke" }));
}

function drawSparkline(node, series) {
  const top = Math.max(1, ...series);
  const start = SERIES_LENGTH - series.length;
  const points = series.map((value, i) => `${start + i + 1} ${(19 - (value / top) * 17).toFixed(1)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  put(node.children[0], "d", points.length ? `${line}V20H${start + 1}z` : "");
  put(node.children[1], "d", line);
}
