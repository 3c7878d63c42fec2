// A container's log, followed. It is written into the page as it comes; the oldest lines go when there are too many.

import { fetched } from "../api.js";
import { h } from "../dom.js";
import { podPath } from "../kinds.js";
import { go, to } from "../route.js";

const TAIL = 1000;
const LINES_MAX = 5000;
const RETRY_MS = 2000;

const options = { timestamps: false, previous: false, wrap: true };

export function logPanel(pod, asked) {
  const { namespace, name } = pod.metadata;
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((it) => it.name);
  const container = all.includes(asked) ? asked : all[0];
  const choose = (event) => go(`${to("pods", namespace, name, "log")}?container=${encodeURIComponent(event.target.value)}`);
  const option = (key, title) => {
    const change = (event) => {
      options[key] = event.target.checked;
      dispatchEvent(new Event("redraw"));
    };
    return h("label", { key }, h("input", { type: "checkbox", checked: options[key], on: { change } }), ` ${title}`);
  };
  const key = [pod.metadata.uid, container, options.timestamps, options.previous].join();
  return h(
    "section",
    { class: "card", key: "log", "aria-label": "Log" },
    h(
      "div",
      { class: "bar" },
      h("label", null, "Container ", h("select", { value: container, on: { change: choose } }, all.map((it) => h("option", { value: it, key: it }, it)))),
      option("timestamps", "times"),
      option("previous", "before its restart"),
      option("wrap", "break long lines"),
    ),
    h("div", { key, mount: (element) => follow(element, pod, container) }),
  );
}

function follow(element, pod, container) {
  const { namespace, name } = pod.metadata;
  const abort = new AbortController();
  const view = document.createElement("pre");
  Object.assign(view, { className: options.wrap ? "text log wrap" : "text log", tabIndex: 0 });
  view.setAttribute("role", "log");
  view.setAttribute("aria-live", "off");
  view.setAttribute("aria-label", `Log of ${container}`);
  const note = document.createElement("p");
  note.className = "quiet";
  element.append(view, note);
  const say = (text) => (note.textContent = text);
  const writer = makeWriter(view);
  run().catch((error) => {
    if (!abort.signal.aborted) say(`${error.message} ${error.advice ?? ""}`);
  });
  return () => abort.abort();

  async function run() {
    say("Followed; it scrolls along while its end is in sight.");
    let since = null;
    for (;;) {
      const query = new URLSearchParams({ container, follow: !options.previous, timestamps: options.timestamps, previous: options.previous });
      if (since) query.set("sinceTime", since);
      else query.set("tailLines", TAIL);
      try {
        for await (const line of fetched(`${podPath(namespace, name)}/log?${query}`, abort.signal)) writer.write(line);
        return say("The log has ended.");
      } catch (error) {
        // Nothing was refused, the connection broke: go on from where it was, to the second.
        if (abort.signal.aborted || error.code !== 0) throw error;
        say(`${error.message} ${error.advice}`);
        since = new Date().toISOString().replace(/\.\d+/, "");
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}

// Writes many lines at once, a frame at a time, and keeps the end in sight if it was.
function makeWriter(view) {
  let waiting = [];
  let scheduled = false;
  const flush = () => {
    scheduled = false;
    const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
    const lines = waiting.slice(-LINES_MAX).map((line) => {
      const element = document.createElement("span");
      element.textContent = `${line}\n`;
      return element;
    });
    waiting = [];
    view.append(...lines);
    while (view.childElementCount > LINES_MAX) view.firstChild.remove();
    if (atEnd) view.scrollTop = view.scrollHeight;
  };
  return {
    write(line) {
      waiting.push(line);
      if (waiting.length > 2 * LINES_MAX) waiting = waiting.slice(-LINES_MAX);
      if (!scheduled) {
        scheduled = true;
        requestAnimationFrame(flush);
      }
    },
  };
}
