// What the browser remembers of a person's choices. Where storage is refused, the page works and forgets.

const PREFIX = "genserve.";

function store(area) {
  return {
    get(name) {
      try {
        return JSON.parse(window[area].getItem(PREFIX + name));
      } catch {
        return null;
      }
    },
    set(name, value) {
      try {
        if (value === null) window[area].removeItem(PREFIX + name);
        else window[area].setItem(PREFIX + name, JSON.stringify(value));
      } catch { /* refused or full: forgotten */ }
    },
  };
}

export const kept = store("localStorage");

/** Until the tab is closed. */
export const keptForNow = store("sessionStorage");
