// All workloads with their health.

import { use } from "../collection.js";
import { h } from "../dom.js";
import { workloadHealth } from "../health.js";
import { KINDS, PODS, collectionPath } from "../kinds.js";
import { badge, link, namespaceCell, podTable, section, table, tabs, time, unready } from "../parts.js";
import { to } from "../route.js";
import { isWanted, settings } from "../settings.js";

const TONES = ["bad", "busy", "good", "off"];

export function workloadsView({ parts }) {
  const chosen = KINDS.find((kind) => kind.plural === parts[1]);
  const isBare = parts[1] === "bare";
  const rows = KINDS.filter((kind) => !chosen || kind === chosen).flatMap(rowsOf);
  rows.sort((a, b) => TONES.indexOf(a.health.tone) - TONES.indexOf(b.health.tone) || a.object.metadata.name.localeCompare(b.object.metadata.name));
  const pods = use(PODS);
  const bare = pods.items.filter((pod) => !pod.metadata.ownerReferences?.length && isWanted(pod));
  const entries = [["All", to("workloads")], ...KINDS.map((kind) => [`${kind.kind}s`, to("workloads", kind.plural)]), ["Bare pods", to("workloads", "bare")]];
  const current = isBare ? "Bare pods" : chosen ? `${chosen.kind}s` : "All";
  return [
    h("h1", { key: "title" }, "Workloads"),
    h("div", { key: "tabs" }, tabs("Kinds", entries, current)),
    !isBare && h("section", { class: "card", key: "rows" }, waiting(chosen) ?? table("Workloads", columns(), rows, (row) => row.object.metadata.uid, nothing())),
    !chosen && (isBare || bare.length > 0) && section("Bare pods", unready(pods, "pods") ?? podTable("Bare pods", bare, nothing())),
  ];
}

function rowsOf(kind) {
  return use(collectionPath(kind))
    .items.filter((object) => isWanted(object, kind.kind, ...images(object)))
    .map((object) => ({ kind, object, health: workloadHealth(kind, object) }));
}

function waiting(chosen) {
  const sources = KINDS.filter((kind) => !chosen || kind === chosen).map((kind) => [use(collectionPath(kind)), `${kind.kind}s`]);
  if (sources.some(([source]) => source.loaded)) return null;
  return sources.map(([source, what]) => unready(source, what)).find(Boolean);
}

function columns() {
  return [
    ["Name", ({ kind, object }) => link(to("workloads", kind.plural, object.metadata.namespace, object.metadata.name), object.metadata.name), "name"],
    ["Kind", ({ kind }) => kind.kind],
    ...(settings.namespace ? [] : [["Namespace", ({ object }) => namespaceCell(object)]]),
    ["Health", ({ health }) => badge(health)],
    ["Ready", ({ health }) => (health.wanted === undefined ? "–" : `${health.ready}/${health.wanted}`), "number"],
    ["Images", ({ object }) => h("span", { class: "code" }, images(object).join(", ")), "wide"],
    ["Age", ({ object }) => time(object.metadata.creationTimestamp), "number"],
  ];
}

function images(object) {
  const template = object.spec.jobTemplate?.spec.template ?? object.spec.template;
  return (template?.spec.containers ?? []).map((container) => container.image);
}

function nothing() {
  return settings.search || settings.namespace ? "Nothing matches the namespace and the search." : "None yet. Make one with: ctl apply -f FILE";
}
