// The tiles: jobs under way first, then every picture that this browser keeps, newest first. One of them is chosen.

import { byId, h, icon, say, set } from "./dom.js";
import { PICTURES_MAX } from "./store.js";
import { standing } from "./words.js";
import { number, onLanguage, t } from "./text.js";

export class Gallery {
  pictures = [];
  #jobs = [];
  #tiles = new Map(); // by id or key: {element, update}
  #urls = new Map(); // by picture id
  #chosen = null;

  constructor(store, choose) {
    this.store = store;
    this.choose = choose;
    onLanguage(() => this.#render());
  }

  async open() {
    this.pictures = await this.store.pictures();
    this.#render();
  }

  /** The address of a picture's bytes, the same as long as it is kept. */
  urlOf(picture) {
    if (!this.#urls.has(picture.id)) this.#urls.set(picture.id, URL.createObjectURL(picture.blob));
    return this.#urls.get(picture.id);
  }

  get items() {
    return [...this.#jobs, ...this.pictures];
  }

  mark(item) {
    this.#chosen = item;
    this.#render();
  }

  show(jobs) {
    this.#jobs = [...jobs].reverse();
    this.#render();
  }

  /** One more picture, which is kept. Throws where the browser has no room; it is shown all the same. */
  async add(picture) {
    this.pictures = [picture, ...this.pictures.filter((each) => each.id !== picture.id)].sort((a, b) => b.at - a.at);
    this.#render();
    const gone = await this.store.keep(picture);
    if (gone.length) this.#drop(gone);
  }

  async remove(picture) {
    this.#drop([picture.id]);
    await this.store.remove(picture.id);
  }

  /** What comes before or after the chosen one. */
  beside(offset) {
    const all = this.items;
    const place = all.findIndex((each) => keyOf(each) === keyOf(this.#chosen));
    return all[Math.min(Math.max(place + offset, 0), all.length - 1)] ?? null;
  }

  #drop(ids) {
    this.pictures = this.pictures.filter((each) => !ids.includes(each.id));
    this.#render();
    for (const id of ids) {
      const url = this.#urls.get(id);
      this.#urls.delete(id);
      if (url) setTimeout(() => URL.revokeObjectURL(url), 10_000); // it may be undone, or still be shown
    }
  }

  #render() {
    const items = this.items;
    const wanted = new Set(items.map(keyOf));
    for (const [key, tile] of this.#tiles) if (!wanted.has(key)) { tile.remove(); this.#tiles.delete(key); }
    const list = byId("tiles");
    items.forEach((item, place) => {
      const key = keyOf(item);
      if (!this.#tiles.has(key)) this.#tiles.set(key, this.#tile(item));
      const tile = this.#tiles.get(key);
      this.#update(tile, item);
      if (list.children[place] !== tile) list.insertBefore(tile, list.children[place] ?? null);
    });
    const n = this.pictures.length;
    const says = n >= PICTURES_MAX ? "gallery_full" : n ? "gallery_says" : "gallery_none";
    say(byId("gallery-says"), this.store.refused ? t("gallery_refused") : t(says, { n: n === 1 ? 1 : number(n) }));
  }

  #tile(item) {
    const pick = h("button", { type: "button", class: "tile", on: { click: () => this.choose(this.#current(pick.dataset.key)) }, data: { key: keyOf(item) } });
    if (item.blob) pick.append(h("img", { alt: "", src: this.urlOf(item), loading: "lazy", decoding: "async" }));
    return h("li", { data: { kind: item.blob ? "picture" : "job" } }, pick);
  }

  #current(key) {
    return this.items.find((each) => keyOf(each) === key);
  }

  #update(tile, item) {
    const pick = tile.firstElementChild;
    set(pick, "aria-current", keyOf(item) === keyOf(this.#chosen) ? "true" : null);
    if (item.blob) return set(pick, "aria-label", item.prompt);
    set(pick, "aria-label", `${item.shown.prompt}: ${standing(item)}`);
    set(tile, "data-state", item.state);
    if (!pick.firstChild) pick.append(h("div", { class: "dawn" }), h("progress", { max: 1, "aria-hidden": "true" }));
    const [face, bar] = pick.children;
    if (item.preview && face.getAttribute("src") !== item.preview) {
      if (face.tagName === "IMG") face.src = item.preview;
      else face.replaceWith(h("img", { alt: "", src: item.preview }));
    }
    const ended = item.state === "failed" || item.state === "cancelled";
    if (ended && bar?.tagName === "PROGRESS") bar.replaceWith(icon(item.state === "failed" ? "warn" : "close"));
    else if (!ended) set(bar, "value", item.state === "running" ? item.step / (item.steps || 1) : null);
    return undefined;
  }
}

function keyOf(item) {
  return item && (item.blob ? item.id : item.key);
}
