// Elements made by calls, never from markup: nothing that a server or a person says is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  dice: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM8.5 8.500h.01M15.5 8.500h.01M12 12h.01M8.5 15.500h.01M15.5 15.500h.01",
  lock: "M6 11h12v9H6zM8.5 11V7.500a3.5 3.5 0 0 1 7 0V11",
  unlock: "M6 11h12v9H6zM8.5 11V7.500a3.5 3.5 0 0 1 6.8-1.2",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500V5M12 19v2.500M2.5 12H5M19 12h2.500M5.3 5.300l1.7 1.700M17 17l1.7 1.700M5.3 18.7 7 17M17 7l1.7-1.7",
  moon: "M20 14.500A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.500z",
  auto: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 4v16M12 8h5.500M12 12h8M12 16h5.5",
  help: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM9.5 9.500a2.5 2.5 0 1 1 3.7 2.200c-.8.4-1.2.9-1.2 1.800M12 16.600h.01",
  key: "M15 4a5 5 0 1 0-4.6 7L9 12.500V15H6.500v2.500H4V20h4l6.2-6.200A5 5 0 0 0 15 4zM16.5 7.500h.01",
  stop: "M7 7h10v10H7z",
  down: "M12 4v11M7.5 11l4.5 4.5 4.5-4.500M5 20h14",
  again: "M4.5 12a7.5 7.5 0 0 1 13-5.100L20 9.500M20 4.500v5h-5M19.5 12a7.5 7.5 0 0 1-13 5.100L4 14.500M4 19.500v-5h5",
  reuse: "M14 4 4 14v6h6L20 10zM12.5 5.500l6 6",
  bin: "M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  close: "M6 6l12 12M18 6 6 18",
  warn: "M12 4 2.8 20h18.400zM12 10v4.500M12 17.300h.01",
  gpu: "M3 7h18v10H3zM7 17v3M12 17v3M17 17v3M9 10.500h6v3H9z",
  image: "M4 5h16v14H4zM4 16.500l4.5-5 4 4 3-3 4.500 4M15.5 9h.01",
  open: "M9 4H4v5M15 4h5v5M20 15v5h-5M9 20H4v-5",
};

/** An element: attributes by name, `on` for listeners, `data` for data-*; children are elements or text. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** An icon, which says nothing to a screen reader: its button has a name. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

/** A button with an icon; `label` is its name and, where `worded`, its text. */
export function button(name, label, act, { worded = false, ...props } = {}) {
  const look = worded ? "act" : "tool";
  return h("button", { type: "button", class: look, "aria-label": worded ? null : label, title: worded ? null : label, on: { click: act }, ...props },
    icon(name), worded ? h("span", {}, label) : null);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Text is only written where it differs, so that nothing flickers and no screen reader speaks twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute; only where it differs. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/** Says something to a screen reader, once. */
export function tell(text) {
  say(byId("told"), text);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "data") Object.assign(element.dataset, value);
    else set(element, name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
