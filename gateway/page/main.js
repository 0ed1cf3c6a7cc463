// Puts the page together: what a person does goes to the jobs, what becomes of it to the views.

import { apiKey, call } from "./api.js";
import { Composer } from "./composer.js";
import { byId, button, h, icon, say, set, tell } from "./dom.js";
import { Fleet } from "./fleet.js";
import { Gallery } from "./gallery.js";
import { Jobs } from "./jobs.js";
import { kept } from "./kept.js";
import { askForKey, showHelp, singleKeys } from "./sheets.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { Store } from "./store.js";
import { current, number, onLanguage, switchLanguage, t, translate } from "./text.js";
import { explained, fileName } from "./words.js";

const UNDO_MS = 8_000;
const THEMES = ["auto", "light", "dark"];

const store = new Store();
const status = new Status();
const jobs = new Jobs(store);
const composer = new Composer(draw, () => status.state === "key" && wantKey(status.error));
const gallery = new Gallery(store, choose);
const stage = new Stage({ propose: (prompt) => composer.propose(prompt), cancel: (job) => jobs.cancel(job), retry, dismiss: (job) => jobs.cancel(job), reuse, vary, mayStart: () => Boolean(composer.model?.genserve.edits), startFrom, download, remove }, (picture) => gallery.urlOf(picture));
const fleet = new Fleet(() => jobs.all);
let models = "";
let keyAsked = false;

// --- the studio ----------------------------------------------------------------------------------

async function draw(requests) {
  const begun = [];
  for (const { body, shown, start } of requests) begun.push(await jobs.add(body, shown, start));
  choose(begun[0]);
  if (matchMedia("(max-width: 60rem)").matches) byId("stage").scrollIntoView({ behavior: "smooth" });
}

function choose(item) {
  stage.show(item);
  gallery.mark(item);
  jobs.prefer(item && !item.blob ? item : null);
}

function retry(job) {
  jobs.cancel(job);
  draw([{ body: job.body, shown: job.shown, start: job.start }]);
}

function reuse(picture) {
  composer.reuse(picture);
  byId("prompt").focus();
}

function vary(picture) {
  composer.reuse(picture, { seed: false });
  composer.submit();
}

function startFrom(picture) {
  composer.start.set(picture.blob);
  composer.shapeAs(picture.width, picture.height);
  byId("prompt").select();
  byId("prompt").focus();
}

function download(picture) {
  h("a", { href: gallery.urlOf(picture), download: fileName(picture) }).click();
}

async function remove(picture) {
  const next = gallery.beside(1) === picture ? gallery.beside(-1) : gallery.beside(1);
  await gallery.remove(picture);
  choose(next === picture || !next ? null : next);
  notice(t("deleted"), { label: t("undo"), act: () => gallery.add(picture).then(() => choose(picture)) });
}

jobs.addEventListener("change", ({ detail: { job } }) => {
  gallery.show(jobs.all);
  if (job.gone && stage.shown === job) choose(gallery.items[0] ?? null);
  else if (stage.shown === job) stage.update();
  if (job.told === job.state) return;
  job.told = job.state;
  status.ask();
  if (job.state === "cancelled") tell(t("cancelled_told", job.shown));
  if (job.state === "failed") tell(t("failed_told", { ...job.shown, why: explained(job.error).what }));
});

jobs.addEventListener("picture", async ({ detail: { job, picture } }) => {
  const watched = stage.shown === job;
  gallery.show(jobs.all);
  const kept_ = gallery.add(picture);
  if (watched) choose(picture);
  tell(t("finished", picture));
  if (gallery.pictures.length === 1) navigator.storage?.persist?.().catch(() => {}); // refused: kept while there is room
  await kept_.catch(() => notice(Object.values(explained({ code: "unsaved" })).join(" ")));
});

jobs.addEventListener("refused", ({ detail: { job, error } }) => {
  composer.refuse({ ...explained(error), param: error.param });
  if (stage.shown === job || !stage.shown) choose(gallery.items[0] ?? null);
});

jobs.addEventListener("key", ({ detail: { error } }) => wantKey(error)); // also where it was asked for before

async function offerModels() {
  try {
    const { data } = await call("GET", "v1/models");
    composer.offer(data);
    stage.ideas(data.every((each) => each.genserve.embedded));
  } catch {
    models = ""; // asked again with the next status, whose failure is shown
  }
}

// --- the service ---------------------------------------------------------------------------------

status.addEventListener("change", () => {
  const known = status.state + JSON.stringify((status.now?.models ?? []).map((each) => [each.card.name, each.workers > 0]));
  if (["ok", "closed"].includes(status.state) && known !== models) {
    models = known;
    offerModels();
  }
  if (status.state === "key" && !keyAsked) wantKey(status.error);
  if (!byId("view-fleet").hidden) fleet.show(status);
  pulse();
});

function pulse() {
  const { state, now } = status;
  const ready = (now?.workers ?? []).filter((each) => each.state === "ready").length;
  const { running = 0, queued = 0 } = now?.stats ?? {};
  const says = state !== "ok" ? state : ready === 0 ? "none" : running + queued ? "busy" : "idle";
  set(byId("pulse"), "data-state", says);
  say(byId("pulse-text"), t(`pulse_${says}`, { n: ready === 1 ? 1 : number(ready), running: number(running), queued: number(queued) }));
  byId("key").hidden = !keyAsked && !apiKey.get();
  if (state === "lost") notice(t("lost"), null, "lost");
  else if (byId("notice").dataset.kind === "lost") byId("notice").hidden = true;
}

function wantKey(error) {
  keyAsked = true;
  askForKey(keyGiven, error);
  return true;
}

function keyGiven() {
  keyAsked = false;
  models = "";
  jobs.goOn();
  status.ask();
}

let noticeTimer = null;
function notice(text, action = null, kind = "told") {
  const place = byId("notice");
  if (kind === "lost" && place.dataset.kind === "lost" && !place.hidden && place.dataset.says === text) return;
  Object.assign(place.dataset, { kind, says: text });
  const act = action && h("button", { type: "button", class: "act", on: { click: () => { place.hidden = true; action.act(); } } }, action.label);
  place.replaceChildren(h("span", {}, text), act ?? "", button("close", t("close"), () => { place.hidden = true; }));
  place.hidden = false;
  clearTimeout(noticeTimer);
  if (kind !== "lost") noticeTimer = setTimeout(() => { place.hidden = true; }, UNDO_MS);
}

// --- the head, the keys --------------------------------------------------------------------------

function view() {
  const name = location.hash === "#fleet" ? "fleet" : "studio";
  for (const each of ["studio", "fleet"]) {
    byId(`view-${each}`).hidden = each !== name;
    set(byId(`tab-${each}`), "aria-current", each === name ? "page" : null);
  }
  status.lookedAt(name === "fleet");
  if (name === "fleet") fleet.show(status);
  scrollTo(0, 0);
  document.title = `${t(name)} · GenServe`;
}

function theme(name) {
  set(document.documentElement, "data-theme", name);
  byId("theme").replaceChildren(icon({ auto: "auto", light: "sun", dark: "moon" }[name]));
  label(byId("theme"), t(`theme_${name}`));
}

function label(element, text) {
  set(element, "aria-label", text);
  set(element, "title", text);
}

const chosenTheme = () => (THEMES.includes(kept.get("theme")) ? kept.get("theme") : "auto");

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (byId("view-studio").hidden ? byId("view-fleet") : byId("prompt")).focus();
});
byId("theme").addEventListener("click", () => {
  kept.set("theme", THEMES[(THEMES.indexOf(chosenTheme()) + 1) % THEMES.length]);
  theme(chosenTheme());
});
byId("language").addEventListener("click", switchLanguage);
byId("help").addEventListener("click", showHelp);
byId("key").addEventListener("click", () => askForKey(keyGiven, status.error));
window.addEventListener("hashchange", view);

const ON_KEY = {
  "/": () => { location.hash = "#studio"; view(); byId("prompt").focus(); },
  "?": showHelp,
  1: () => { location.hash = "#studio"; },
  2: () => { location.hash = "#fleet"; },
  f: () => stage.full(),
  ArrowLeft: () => walk(-1),
  ArrowRight: () => walk(1),
  r: () => stage.shown?.blob && reuse(stage.shown),
  d: () => stage.shown?.blob && download(stage.shown),
  Delete: () => stage.shown && (stage.shown.blob ? remove(stage.shown) : jobs.cancel(stage.shown)),
};

function walk(offset) {
  const next = gallery.beside(offset);
  if (next && next !== stage.shown) choose(next);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("view-studio").hidden) {
    event.preventDefault();
    return composer.submit();
  }
  const typing = event.target.closest("textarea, select, input, dialog");
  const act = ON_KEY[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (typing || !act || event.ctrlKey || event.metaKey || event.altKey || !singleKeys()) return undefined;
  if (!"12?".includes(event.key) && event.key !== "/" && byId("view-studio").hidden) return undefined;
  event.preventDefault();
  return act();
});

onLanguage(() => {
  translate();
  say(byId("language"), t("language_switch"));
  set(byId("language"), "lang", current() === "en" ? "zh-CN" : "en");
  label(byId("language"), t("language_switch_label"));
  label(byId("help"), t("help"));
  label(byId("key"), t("key"));
  theme(chosenTheme());
  pulse();
  view();
});
byId("help").replaceChildren(icon("help"));
byId("key").replaceChildren(icon("key"));

await store.open();
await gallery.open();
status.start();
await jobs.resume();
if (!stage.shown) choose(gallery.items[0] ?? null);
set(document.documentElement, "data-ready", true);
