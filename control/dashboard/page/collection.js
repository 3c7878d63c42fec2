// Collections of objects as they are now: listed once, then watched. A broken watch goes on from the last revision; where the past is
// forgotten (410) the list is asked again. Nothing is polled.

import { ApiError, get, lines } from "./api.js";
import { isNamespaced, within } from "./kinds.js";
import { settings } from "./settings.js";

const PAGE = 500;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 20_000;
const FORGET_MS = 30_000;
// A connection that comes back sooner is no trouble to anybody.
const PATIENCE_MS = 2000;

const open = new Map();
let changed = () => {};

// Says whom to tell that something has changed.
export function onChange(listener) {
  changed = listener;
}

// The collection at a path. It is kept up to date while it is used: whoever draws the page uses all that it shows. Where a kind may not
// be listed over all namespaces, it is that of the namespace that is looked at.
export function use(path) {
  const everywhere = collection(path);
  const refused = everywhere.error?.code === 403 && isNamespaced(path);
  return refused && settings.namespace ? collection(within(path, settings.namespace)) : everywhere;
}

function collection(path) {
  let known = open.get(path);
  if (!known) {
    known = new Collection(path);
    open.set(path, known);
    known.run();
  }
  known.usedAt = Date.now();
  return known;
}

// The cluster's status, which is one object.
export function useStatus() {
  let status = open.get("status");
  if (!status) {
    status = new StatusOfCluster();
    open.set("status", status);
    status.run();
  }
  status.usedAt = Date.now();
  return status;
}

// Ends what has not been used for a while.
export function forgetUnused() {
  for (const [path, source] of open) {
    if (Date.now() - source.usedAt > FORGET_MS) {
      source.stop();
      open.delete(path);
    }
  }
}

// Ends everything: somebody else signs in.
export function forgetAll() {
  for (const source of open.values()) source.stop();
  open.clear();
}

// Those that are not as they should be, for the line that says so.
export function troubles() {
  return [...open.values()].filter((source) => source.error && Date.now() - source.failedAt > PATIENCE_MS);
}

// What both sources share: they run until they are stopped, and wait longer from failure to failure.
class Source {
  error = null;
  failedAt = 0;
  loaded = false;
  #abort = new AbortController();
  #delay = RETRY_MS_MIN;

  get signal() {
    return this.#abort.signal;
  }

  stop() {
    this.#abort.abort();
  }

  async run() {
    while (!this.signal.aborted) {
      try {
        await this.follow();
      } catch (error) {
        if (this.signal.aborted) return;
        this.failed(error);
      }
      if (!this.error) this.#delay = RETRY_MS_MIN;
      await new Promise((resolve) => setTimeout(resolve, this.#delay));
      if (this.error) this.#delay = Math.min(this.#delay * 2, RETRY_MS_MAX);
    }
  }

  failed(error) {
    if (!this.error) {
      this.failedAt = Date.now();
      setTimeout(changed, PATIENCE_MS + 1);
    }
    this.error = error instanceof ApiError ? error : new ApiError(0, "Unreadable", String(error));
    changed();
  }

  came() {
    this.error = null;
    this.loaded = true;
    changed();
  }
}

class Collection extends Source {
  objects = new Map();
  #version = null;

  constructor(path) {
    super();
    this.path = path;
  }

  get items() {
    return [...this.objects.values()];
  }

  async follow() {
    if (this.#version === null) await this.#list();
    const query = `?watch=true&allowWatchBookmarks=true&resourceVersion=${this.#version}`;
    for await (const line of lines(this.path + query, this.signal, () => this.came())) {
      if (line) this.#take(JSON.parse(line));
    }
  }

  async #list() {
    const objects = new Map();
    let page = null;
    do {
      const more = page ? `&continue=${encodeURIComponent(page.metadata.continue)}` : "";
      page = await get(`${this.path}?limit=${PAGE}${more}`, this.signal);
      for (const object of page.items) objects.set(id(object), object);
    } while (page.metadata.continue);
    this.objects = objects;
    this.#version = page.metadata.resourceVersion;
    this.came();
  }

  #take({ type, object }) {
    if (type === "ERROR") {
      if (object.code === 410) this.#version = null;
      throw new ApiError(object.code, object.reason, object.message);
    }
    this.#version = object.metadata.resourceVersion;
    if (type === "DELETED") this.objects.delete(id(object));
    else if (type !== "BOOKMARK") this.objects.set(id(object), object);
    this.came();
  }

  failed(error) {
    if (error.code === 410) {
      this.#version = null; // No trouble: the list is asked again.
      return;
    }
    super.failed(error);
  }
}

class StatusOfCluster extends Source {
  path = "/cluster/v1/status";
  value = null;

  // The first answer is asked for by itself: over a WebSocket nobody learns why one was refused.
  async follow() {
    if (!this.loaded) {
      this.value = await get(this.path, this.signal);
      this.came();
    }
    for await (const line of lines(`${this.path}?watch=true`, this.signal, () => this.came())) {
      if (!line) continue;
      this.value = JSON.parse(line);
      this.came();
    }
  }
}

function id(object) {
  return `${object.metadata.namespace ?? ""}/${object.metadata.name}`;
}
