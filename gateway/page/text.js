// The page's words in the reader's language. Static elements name theirs in data-t…; everything else calls t().

import { ENGLISH } from "./english.js";
import { CHINESE } from "./chinese.js";
import { kept } from "./kept.js";

const LANGUAGES = { en: ENGLISH, zh: CHINESE };
const ATTRIBUTES = [["tLabel", "aria-label"], ["tPlaceholder", "placeholder"]];
const listeners = [];
let language = kept.get("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(language in LANGUAGES)) language = "en";

/** A text by its name; {fields} are filled in, and `n` chooses between one and many. */
export function t(name, fields = {}) {
  const words = LANGUAGES[language];
  const one = fields.n === 1 ? words[`${name}_one`] : undefined;
  const text = one ?? words[name] ?? ENGLISH[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, field) => fields[field] ?? "");
}

/** Does the language have a text of this name? */
export function has(name) {
  return name in LANGUAGES[language];
}

export function current() {
  return language;
}

/** Calls back now and whenever the language changes. */
export function onLanguage(act) {
  listeners.push(act);
  act();
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  kept.set("language", language);
  translate();
  for (const act of listeners) act();
}

/** Writes the static texts. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const [field, attribute] of ATTRIBUTES) {
    const name = `data-${field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const element of document.querySelectorAll(`[${name}]`)) element.setAttribute(attribute, t(element.dataset[field]));
  }
}

/** Seconds as people say them. */
export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 10) return t("secs", { s: value.toFixed(1) });
  if (value < 90) return t("secs", { s: Math.round(value) });
  if (value < 5400) return t("mins", { m: Math.round(value / 60) });
  return t("hours", { h: (value / 3600).toFixed(1) });
}

export function number(value) {
  return new Intl.NumberFormat(language).format(value);
}
