// One workload: how it is, its pods and events, and what can be done with it.

import { merge } from "../api.js";
import { use } from "../collection.js";
import { ask, doing } from "../dialog.js";
import { h } from "../dom.js";
import { workloadHealth } from "../health.js";
import { EVENTS, PODS, collectionPath, kindOf, objectPath, podsOf } from "../kinds.js";
import { yamlPanel } from "../panels/yaml.js";
import { badge, conditions, eventTable, eventsAbout, facts, labels, podTable, section, tabs, time, unready } from "../parts.js";
import { to } from "../route.js";

export function workloadView({ parts }) {
  const [, plural, namespace, name, tab = "summary"] = parts;
  const kind = kindOf(plural);
  if (!kind) return h("p", { class: "empty" }, `There is no kind of workload named ${plural}.`);
  const source = use(collectionPath(kind));
  const waiting = unready(source, `${kind.kind}s`);
  if (waiting) return waiting;
  const object = source.objects.get(`${namespace}/${name}`);
  if (!object) return [h("h1", null, name), h("p", { class: "empty" }, `There is no ${kind.kind} ${name} in ${namespace}; it may have been deleted.`)];
  const address = (which) => to("workloads", plural, namespace, name, ...(which ? [which] : []));
  return [
    h("header", { class: "head", key: "head" }, h("div", null, h("p", { class: "quiet" }, `${kind.kind} in ${namespace}`), h("h1", null, name, " ", badge(workloadHealth(kind, object)))), h("div", { class: "buttons" }, actions(kind, object))),
    h("div", { key: "tabs" }, tabs("Views of this workload", [["Summary", address()], ["YAML", address("yaml")]], tab === "yaml" ? "YAML" : "Summary")),
    tab === "yaml" ? yamlPanel(object, kind.kind, kind.api) : summary(kind, object),
  ];
}

function summary(kind, object) {
  const health = workloadHealth(kind, object);
  const pods = podsOf(kind, object, use(PODS).items, kind.kind === "CronJob" ? use("/apis/batch/v1/jobs").items : []);
  return [
    section(
      "Facts",
      facts(
        health.wanted !== undefined && ["Ready", `${health.ready} of ${health.wanted}`],
        object.spec.schedule && ["Schedule", object.spec.schedule],
        object.spec.strategy?.type && ["Strategy", object.spec.strategy.type],
        ["Age", time(object.metadata.creationTimestamp)],
        ["Labels", labels(object.metadata.labels)],
      ),
    ),
    section("Pods", podTable("Pods", pods, "None.")),
    object.status?.conditions && conditions(object),
    section("Events", eventTable("Events", eventsAbout(object, use(EVENTS).items), "None in the last hour.")),
  ];
}

function actions(kind, object) {
  return [
    kind.scales && h("button", { type: "button", key: "scale", on: { click: () => scale(kind, object) } }, "Scale"),
    kind.restarts && h("button", { type: "button", key: "restart", on: { click: () => restart(kind, object) } }, "Restart"),
  ];
}

async function scale(kind, object) {
  const { namespace, name } = object.metadata;
  const now = object.spec.replicas ?? 1;
  const field = h("label", null, "Replicas", h("input", { name: "replicas", type: "number", min: "0", max: "10000", step: "1", required: true, value: String(now) }));
  const answer = await ask(`Scale ${kind.kind} ${name}`, "Scale", field);
  if (!answer) return;
  const replicas = Number(answer.get("replicas"));
  await doing(`${kind.kind} ${name} is scaled to ${replicas}.`, () => merge(`${objectPath(kind, namespace, name)}/scale`, { spec: { replicas } }));
}

// As `kubectl rollout restart` does it: a changed annotation of the template makes new pods, by the strategy of the workload.
async function restart(kind, object) {
  const { namespace, name } = object.metadata;
  const text = h("p", null, "Its pods are replaced one after the other, as its strategy says.");
  if (!(await ask(`Restart ${kind.kind} ${name}?`, "Restart", text))) return;
  const annotations = { "kubectl.kubernetes.io/restartedAt": new Date().toISOString().replace(/\.\d+/, "") };
  await doing(`${kind.kind} ${name} restarts.`, () => merge(objectPath(kind, namespace, name), { spec: { template: { metadata: { annotations } } } }));
}
