// The large picture: what is chosen, forming or finished, with what can be done with it. Shows; decides nothing.

import { button, byId, h, icon, say, set } from "./dom.js";
import { explained, facts, standing } from "./words.js";
import { onLanguage, t } from "./text.js";

const FADE_MS = 400; // a little more than studio.css takes
const IDEAS = { embedded: ["idea_1", "idea_2", "idea_3"], other: ["idea_4", "idea_5", "idea_6"] };

export class Stage {
  #place = byId("stage");
  #shown = null; // a job, a picture, or null
  #kind = "";

  /** `does`: {propose, cancel, retry, dismiss, reuse, vary, mayStart, startFrom, download, remove}. */
  constructor(does, urlOf) {
    this.does = does;
    this.urlOf = urlOf;
    this.frame = h("div", { class: "frame" });
    this.embedded = true;
    onLanguage(() => this.#render(true));
  }

  get shown() {
    return this.#shown;
  }

  /** `picture` has a blob; `job` has a key. */
  show(item) {
    const follows = item && this.#shown && item.blob && this.#shown.id === item.id; // its picture after its job
    if (item !== this.#shown && !follows) this.frame.replaceChildren();
    this.#shown = item;
    this.#render(true);
  }

  ideas(embedded) {
    if (this.embedded === embedded) return;
    this.embedded = embedded;
    this.#render(true);
  }

  /** The job that is shown has changed. */
  update() {
    this.#render(false);
  }

  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.#shown) this.frame.requestFullscreen?.().catch(() => {}); // where it is not allowed, as on some phones
  }

  #render(anew) {
    const item = this.#shown;
    const kind = !item ? "empty" : item.blob ? "picture" : item.state === "failed" || item.state === "cancelled" ? "ended" : "job";
    if (anew || kind !== this.#kind) {
      this.#kind = kind;
      const focused = this.#place.contains(document.activeElement);
      this.#place.replaceChildren(...this.#content(kind, item));
      if (focused && !this.#place.contains(document.activeElement)) (this.#place.querySelector(".acts button") ?? byId("prompt")).focus({ preventScroll: true });
    }
    if (kind === "picture") this.#layer(this.urlOf(item), item.prompt, item);
    if (kind === "job" || kind === "ended") this.#progress(item);
  }

  #content(kind, item) {
    if (kind === "empty") return [this.#empty()];
    const [width, height] = item.blob ? [item.width, item.height] : item.shown.size.split("x");
    this.frame.style.setProperty("--w", width);
    this.frame.style.setProperty("--h", height);
    set(this.frame, "data-kind", kind);
    const told = item.blob ? item : item.shown;
    const words = h("div", { class: "words" }, h("p", { class: "said", dir: "auto" }, told.prompt), this.#line(kind, item));
    return [this.frame, h("div", { class: "caption" }, words, h("div", { class: "acts" }, ...this.#acts(kind, item)))];
  }

  #line(kind, item) {
    if (kind === "picture") {
      const notes = (item.warnings ?? []).map((each) => h("p", { class: "note" }, t("warning", { what: each.message })));
      return h("div", {}, h("ul", { class: "facts" }, ...facts(item).map((fact) => h("li", {}, fact))), ...notes);
    }
    this.line = h("p", { class: "line" });
    this.bar = h("progress", { class: "progress", "aria-label": t("steps"), max: 1 });
    this.why = h("p", { class: "wrong" });
    return h("div", {}, kind === "job" ? this.bar : null, this.line, this.why);
  }

  #acts(kind, item) {
    const act = (name, label, does, props = {}) => button(name, t(label), () => this.does[does](item), { worded: true, ...props });
    if (kind === "job") return [act("stop", "cancel", "cancel", { id: "cancel" })];
    if (kind === "ended") return [act("again", "try_again", "retry"), act("close", "dismiss", "dismiss")];
    return [
      act("again", "vary", "vary"), act("reuse", "reuse", "reuse"), this.does.mayStart() ? act("image", "start_from", "startFrom") : null, act("down", "download", "download"),
      button("open", t("full"), () => this.full()), button("bin", t("delete"), () => this.does.remove(item)),
    ];
  }

  #progress(job) {
    say(this.line, standing(job));
    set(this.bar, "value", job.state === "running" ? job.step / (job.steps || 1) : job.fetching ? 1 : null);
    set(this.frame, "data-busy", job.state === "failed" || job.state === "cancelled" ? null : true);
    const failure = job.state === "failed" && job.error ? explained(job.error) : null;
    say(this.why, failure ? [failure.what, failure.next].filter(Boolean).join(" ") : "");
    if (job.preview) this.#layer(job.preview, t("forming", { prompt: job.shown.prompt, step: job.previewStep }), null, { preview: job.previews });
    else if (!this.frame.firstChild) this.frame.append(h("div", { class: "dawn" }));
    if (this.#kind === "ended" && !job.preview) this.frame.replaceChildren(icon(job.state === "failed" ? "warn" : "close"));
  }

  /** One picture over the last, faded in once it is there; what lies below goes then. */
  #layer(url, alt, picture, data = {}) {
    const top = this.frame.lastElementChild;
    if (top?.dataset.url === url) return set(top, "alt", alt);
    const image = h("img", { alt, class: "layer", data: { url, ...data, ...(picture ? { picture: picture.id } : {}) }, on: {
      load: () => {
        image.classList.add("there");
        for (const below of [...this.frame.children].slice(0, [...this.frame.children].indexOf(image) - 1)) below.remove();
        for (const below of this.frame.children) {
          if (below === image) continue;
          set(below, "alt", "");
          setTimeout(() => below.remove(), FADE_MS);
        }
      },
    } });
    image.src = url;
    this.frame.append(image);
    return undefined;
  }

  #empty() {
    const names = this.embedded ? IDEAS.embedded : IDEAS.other;
    return h("div", { class: "empty" },
      h("div", { class: "blob", "aria-hidden": "true" }, h("i"), h("i"), h("i")),
      h("h2", {}, t("empty_title")), h("p", {}, t("empty_says")),
      h("ul", { class: "ideas" }, ...names.map((name) => h("li", {}, h("button", { type: "button", class: "idea", on: { click: () => this.does.propose(t(name)) } }, t(name))))));
  }
}
