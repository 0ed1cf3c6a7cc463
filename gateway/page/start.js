// The picture that a drawing starts from: chosen, dropped on the page, pasted, or taken from the gallery.

import { byId, icon, say, set } from "./dom.js";
import { onLanguage, t } from "./text.js";

const TAKEN = ["image/png", "image/jpeg", "image/webp"];
const BYTES_MAX = 8 * 2 ** 20; // a larger one, or one of another kind, is made a JPEG of SIDE_MAX pixels before it is sent
const PIXELS_MAX = 16_777_216;
const SIDE_MAX = 2048;
const QUALITY = 0.92;

export class Start {
  #picture = null;
  #able = false;
  #url = "";
  #dragging = 0;

  /** `fits(width, height)` is called with the size of each picture that is taken. */
  constructor(fits) {
    this.fits = fits;
    const file = byId("start-file");
    file.addEventListener("change", async () => {
      await this.take(file.files[0]);
      file.value = "";
      if (this.#picture) byId("strength").focus();
    });
    byId("start-remove").replaceChildren(icon("close"));
    byId("start-remove").addEventListener("click", () => { this.set(null); file.focus(); });
    byId("start-pick").prepend(icon("image"));
    document.addEventListener("paste", (event) => this.#given(event, event.clipboardData));
    document.addEventListener("drop", (event) => { this.#drag(0); this.#given(event, event.dataTransfer); });
    document.addEventListener("dragover", (event) => this.#wanted(event.dataTransfer) && event.preventDefault());
    document.addEventListener("dragenter", (event) => this.#wanted(event.dataTransfer) && this.#drag(this.#dragging + 1));
    document.addEventListener("dragleave", () => this.#drag(Math.max(0, this.#dragging - 1)));
    onLanguage(() => this.#render());
  }

  /** The picture as a blob, where there is one and the model starts from pictures; else null. */
  get picture() {
    return this.#able ? this.#picture : null;
  }

  /** Does the model that is chosen start from pictures? */
  able(yes) {
    this.#able = yes;
    byId("field-start").hidden = !yes;
  }

  set(picture) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#picture = picture;
    this.#url = picture ? URL.createObjectURL(picture) : "";
    say(byId("start-wrong"), "");
    this.#render();
  }

  async take(file) {
    if (!file) return;
    try {
      const { blob, width, height } = await prepared(file);
      this.set(blob);
      this.fits(width, height);
    } catch {
      say(byId("start-wrong"), t("wrong_start"));
    }
  }

  #wanted(data) {
    return this.#able && !byId("view-studio").hidden && [...(data?.items ?? [])].some((each) => each.kind === "file");
  }

  #given(event, data) {
    const file = this.#wanted(data) && [...data.files].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    this.take(file);
  }

  #drag(count) {
    this.#dragging = count;
    set(byId("composer"), "data-drop", count > 0);
  }

  #render() {
    const there = this.#picture !== null;
    byId("start-pick").hidden = there;
    byId("started").hidden = !there;
    if (there) byId("start-thumb").src = this.#url;
    set(byId("start-thumb"), "alt", t("start_alt"));
    set(byId("start-remove"), "aria-label", t("start_remove"));
    set(byId("start-remove"), "title", t("start_remove"));
  }
}

/** The file itself, or what the service takes of it, and its size in pixels. Throws for what is no picture. */
async function prepared(file) {
  const bitmap = await createImageBitmap(file);
  const { width, height } = bitmap;
  if (TAKEN.includes(file.type) && file.size <= BYTES_MAX && width * height <= PIXELS_MAX) return { blob: file, width, height };
  const scale = Math.min(1, SIDE_MAX / Math.max(width, height));
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((made, failed) => canvas.toBlob((blob) => (blob ? made({ blob, width, height }) : failed(new Error("no blob"))), "image/jpeg", QUALITY));
}
