// The form: what to draw and how. Knows models and their limits; hands requests on and knows nothing of what becomes of them.

import { byId, h, icon, s, say, set } from "./dom.js";
import { kept } from "./kept.js";
import { shapeOf, shapes, sizes } from "./sizes.js";
import { Start } from "./start.js";
import { onLanguage, t } from "./text.js";

const COUNTS = [1, 2, 4, 8];
const PREVIEWS = 12;
const SEED_MAX = Number.MAX_SAFE_INTEGER - COUNTS.at(-1);
const DICE_MAX = 2 ** 32;
const FIELDS = { prompt: "prompt", model: "model", size: "size", num_inference_steps: "steps", guidance_scale: "guidance", seed: "seed", negative_prompt: "negative", true_cfg_scale: "strictness", strength: "strength", image: "start-file" };
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export class Composer {
  #models = [];
  #now = { prompt: "", model: "", shape: "1:1", size: "", count: 1, steps: null, guidance: null, seed: roll(), locked: false, negative: "", strictness: 4, strength: 0.6, ...kept.get("form") };
  #form = byId("composer");
  start = new Start((width, height) => this.shapeAs(width, height));

  /** `draw(requests)` is called with [{body, shown}]; `keyless()` asks for a key where one is missing: was it? */
  constructor(draw, keyless) {
    Object.assign(this, { draw, keyless });
    say(byId("generate-keys"), MAC ? "⌘ ↵" : "Ctrl ↵");
    byId("dice").replaceChildren(icon("dice"));
    byId("prompt").value = this.#now.prompt;
    byId("negative").value = this.#now.negative;
    byId("more").open = Boolean(this.#now.negative);
    this.#form.addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    this.#form.addEventListener("input", (event) => this.#changed(event.target));
    byId("dice").addEventListener("click", () => this.#set({ seed: roll() }));
    byId("lock").addEventListener("click", () => this.#set({ locked: !this.#now.locked }));
    byId("steps").addEventListener("change", () => this.#keep());
    onLanguage(() => this.#render());
  }

  /** The service's models, as GET /v1/models lists them. */
  offer(models) {
    this.#models = models;
    this.#fit();
    this.#render();
  }

  get model() {
    const all = this.#models;
    return all.find((each) => each.id === this.#now.model) ?? all.find((each) => each.genserve.default) ?? all[0] ?? null;
  }

  /** Takes over how a picture was made. */
  reuse(made, { seed = true } = {}) {
    byId("prompt").value = made.prompt;
    byId("negative").value = made.negative ?? "";
    byId("more").open = Boolean(made.negative);
    this.#now = { ...this.#now, ...pick(made, ["prompt", "model", "size", "steps"]), negative: made.negative ?? "" };
    if (made.guided) this.#now.guidance = made.guidance;
    if (made.strictness) this.#now.strictness = made.strictness;
    if (made.strength) this.#now.strength = made.strength;
    this.start.set(made.start ?? null);
    if (this.model) this.#now.shape = shapeOf(this.model.genserve, made.size).name;
    Object.assign(this.#now, seed ? { seed: made.seed, locked: true, count: 1 } : { seed: roll(), locked: false });
    this.#fit();
    this.#render();
    this.#keep();
  }

  /** Takes the model's shape that is nearest to a picture's. */
  shapeAs(width, height) {
    if (this.model) this.#set({ shape: shapeOf(this.model.genserve, `${width}x${height}`).name, size: "" });
  }

  propose(prompt) {
    byId("prompt").value = prompt;
    this.#changed(byId("prompt"));
    byId("prompt").focus();
  }

  submit() {
    if (!this.model && this.keyless()) return;
    const wrong = this.#wrong();
    if (wrong) return this.refuse(wrong);
    this.refuse(null);
    if (!this.#now.locked) this.#set({ seed: roll() });
    const requests = Array.from({ length: this.#now.count }, (_, index) => this.#request(this.#now.seed + index));
    this.draw(requests);
  }

  /** Shows why nothing is drawn: {what, next, param}; null takes it back. */
  refuse(error) {
    for (const id of Object.values(FIELDS)) set(byId(id), "aria-invalid", null);
    say(byId("composer-error"), error ? [error.what, error.next].filter(Boolean).join(" ") : "");
    const field = error && byId(FIELDS[error.param]);
    if (!field) return;
    set(field, "aria-invalid", "true");
    if (field.closest("details")) field.closest("details").open = true;
    field.focus();
  }

  #request(seed) {
    const { prompt, size, steps, guidance, negative, strictness, strength } = this.#now;
    const { id: model, genserve: card } = this.model;
    const guided = card.guidance_scale !== null;
    const body = { prompt, model, size, seed, num_inference_steps: steps, previews: Math.min(PREVIEWS, steps) };
    if (guided) body.guidance_scale = guidance;
    if (negative.trim()) Object.assign(body, { negative_prompt: negative, true_cfg_scale: strictness });
    const shown = { prompt, model, size, seed, steps, guided, guidance, negative: negative.trim() ? negative : "", strictness: negative.trim() ? strictness : null };
    const start = this.start.picture;
    if (start) body.strength = shown.strength = strength;
    return { body, shown, start };
  }

  #wrong() {
    const { prompt, seed } = this.#now;
    if (!prompt.trim()) return { what: t("wrong_prompt"), param: "prompt" };
    if (!Number.isInteger(seed) || seed < 0 || seed > SEED_MAX) return { what: t("wrong_seed", { max: SEED_MAX }), param: "seed" };
    return this.model ? null : { what: t("no_model"), param: "model" };
  }

  #changed(field) {
    const { name, value } = field;
    if (field.getAttribute("aria-invalid")) this.refuse(null);
    if (name === "seed") this.#set({ seed: /^\d{1,16}$/.test(value) ? Number(value) : NaN, locked: true });
    else if (["steps", "guidance", "strictness", "strength", "count"].includes(name)) this.#set({ [name]: Number(value) });
    else if (name === "shape") this.#set({ shape: value, size: "" });
    else if (name === "model") this.#set({ model: value, steps: null, guidance: null, size: "" });
    else this.#set({ [name]: value });
  }

  #set(change) {
    this.#now = { ...this.#now, ...change };
    this.#fit();
    this.#render();
    this.#keep();
  }

  /** What the model cannot do becomes what it does by default. */
  #fit() {
    if (!this.model) return;
    const now = this.#now;
    const card = this.model.genserve;
    now.steps = Math.min(now.steps ?? card.steps, card.steps_max);
    now.guidance ??= card.guidance_scale;
    const shape = shapes(card).find((each) => each.name === now.shape) ?? shapes(card)[0];
    now.shape = shape.name;
    const choices = sizes(card, shape);
    if (!choices.some((each) => each.size === now.size)) now.size = choices.find((each) => each.kind === "native").size;
  }

  #keep() {
    const { seed, ...rest } = this.#now;
    kept.set("form", this.#now.locked && Number.isInteger(seed) ? this.#now : rest);
  }

  #render() {
    const now = this.#now;
    const { model } = this;
    this.#slider("steps", now.steps, { max: model?.genserve.steps_max });
    this.#slider("guidance", now.guidance);
    this.#slider("strictness", now.strictness);
    this.#slider("strength", now.strength);
    const seed = byId("seed");
    if (Number.isInteger(now.seed) && seed.value !== String(now.seed)) seed.value = now.seed;
    const lock = byId("lock");
    lock.replaceChildren(icon(now.locked ? "lock" : "unlock"));
    named(lock, t("lock"));
    named(byId("dice"), t("dice"));
    set(lock, "aria-pressed", String(now.locked));
    this.#choices(byId("counts"), "count", COUNTS.map((count) => ({ value: count, label: String(count) })), now.count);
    if (!model) return;
    const card = model.genserve;
    this.start.able(card.edits);
    options(byId("model"), this.#models.map((each) => ({ value: each.id, label: each.id })), model.id);
    say(byId("model-says"), card.workers ? card.description : t("nobody_serves"));
    byId("field-guidance").hidden = card.guidance_scale === null;
    const all = shapes(card);
    this.#choices(byId("shapes"), "shape", all.map((each) => ({ value: each.name, label: each.name, picture: outline(each) })), now.shape);
    const choices = sizes(card, all.find((each) => each.name === now.shape) ?? all[0]);
    options(byId("size"), choices.map(({ size, kind }) => ({ value: size, label: t(`size_${kind}`, { size: size.replace("x", " × ") }) })), now.size);
  }

  #slider(id, value, { max } = {}) {
    const input = byId(id);
    if (max) input.max = max;
    if (value !== null && input.value !== String(value)) input.value = value;
    say(byId(`${id}-said`), value === null ? "" : String(value));
    input.style.setProperty("--filled", String((input.value - input.min) / (input.max - input.min || 1)));
  }

  #choices(place, name, choices, chosen) {
    const same = place.dataset.choices === choices.map((each) => each.label).join();
    if (!same) {
      place.dataset.choices = choices.map((each) => each.label).join();
      place.replaceChildren(...choices.map(({ value, label, picture }) =>
        h("label", { class: "choice" }, h("input", { type: "radio", name, value }), h("span", {}, picture ?? null, label))));
    }
    for (const input of place.querySelectorAll("input")) input.checked = input.value === String(chosen);
  }
}

function options(select, choices, chosen) {
  const says = JSON.stringify(choices);
  if (select.dataset.choices !== says) {
    select.dataset.choices = says;
    select.replaceChildren(...choices.map(({ value, label }) => h("option", { value }, label)));
  }
  select.value = chosen;
}

function outline({ width, height }) {
  const long = Math.max(width, height);
  const [w, h_] = [(width / long) * 14, (height / long) * 14];
  return s("svg", { viewBox: "0 0 18 18", class: "outline", "aria-hidden": "true" }, s("rect", { x: 9 - w / 2, y: 9 - h_ / 2, width: w, height: h_, rx: 1.5 }));
}

function named(element, label) {
  set(element, "aria-label", label);
  set(element, "title", label);
}

function roll() {
  return Math.floor(Math.random() * DICE_MAX);
}

function pick(from, names) {
  return Object.fromEntries(names.map((name) => [name, from[name]]));
}
