// The fleet as GET /v1/status tells of it: each GPU with its job, step, memory and queue; what waits; both over time.

import { Chart } from "./chart.js";
import { byId, h, icon, say, set } from "./dom.js";
import { number, onLanguage, seconds, t } from "./text.js";

const STATES = ["ready", "loading", "broken", "draining", "suspect"];

export class Fleet {
  #gpus = new Map(); // by worker id
  #status = null;

  /** `mine()` is the page's own jobs. */
  constructor(mine) {
    this.mine = mine;
    this.figures = new Map(["gpus", "running", "queued", "rate", "done"].map((name) => [name, { label: h("dt"), value: h("dd"), of: h("small") }]));
    this.title = h("h1");
    this.alarm = h("p", { class: "alarm", role: "status", hidden: true });
    this.closed = h("p", { class: "hint", role: "status", hidden: true });
    this.charts = [
      new Chart("fleet_queue_title", [
        { name: "queued", label: "fleet_waiting", of: (sample) => sample.queued },
        { name: "running", label: "fleet_drawing", of: (sample) => sample.running },
      ], "fleet_queue_says"),
      new Chart("fleet_rate_title", [{ name: "rate", of: (sample) => sample.rate }], "fleet_rate_says"),
    ];
    this.devices = h("h2");
    this.cards = h("ul", { class: "gpus" });
    this.none = h("p", { class: "hint none", hidden: true });
    this.queueTitle = h("h2");
    this.queueSays = h("p");
    this.queueBar = h("div", { class: "slots", "aria-hidden": "true" });
    this.places = h("ol", { class: "places" });
    this.failuresTitle = h("h2");
    this.failures = h("ul", { class: "failures" });
    byId("view-fleet").replaceChildren(
      this.title, this.closed, this.alarm,
      h("dl", { class: "figures" }, ...[...this.figures.values()].map(({ label, value }) => h("div", { class: "card" }, label, value))),
      h("section", { class: "charts" }, ...this.charts.map((chart) => chart.element)),
      h("section", {}, this.devices, this.none, this.cards),
      h("section", { class: "card queue" }, this.queueTitle, this.queueSays, this.queueBar, this.places),
      h("section", { class: "card lately" }, this.failuresTitle, this.failures),
    );
    onLanguage(() => this.#render());
  }

  /** `status` has `now` and `history`. */
  show(status) {
    this.#status = status;
    this.#render();
  }

  #render() {
    say(this.title, t("fleet"));
    say(this.devices, t("fleet_devices"));
    say(this.queueTitle, t("fleet_waiting_title"));
    say(this.failuresTitle, t("fleet_failures"));
    const now = this.#status?.now;
    this.#tellClosed(this.#status ?? {});
    if (!now) return;
    const { stats, limits, workers } = now;
    const ready = workers.filter((each) => each.state === "ready").length;
    this.#figure("gpus", ready, t("fleet_of", { n: now.workers_total }));
    this.#figure("running", stats.running);
    this.#figure("queued", stats.queued);
    this.#figure("rate", Math.round((this.#status.history.at(-1)?.rate ?? 0) * 10) / 10);
    this.#figure("done", stats.done_total);
    this.alarm.hidden = !now.storage_full;
    say(this.alarm, now.storage_full ? t("fleet_storage", { why: now.storage_full }) : "");
    for (const chart of this.charts) chart.draw(this.#status.history);
    this.#devices(workers, limits);
    this.#queue(stats, limits);
    this.#lately(now.failures);
  }

  /** Where nothing may be told of the fleet, why not stands in its place. */
  #tellClosed({ now, state, error } = {}) {
    const why = now ? "" : { key: t("fleet_key"), closed: t("key_forbidden", { why: error?.message }) }[state];
    for (const part of byId("view-fleet").children) if (![this.title, this.closed, this.alarm].includes(part)) part.hidden = Boolean(why);
    this.closed.hidden = !why;
    say(this.closed, why ?? "");
    if (why) this.alarm.hidden = true;
  }

  #figure(name, value, of = "") {
    const figure = this.figures.get(name);
    say(figure.label, t(`fleet_${name}`));
    const text = number(value);
    if (figure.value.dataset.says === text + of) return;
    figure.value.dataset.says = text + of;
    say(figure.of, of);
    figure.value.replaceChildren(text, ...(of ? [" ", figure.of] : []));
  }

  #devices(workers, limits) {
    this.none.hidden = workers.length > 0;
    say(this.none, t("fleet_none"));
    const ids = new Set(workers.map((each) => each.worker_id));
    for (const [id, card] of this.#gpus) if (!ids.has(id)) { card.element.remove(); this.#gpus.delete(id); }
    for (const worker of workers) {
      if (!this.#gpus.has(worker.worker_id)) {
        const card = new Gpu();
        this.#gpus.set(worker.worker_id, card);
        this.cards.append(card.element);
      }
      this.#gpus.get(worker.worker_id).show(worker, limits, this.mine().find((job) => job.id && job.id === worker.job_id));
    }
  }

  #queue(stats, limits) {
    const { queued, overflow } = stats;
    const says = { queued: number(queued), planned: number(queued - overflow), overflow: number(overflow), most: number(limits.global_queue_size) };
    say(this.queueSays, queued ? t("fleet_waiting_says", says) : t("fleet_waiting_none"));
    slots(this.queueBar, overflow, limits.global_queue_size);
    const waiting = this.mine().filter((job) => job.id && job.state === "queued" && job.position).sort((a, b) => a.position - b.position);
    list(this.places, waiting.map((job) => `${t("fleet_your_place", { n: job.position })} · ${job.shown.prompt}${job.eta === null ? "" : ` · ${seconds(job.eta)}`}`));
  }

  #lately(failures) {
    this.failures.parentElement.hidden = !failures.length;
    list(this.failures, failures.map(({ at, worker_id: worker, code, message }) => `${new Date(at * 1_000).toLocaleTimeString()} · ${worker || "–"} · ${code}: ${message}`));
  }
}

class Gpu {
  constructor() {
    this.name = h("h3");
    this.state = h("span", { class: "state" });
    this.model = h("p", { class: "hint" });
    this.job = h("p", { class: "job" });
    this.bar = h("progress", { max: 1 });
    this.memory = { label: h("dt"), value: h("dd"), bar: h("progress", { class: "amount", max: 1 }) };
    this.planned = { label: h("dt"), value: h("dd"), bar: h("div", { class: "slots", "aria-hidden": "true" }) };
    this.counts = h("p", { class: "hint" });
    this.detail = h("p", { class: "wrong" });
    this.element = h("li", { class: "card gpu" },
      h("div", { class: "gpu-head" }, icon("gpu"), this.name, this.state), this.model, this.job, this.bar,
      h("dl", {}, h("div", {}, this.memory.label, this.memory.value), h("div", {}, this.planned.label, this.planned.value)),
      h("div", { class: "bars" }, this.memory.bar, this.planned.bar), this.counts, this.detail);
  }

  show(worker, limits, mine) {
    const { device, load, state, busy, step, steps } = worker;
    say(this.name, worker.worker_id);
    say(this.model, [device.name, worker.models.join(", ")].filter(Boolean).join(" · "));
    say(this.state, STATES.includes(state) ? t(`gpu_${state}`) : state);
    set(this.element, "data-state", state);
    set(this.element, "data-busy", busy);
    const drawing = busy ? `${t("fleet_step", { step, steps })}${mine ? ` · ${t("fleet_yours")}: ${mine.shown.prompt}` : worker.job_id ? ` · ${worker.job_id.slice(0, 8)}` : ""}` : t("fleet_idle");
    say(this.job, drawing);
    set(this.bar, "value", busy ? step / (steps || 1) : 0);
    set(this.bar, "aria-label", drawing);
    const total = device.total_mb ?? 0;
    const known = total > 0 && (load.allocated_mb || load.free_mb || load.cached_mb);
    const used = total - (load.free_mb ?? 0);
    const memory = known ? t("fleet_memory_says", { used: gib(used), total: gib(total) }) : t("fleet_memory_unknown");
    const label = t(worker.device.kind === "cpu" ? "fleet_memory_cpu" : "fleet_memory");
    say(this.memory.label, label);
    say(this.memory.value, memory);
    set(this.memory.bar, "value", known ? Math.min(used / total, 1) : 0);
    set(this.memory.bar, "aria-label", `${label}: ${memory}`);
    say(this.planned.label, t("fleet_planned"));
    say(this.planned.value, t("fleet_planned_says", { n: worker.queue_size, most: limits.gpu_queue_size }));
    slots(this.planned.bar, worker.queue_size, limits.gpu_queue_size);
    const counts = t(worker.failed_total ? "fleet_counts" : "fleet_counts_clean", { done: number(worker.done_total), failed: number(worker.failed_total) });
    say(this.counts, [counts, worker.step_s ? t("fleet_speed", { s: seconds2(worker.step_s) }) : ""].filter(Boolean).join(" · "));
    say(this.detail, state === "ready" ? "" : worker.detail);
  }
}

function slots(place, filled, most) {
  if (place.children.length !== most) place.replaceChildren(...Array.from({ length: most }, () => h("i")));
  [...place.children].forEach((slot, index) => slot.classList.toggle("filled", index < filled));
}

function list(place, lines) {
  if (place.dataset.lines === lines.join("\n")) return;
  place.dataset.lines = lines.join("\n");
  place.replaceChildren(...lines.map((line) => h("li", {}, line)));
}

function gib(mebibytes) {
  return (mebibytes / 1024).toFixed(1);
}

function seconds2(value) {
  return value < 1 ? t("secs", { s: value.toPrecision(2) }) : seconds(value);
}
