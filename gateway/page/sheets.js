// The two dialogs: shortcuts and help, and the API key.

import { apiKey } from "./api.js";
import { button, byId, h } from "./dom.js";
import { kept } from "./kept.js";
import { t } from "./text.js";

const COMMAND = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
const KEYS = [
  [[`${COMMAND} ↵`], "help_generate"], [["/"], "help_prompt"], [["←", "→"], "help_older"], [["F"], "help_full"],
  [["R"], "help_reuse"], [["D"], "help_download"], [["Del"], "help_delete"], [["1", "2"], "help_views"], [["?"], "help_help"],
];

/** Are shortcuts of a single key wanted? People who speak to their browser switch them off. */
export function singleKeys() {
  return kept.get("single_keys") ?? true;
}

export function showHelp() {
  const dialog = byId("help-dialog");
  const single = h("input", { type: "checkbox", on: { change: () => kept.set("single_keys", single.checked) } });
  single.checked = singleKeys();
  dialog.replaceChildren(
    head(dialog, "help-title", t("help_title")),
    h("dl", { class: "keys" }, ...KEYS.map(([keys, says]) => h("div", {}, h("dt", {}, ...keys.map((key) => h("kbd", {}, key))), h("dd", {}, t(says))))),
    h("label", { class: "check" }, single, t("help_single")),
    h("p", { class: "hint" }, t("help_private")), h("p", { class: "hint" }, t("help_api")),
  );
  open(dialog);
}

/** Asks for a key; `given` is called once there is another one. `error`: why the one there is does not do. */
export function askForKey(given, error = null) {
  const dialog = byId("key-dialog");
  if (dialog.open) return;
  const field = h("input", { type: "password", id: "key-field", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "key-wrong" });
  field.value = apiKey.get();
  const use = (value) => {
    apiKey.set(value);
    dialog.close();
    given();
  };
  const wrong = error?.status === 401 && apiKey.get() ? t("key_wrong", { why: error.message }) : "";
  const form = h("form", { on: { submit: (event) => { event.preventDefault(); if (field.value.trim()) use(field.value.trim()); } } },
    h("label", { for: "key-field" }, t("key")), field, h("p", { class: "wrong", id: "key-wrong", role: "alert" }, wrong),
    h("div", { class: "acts" },
      apiKey.get() ? h("button", { type: "button", class: "act", on: { click: () => use("") } }, t("key_forget")) : null,
      h("button", { type: "submit", class: "primary" }, t("key_save"))));
  dialog.replaceChildren(head(dialog, "key-title", t("key_title")), h("p", {}, t("key_says")), form);
  open(dialog);
  field.focus();
}

function head(dialog, id, title) {
  return h("div", { class: "sheet-head" }, h("h2", { id }, title), button("close", t("close"), () => dialog.close()));
}

function open(dialog) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  if (!dialog.open) dialog.showModal();
}
