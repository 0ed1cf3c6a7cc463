// The jobs of this page, each from its request to its picture. Every request carries an Idempotency-Key and is kept
// before it is sent: whatever is lost, the answer, the connection or the page itself, it is asked again and is one job.
//
// A browser opens six connections to a server, so only STREAMS_MAX jobs are heard by their event streams, those that
// run or are next before others; the rest are asked how they stand. So are all while the page is not seen.

import { Refusal, Unreachable, call, events } from "./api.js";

const STREAMS_MAX = 3;
const POLL_MS = 1_000;
const POLL_UNSEEN_MS = 4_000;
const AGAIN_MS = [500, 1_000, 2_000, 5_000]; // after the first, second, … failure in a row
const RETRY_AFTER_S_MAX = 30;
const ENDS = new Set(["done", "failed", "cancelled"]);

/** Emits `change` {job}, `picture` {job, picture} and `refused` {job, error}, the last for a request that became no job. */
export class Jobs extends EventTarget {
  #store;
  #all = new Map(); // by key, in the order they were asked for
  #preferred = null;
  #keyGiven = [];
  #turn = Promise.resolve();
  #line = []; // of jobs that wait to be sent, the one that is being sent first

  constructor(store) {
    super();
    this.#store = store;
    document.addEventListener("visibilitychange", () => {
      for (const job of this.#all.values()) (document.hidden ? job.stream : job.sleeping)?.abort();
    });
  }

  get all() {
    return [...this.#all.values()];
  }

  /** Takes up the jobs that an earlier page left under way. */
  async resume() {
    for (const kept of await this.#store.jobs()) if (!this.#all.has(kept.key)) this.#begin({ ...newJob(kept), ...kept });
  }

  /** Asks for one picture: `body` is that of POST /v1/jobs, `start` the picture to start from, if any; `shown` is what the page tells of it. */
  async add(body, shown, start = null) {
    const job = newJob({ key: randomName(), body, shown, start, at: Date.now() });
    await this.#keep(job);
    this.#begin(job);
    return job;
  }

  /** Cancels a job that is under way; one that has ended is forgotten. */
  cancel(job) {
    if (ENDS.has(job.state)) return this.#forget(job);
    job.cancelling = true;
    job.sleeping?.abort();
    if (job.id) this.#sendCancel(job);
    this.#changed(job);
  }

  /** Its previews are wanted before those of others. */
  prefer(job) {
    this.#preferred = job;
    if (!job || job.stream || ENDS.has(job.state)) return;
    const heard = this.all.filter((each) => each.stream);
    if (heard.length >= STREAMS_MAX) heard.sort((a, b) => this.#rank(b) - this.#rank(a))[0].stream.abort();
    job.sleeping?.abort();
  }

  /** A key has been given: those that wait for one ask again. */
  goOn() {
    for (const wake of this.#keyGiven.splice(0)) wake();
  }

  // --- the life of one job ---------------------------------------------------------------------

  async #begin(job) {
    this.#all.set(job.key, job);
    this.#changed(job);
    try {
      if (!job.id) await this.#inTurn(job, () => this.#again(job, () => this.#ask(job)));
      if (!job.id) return this.#end(job, "cancelled");
      if (job.cancelling) this.#sendCancel(job);
      while (!ENDS.has(job.state)) await this.#again(job, () => this.#follow(job));
      if (job.state === "done") await this.#again(job, () => this.#fetch(job));
      else this.#end(job, job.state);
    } catch (error) {
      if (!job.id && error instanceof Refusal) {
        this.#forget(job);
        this.#emit("refused", { job, error });
      } else {
        job.error = error instanceof Refusal && error.status === 404 ? { code: "lost_job" } : plain(error);
        this.#end(job, "failed");
      }
    }
  }

  /** Does `act` until it neither fails for want of an answer, nor is told to come back. */
  async #again(job, act) {
    for (let failures = 0; ; failures += 1) {
      try {
        const answer = await act();
        job.trouble = null;
        return answer;
      } catch (error) {
        if (error.name === "AbortError") continue; // this page's own doing
        if (error instanceof Unreachable) await this.#pause(job, { kind: "unreachable" }, AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)]);
        else if (error instanceof Refusal && error.status === 401) await this.#untilKey(job, error);
        else if (error instanceof Refusal && error.retryAfter !== null) {
          const wait = Math.min(error.retryAfter, RETRY_AFTER_S_MAX);
          await this.#pause(job, { kind: "later", error, seconds: wait }, wait * 1_000);
        } else throw error;
        if (job.cancelling && !job.id && !job.unsure) return null;
      }
    }
  }

  /** Requests go one after another, so that pictures are drawn in the order they were asked for. */
  async #inTurn(job, act) {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers();
    this.#turn = promise;
    this.#line.push(job);
    this.#tellLine();
    await before;
    try {
      await act();
    } finally {
      this.#line.shift();
      job.ahead = null;
      this.#tellLine();
      resolve();
    }
  }

  /** Those that wait to be sent know how many are before them, and the first, for whose sake they wait. */
  #tellLine() {
    this.#line.forEach((job, n) => {
      job.ahead = n ? { n, first: this.#line[0] } : null;
      if (n) this.#changed(job);
    });
  }

  async #ask(job) {
    if (job.cancelling && !job.unsure) return;
    job.unsure = true; // from here on there may be a job
    try {
      this.#apply(job, await call("POST", "v1/jobs", { body: job.start ? formOf(job) : job.body, idempotencyKey: job.key }));
    } catch (error) {
      if (error instanceof Refusal) job.unsure = false;
      throw error;
    }
    await this.#keep(job);
  }

  async #follow(job) {
    if (this.#mayStream(job)) {
      await this.#listen(job);
      if (!ENDS.has(job.state)) await this.#sleep(job, AGAIN_MS[0]);
      return;
    }
    this.#apply(job, await call("GET", `v1/jobs/${job.id}`));
    if (!ENDS.has(job.state)) await this.#sleep(job, document.hidden ? POLL_UNSEEN_MS : POLL_MS);
  }

  async #listen(job) {
    job.stream = new AbortController();
    try {
      for await (const { id, name, data } of events(`v1/jobs/${job.id}/events`, { last: job.last, signal: job.stream.signal })) {
        job.last = id || job.last;
        job.trouble = null;
        if (name === "error") throw data.error.code === "not_found" ? new Refusal(404, data.error) : new Refusal(503, data.error, 2);
        if (data.job) this.#apply(job, data.job);
        else if (name === "job.step") Object.assign(job, { eta: data.eta_s }, data.step > 0 ? { state: "running", step: data.step, steps: data.steps, position: 0 } : {});
        else if (name === "job.preview") this.#show(job, data);
        this.#changed(job);
      }
    } finally {
      job.stream = null;
    }
  }

  async #fetch(job) {
    job.fetching = true;
    this.#changed(job);
    const blob = await call("GET", `v1/jobs/${job.id}/image`, { as: "blob" });
    const { model, size, seed, steps, guidance_scale: guidance, started_at: began, ended_at: ended, device, image, warnings } = job.view;
    const made = { model, size, seed, steps: job.start ? job.shown.steps : steps, guidance, device, seconds: began ? ended - began : null };
    const picture = { id: job.id, at: Date.now(), blob, width: image.width, height: image.height, format: image.format, ...job.shown, ...made, start: job.start, warnings };
    await this.#forget(job, { silently: true });
    this.#emit("picture", { job, picture });
  }

  // --- parts -----------------------------------------------------------------------------------

  #apply(job, view) {
    const { id, state, position, eta_s: eta, step, steps, device, error } = view;
    if (state !== "running" || step >= job.step) Object.assign(job, { step, steps });
    Object.assign(job, { id, state, position, eta, device, view, error: error ?? job.error });
    this.#changed(job);
  }

  #show(job, { b64_json: data, format, step, width, height }) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const before = job.preview;
    job.preview = URL.createObjectURL(new Blob([bytes], { type: `image/${format}` }));
    job.previewStep = step;
    job.previewSize = [width, height];
    job.previews += 1;
    if (before) setTimeout(() => URL.revokeObjectURL(before), 2_000); // it is faded out until then
  }

  #end(job, state) {
    job.state = state;
    this.#store.removeJob(job.key);
    this.#changed(job);
  }

  async #forget(job, { silently = false } = {}) {
    this.#all.delete(job.key);
    if (this.#preferred === job) this.#preferred = null;
    job.gone = true;
    await this.#store.removeJob(job.key);
    if (!silently) this.#changed(job);
  }

  async #sendCancel(job) {
    try {
      await this.#again(job, () => call("DELETE", `v1/jobs/${job.id}`).then((view) => this.#apply(job, view)));
      job.stream?.abort();
    } catch (error) {
      if (error instanceof Refusal && error.status === 409) return; // it has ended before; what follows it tells how
      job.cancelling = false;
      this.#emit("refused", { job, error });
    }
  }

  #mayStream(job) {
    if (document.hidden) return false;
    const before = this.all.filter((each) => each !== job && each.id && !ENDS.has(each.state) && (each.stream || this.#rank(each) < this.#rank(job)));
    return before.length < STREAMS_MAX;
  }

  #rank(job) {
    if (job === this.#preferred) return -1;
    return job.state === "running" ? 0 : job.position || 1e6;
  }

  async #pause(job, trouble, ms) {
    job.trouble = trouble;
    this.#changed(job);
    if (this.#line[0] === job) this.#tellLine();
    await this.#sleep(job, ms);
  }

  async #untilKey(job, error) {
    job.trouble = { kind: "key" };
    this.#changed(job);
    await new Promise((wake) => {
      this.#keyGiven.push(wake);
      this.#emit("key", { error });
    });
  }

  async #sleep(job, ms) {
    job.sleeping = new AbortController();
    await new Promise((wake) => {
      const timer = setTimeout(wake, ms);
      job.sleeping.signal.addEventListener("abort", () => { clearTimeout(timer); wake(); });
    });
    job.sleeping = null;
  }

  async #keep({ key, id, body, shown, start, at }) {
    await this.#store.keepJob({ key, id, body, shown, start, at });
  }

  #changed(job) {
    this.#emit("change", { job });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The same as a form, with the picture to start from. */
function formOf({ body, start }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, value);
  form.append("image", start);
  return form;
}

function newJob({ key, body, shown, start = null, at }) {
  return {
    key, body, shown, start, at, id: null, state: "asking", position: 0, eta: null, step: 0, steps: shown.steps, device: null,
    preview: null, previewStep: 0, previews: 0, error: null, trouble: null, ahead: null, cancelling: false, unsure: false, fetching: false,
    stream: null, sleeping: null, last: "", view: null, gone: false,
  };
}

/** What a job's error tells, as the service writes it. */
function plain(error) {
  if (error instanceof Refusal) return { code: error.code, message: error.message, what_to_do: error.next };
  return { code: "internal", message: String(error.message ?? error), what_to_do: "" };
}

/** 128 random bits; crypto.randomUUID is missing where the page did not come over HTTPS. */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
