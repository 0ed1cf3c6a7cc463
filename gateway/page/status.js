// How the service stands, asked again and again: every second while the fleet is looked at, less often otherwise.

import { Refusal, call } from "./api.js";

const LOOKED_AT_MS = 1_000;
const OTHERWISE_MS = 3_000;
const UNSEEN_MS = 15_000;
const HISTORY_S = 600;
const RATE_OVER_S = 30; // pictures a minute, over the last so many seconds

/** Emits `change`. `state`: unknown | ok | lost | key | closed (to this key); `now` is the latest GET /v1/status. */
export class Status extends EventTarget {
  state = "unknown";
  now = null;
  history = []; // {at: ms, queued, running, done, rate}
  #lookedAt = false;
  #timer = null;
  #asking = false;

  start() {
    document.addEventListener("visibilitychange", () => document.hidden || this.ask());
    window.addEventListener("online", () => this.ask());
    this.ask();
  }

  /** Is the fleet being looked at? */
  lookedAt(yes) {
    this.#lookedAt = yes;
    if (yes) this.ask();
  }

  async ask() {
    if (this.#asking) return;
    this.#asking = true;
    clearTimeout(this.#timer);
    try {
      this.now = await call("GET", "v1/status");
      this.state = "ok";
      this.#remember();
    } catch (error) {
      this.state = (error instanceof Refusal && { 401: "key", 403: "closed" }[error.status]) || "lost";
      if (this.state !== "lost") this.now = null; // of what another key was told
      this.error = error;
    }
    this.#asking = false;
    this.#timer = setTimeout(() => this.ask(), document.hidden || this.state === "closed" ? UNSEEN_MS : this.#lookedAt ? LOOKED_AT_MS : OTHERWISE_MS);
    this.dispatchEvent(new Event("change"));
  }

  #remember() {
    const at = Date.now();
    const { queued, running, done_total: done } = this.now.stats;
    const last = this.history.at(-1);
    if (last && (done < last.done || at < last.at)) this.history = []; // the router was started anew
    while (this.history.length && this.history[0].at < at - HISTORY_S * 1_000) this.history.shift();
    const since = this.history.find((each) => each.at >= at - RATE_OVER_S * 1_000);
    const rate = since ? ((done - since.done) * 60_000) / Math.max(at - since.at, 10_000) : 0;
    this.history.push({ at, queued, running, done, rate });
  }
}
