// One pod: conditions, containers and events; its log, a shell in it, its YAML.

import { use } from "../collection.js";
import { h } from "../dom.js";
import { podHealth } from "../health.js";
import { EVENTS, PODS } from "../kinds.js";
import { logPanel } from "../panels/log.js";
import { shellPanel } from "../panels/shell.js";
import { yamlPanel } from "../panels/yaml.js";
import { badge, conditions, eventTable, eventsAbout, facts, labels, link, section, table, tabs, time, unready } from "../parts.js";
import { to } from "../route.js";

export function podView({ parts, options }) {
  const [, namespace, name, tab = "summary"] = parts;
  const source = use(PODS);
  const waiting = unready(source, "pods");
  if (waiting) return waiting;
  const pod = source.objects.get(`${namespace}/${name}`);
  if (!pod) return [h("h1", null, name), h("p", { class: "empty" }, `There is no pod ${name} in ${namespace}; it may have been deleted.`, " ", link(to("pods"), "All pods"))];
  const address = (which) => to("pods", namespace, name, ...(which ? [which] : []));
  const entries = [
    ["Summary", address()],
    ["Log", address("log")],
    ["Shell", address("shell")],
    ["YAML", address("yaml")],
  ];
  const current = entries.find(([title]) => title.toLowerCase() === tab)?.[0] ?? "Summary";
  return [
    h("header", { class: "head", key: "head" }, h("div", null, h("p", { class: "quiet" }, `Pod in ${namespace}`), h("h1", null, name, " ", badge(podHealth(pod))))),
    h("div", { key: "tabs" }, tabs("Views of this pod", entries, current)),
    panel(current, pod, options.get("container")),
  ];
}

function panel(current, pod, container) {
  switch (current) {
    case "Log":
      return logPanel(pod, container);
    case "Shell":
      return shellPanel(pod, container);
    case "YAML":
      return yamlPanel(pod, "Pod", "/api/v1");
    default:
      return summary(pod);
  }
}

function summary(pod) {
  const { metadata, spec, status = {} } = pod;
  const owner = metadata.ownerReferences?.find((reference) => reference.controller);
  return [
    section(
      "Facts",
      facts(
        ["Node", spec.nodeName ? link(to("nodes", spec.nodeName), spec.nodeName) : "none yet"],
        ["Address", h("span", { class: "code" }, status.podIP ?? "none yet")],
        owner && ["Controlled by", `${owner.kind} ${owner.name}`],
        ["Service account", spec.serviceAccountName ?? "default"],
        ["Quality of service", status.qosClass ?? "–"],
        ["Age", time(metadata.creationTimestamp)],
        status.message && ["Message", status.message],
        ["Labels", labels(metadata.labels)],
      ),
    ),
    section("Containers", containers(pod)),
    conditions(pod),
    section("Events", eventTable("Events", eventsAbout(pod, use(EVENTS).items), "None in the last hour.")),
  ];
}

function containers(pod) {
  const { namespace, name } = pod.metadata;
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  const rows = [...(pod.spec.initContainers ?? []).map((it) => ({ ...it, isInit: true })), ...pod.spec.containers].map((container) => ({ container, status: statuses.find((it) => it.name === container.name) }));
  const query = (container) => `?container=${encodeURIComponent(container.name)}`;
  return table(
    "Containers",
    [
      ["Name", ({ container }) => [h("strong", null, container.name), container.isInit && h("span", { class: "label" }, "init")], "name"],
      ["State", ({ status }) => badge(stateOf(status))],
      ["Since", ({ status }) => time(status?.state?.running?.startedAt ?? status?.state?.terminated?.finishedAt)],
      ["Restarts", ({ status }) => status?.restartCount ?? 0, "number"],
      ["Last end", ({ status }) => lastEnd(status)],
      ["Image", ({ container }) => h("span", { class: "code" }, container.image), "wide"],
      ["", ({ container }) => [link(`${to("pods", namespace, name, "log")}${query(container)}`, "Log"), " ", !container.isInit && link(`${to("pods", namespace, name, "shell")}${query(container)}`, "Shell")]],
    ],
    rows,
    ({ container }) => container.name,
    "None.",
  );
}

function stateOf(status) {
  const { running, terminated, waiting } = status?.state ?? {};
  if (running) return status.ready || status.started ? { text: status.ready ? "Ready" : "Running", tone: "good" } : { text: "Starting", tone: "busy" };
  if (terminated) return { text: terminated.exitCode === 0 ? "Ended" : `${terminated.reason ?? "Failed"} (${terminated.exitCode})`, tone: terminated.exitCode === 0 ? "off" : "bad" };
  return { text: waiting?.reason ?? "Waiting", tone: waiting && !["ContainerCreating", "PodInitializing"].includes(waiting.reason) ? "bad" : "busy" };
}

function lastEnd(status) {
  const ended = status?.lastState?.terminated;
  return ended ? [`${ended.reason ?? "Exit"} (${ended.exitCode}), `, time(ended.finishedAt), " ago"] : "–";
}
