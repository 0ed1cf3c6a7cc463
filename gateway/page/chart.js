// Lines over time, drawn in SVG: areas for amounts, the time below, the highest value at the side.

import { h, s, say, set } from "./dom.js";
import { seconds, t } from "./text.js";

const WIDTH = 600;
const HEIGHT = 150;
const GAP_MS = 20_000; // a longer silence is a gap in the line, not a line

export class Chart {
  /** `lines`: [{name, of: sample -> value, label}], drawn one over the other. */
  constructor(title, lines, says) {
    this.lines = lines;
    this.title = title;
    this.says = says;
    this.heading = h("h3");
    this.legend = h("ul", { class: "legend" });
    this.drawing = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.most = h("span", { class: "most", "aria-hidden": "true" });
    this.from = h("span", { "aria-hidden": "true" });
    this.till = h("span", { "aria-hidden": "true" });
    this.told = h("p", { class: "hint" });
    this.element = h("figure", { class: "chart card" },
      h("div", { class: "chart-head" }, this.heading, this.legend), h("div", { class: "plot" }, this.drawing, this.most),
      h("div", { class: "times" }, this.from, this.till), this.told);
  }

  /** Draws `history`, oldest first, each with `at` in ms. */
  draw(history) {
    say(this.heading, t(this.title));
    if (this.lines.length > 1) this.#legend();
    if (!history.length) return;
    const [first, last] = [history[0].at, history.at(-1).at];
    const span = Math.max(last - first, 60_000);
    const highest = Math.max(...this.lines.flatMap(({ of }) => history.map(of)), 0);
    const top = ceiling(highest);
    const x = (sample) => WIDTH * (1 - (last - sample.at) / span);
    const y = (value) => HEIGHT - 1 - (HEIGHT - 8) * (value / top);
    const parts = [0.5, 1].map((share) => s("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(top * share), y2: y(top * share) }));
    for (const { name, of } of this.lines) {
      for (const run of runs(history)) {
        const points = run.map((sample) => `${x(sample).toFixed(1)},${y(of(sample)).toFixed(1)}`);
        parts.push(s("polygon", { class: `area ${name}`, points: `${x(run[0]).toFixed(1)},${HEIGHT} ${points.join(" ")} ${x(run.at(-1)).toFixed(1)},${HEIGHT}` }));
        parts.push(s("polyline", { class: `trace ${name}`, points: points.join(" ") }));
      }
    }
    this.drawing.replaceChildren(...parts);
    set(this.element, "data-samples", history.length);
    say(this.most, String(top));
    say(this.from, t("fleet_ago", { span: seconds(span / 1_000) }));
    say(this.till, t("fleet_now"));
    const { of } = this.lines[0];
    say(this.told, t(this.says, { now: rounded(of(history.at(-1))), most: rounded(Math.max(...history.map(of))), span: seconds(span / 1_000) }));
  }

  #legend() {
    const labels = this.lines.map(({ label }) => t(label));
    if (this.legend.dataset.labels === labels.join()) return;
    this.legend.dataset.labels = labels.join();
    this.legend.replaceChildren(...this.lines.map(({ name }, index) => h("li", { class: name }, labels[index])));
  }
}

function ceiling(value) {
  if (value <= 4) return 4;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((times) => times * unit).find((each) => each >= value);
}

function rounded(value) {
  return value < 10 ? Math.round(value * 10) / 10 : Math.round(value);
}

function runs(history) {
  const found = [[]];
  for (const sample of history) {
    if (found.at(-1).length && sample.at - found.at(-1).at(-1).at > GAP_MS) found.push([]);
    found.at(-1).push(sample);
  }
  return found;
}
