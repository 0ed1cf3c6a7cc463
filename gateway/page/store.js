// What this browser keeps: finished pictures with how they were made, and jobs that are under way. IndexedDB; where it
// is refused, memory stands in until the tab is closed, and `refused` says so.

export const PICTURES_MAX = 500;

const NAME = "genserve";
const VERSION = 1;

export class Store {
  #db = null;
  #memory = { pictures: new Map(), jobs: new Map() };
  refused = false;

  async open() {
    try {
      this.#db = await new Promise((resolve, reject) => {
        const request = indexedDB.open(NAME, VERSION);
        request.onupgradeneeded = () => {
          request.result.createObjectStore("pictures", { keyPath: "id" }).createIndex("at", "at");
          request.result.createObjectStore("jobs", { keyPath: "key" });
        };
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
      this.#db.onversionchange = () => this.#db.close();
    } catch {
      this.refused = true;
    }
  }

  /** Every picture, newest first. */
  async pictures() {
    const all = await this.#all("pictures");
    return all.sort((a, b) => b.at - a.at || (a.id < b.id ? 1 : -1));
  }

  /** Keeps a picture; the ids of those that made room. Throws where the browser has no room. */
  async keep(picture) {
    await this.#put("pictures", picture);
    if ((await this.#count()) <= PICTURES_MAX) return [];
    const gone = (await this.pictures()).slice(PICTURES_MAX).map((each) => each.id);
    for (const id of gone) await this.remove(id);
    return gone;
  }

  async remove(id) {
    await this.#delete("pictures", id);
  }

  async jobs() {
    return this.#all("jobs");
  }

  async keepJob(job) {
    await this.#put("jobs", job).catch(() => {}); // then it is not found again after a reload, no more
  }

  async removeJob(key) {
    await this.#delete("jobs", key);
  }

  async #count() {
    return this.#db ? this.#do("pictures", "readonly", (store) => store.count()) : this.#memory.pictures.size;
  }

  async #all(name) {
    if (!this.#db) return [...this.#memory[name].values()];
    return this.#do(name, "readonly", (store) => store.getAll());
  }

  async #put(name, value) {
    if (!this.#db) this.#memory[name].set(value.id ?? value.key, value);
    else await this.#do(name, "readwrite", (store) => store.put(value));
  }

  async #delete(name, key) {
    if (!this.#db) this.#memory[name].delete(key);
    else await this.#do(name, "readwrite", (store) => store.delete(key));
  }

  #do(name, mode, act) {
    return new Promise((resolve, reject) => {
      const transaction = this.#db.transaction(name, mode);
      const request = act(transaction.objectStore(name));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  }
}
