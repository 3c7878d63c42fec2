// Pieces that several views are made of.

import { h } from "./dom.js";
import { age, clock, plural } from "./format.js";
import { podHealth, readyContainers, restarts } from "./health.js";
import { to } from "./route.js";
import { settings } from "./settings.js";

const ROWS_SHOWN = 300;
const MARKS = { good: "●", busy: "◐", bad: "▲", off: "○" };

// Health as a mark of its own shape, a colour and a word: none of them alone.
export function badge({ text, tone }) {
  return h("span", { class: `badge ${tone}` }, h("span", { class: "mark", "aria-hidden": "true" }, MARKS[tone]), text);
}

export function link(address, ...children) {
  return h("a", { href: address }, ...children);
}

export function time(stamp) {
  return h("time", { datetime: stamp ?? "", title: clock(stamp) }, age(stamp));
}

export function section(title, ...children) {
  return h("section", { class: "card", key: title }, h("h2", null, title), ...children);
}

// A table of `rows`: `columns` are `[title, cell]` or `[title, cell, class]`, `key` tells rows apart. Only the first hundreds are drawn:
// with more, a search finds faster than scrolling.
export function table(caption, columns, rows, key, empty) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("caption", { class: "hidden" }, caption),
      h("thead", null, h("tr", null, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title)))),
      h(
        "tbody",
        null,
        rows.slice(0, ROWS_SHOWN).map((row) => h("tr", { key: key(row) }, columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row))))),
      ),
    ),
    rows.length > ROWS_SHOWN && h("p", { class: "empty" }, `The first ${ROWS_SHOWN} of ${rows.length} are shown; search for the others.`),
  );
}

// Pairs of a term and what it is.
export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));
}

export function labels(map) {
  const entries = Object.entries(map ?? {});
  if (entries.length === 0) return "none";
  return entries.map(([key, value]) => h("span", { class: "label", key }, value ? `${key}=${value}` : key));
}

export function namespaceCell(object) {
  return h("span", { class: "quiet" }, object.metadata.namespace);
}

const CONDITION_COLUMNS = [
  ["Condition", (it) => it.type],
  ["Status", (it) => it.status],
  ["Since", (it) => time(it.lastTransitionTime)],
  ["Why", (it) => [it.reason, it.message].filter(Boolean).join(": "), "wide"],
];

export function conditions(object) {
  return section("Conditions", table("Conditions", CONDITION_COLUMNS, object.status?.conditions ?? [], (it) => it.type, "None yet."));
}

export function podLink(pod) {
  return link(to("pods", pod.metadata.namespace, pod.metadata.name), pod.metadata.name);
}

export function podTable(caption, pods, empty) {
  const sorted = [...pods].sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  return table(
    caption,
    [
      ["Name", podLink, "name"],
      ...(settings.namespace ? [] : [["Namespace", namespaceCell]]),
      ["Status", (pod) => badge(podHealth(pod))],
      ["Ready", readyContainers, "number"],
      ["Restarts", (pod) => restarts(pod), "number"],
      ["Node", (pod) => (pod.spec.nodeName ? link(to("nodes", pod.spec.nodeName), pod.spec.nodeName) : "–")],
      ["Address", (pod) => h("span", { class: "code" }, pod.status?.podIP ?? "–")],
      ["Age", (pod) => time(pod.metadata.creationTimestamp), "number"],
    ],
    sorted,
    (pod) => pod.metadata.uid,
    empty,
  );
}

export function seen(event) {
  return event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp;
}

export function eventTable(caption, events, empty, withObject) {
  const sorted = [...events].sort((a, b) => (Date.parse(seen(b)) || 0) - (Date.parse(seen(a)) || 0));
  return table(
    caption,
    [
      ["Last seen", (event) => time(seen(event)), "number"],
      ["Type", (event) => badge({ text: event.type, tone: event.type === "Warning" ? "bad" : "off" })],
      ["Reason", (event) => event.reason],
      ...(withObject ? [["Object", (event) => objectOf(event)]] : []),
      ["Message", (event) => event.message, "wide"],
      ["Times", (event) => event.series?.count ?? event.count ?? 1, "number"],
    ],
    sorted,
    (event) => event.metadata.uid,
    empty,
  );
}

function objectOf({ metadata, involvedObject: { kind, namespace = metadata.namespace, name } }) {
  if (kind === "Pod") return link(to("pods", namespace, name), `Pod ${name}`);
  if (kind === "Node") return link(to("nodes", name), `Node ${name}`);
  return `${kind} ${name}`;
}

export function eventsAbout(object, events) {
  return events.filter((event) => event.involvedObject.uid === object.metadata.uid);
}

// What a view says instead of what is still to come, or cannot be had.
export function unready(source, what) {
  if (source.loaded) return null;
  if (source.error) return problem(source.error, what);
  return h("p", { class: "empty", "aria-busy": "true" }, `Reading ${what} …`);
}

export function problem(error, what) {
  return h("div", { class: "problem", role: "alert" }, h("strong", null, what ? `No ${what}: ${error.message}` : error.message), " ", error.advice ?? "");
}

export function count(values, word) {
  return plural(values.length, word);
}

export function tabs(label, entries, current) {
  return h(
    "nav",
    { class: "tabs", "aria-label": label },
    entries.map(([name, address]) => h("a", { key: name, href: address, "aria-current": name === current ? "page" : null }, name)),
  );
}
