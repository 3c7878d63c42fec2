// The first view: how the cluster is, who leads, what runs where, and what needs somebody's attention.

import { use, useStatus } from "../collection.js";
import { h } from "../dom.js";
import { bytes, milliseconds, quantity } from "../format.js";
import { nodeHealth, podHealth, workloadHealth } from "../health.js";
import { EVENTS, KINDS, NODES, PODS, collectionPath } from "../kinds.js";
import { badge, eventTable, link, problem, section, seen, table, unready } from "../parts.js";
import { to } from "../route.js";
import { isWanted } from "../settings.js";

const RECENT_MS = 3_600_000;

export function clusterView() {
  const [status, nodes, pods] = [useStatus(), use(NODES), use(PODS)];
  const shown = pods.items.filter((pod) => isWanted(pod));
  const workloads = KINDS.flatMap((kind) =>
    use(collectionPath(kind))
      .items.filter((object) => isWanted(object))
      .map((object) => ({ kind, object, health: workloadHealth(kind, object) })),
  );
  return [
    h("h1", { key: "title" }, "Cluster"),
    h("div", { class: "tiles", key: "tiles" }, mastersTile(status), nodesTile(nodes.items), podsTile(shown), workloadsTile(workloads)),
    attention(workloads, shown),
    section("Masters", masters(status)),
    section("What runs where", unready(nodes, "nodes") ?? unready(pods, "pods") ?? h("div", { class: "machines" }, machines(nodes.items, shown))),
    section("Warnings of the last hour", warnings()),
  ];
}

function tile(title, figure, detail, tone, address) {
  return h("a", { class: `tile ${tone}`, href: address, key: title }, h("span", { class: "title" }, title), h("span", { class: "figure" }, figure), h("span", { class: "quiet" }, detail));
}

function mastersTile(status) {
  const members = status.value?.members ?? [];
  const healthy = members.filter((member) => member.healthy).length;
  const leader = members.find((member) => member.leader);
  const detail = leader ? `led by ${leader.name} since term ${status.value.term}` : (status.error?.message ?? "no leader");
  const tone = healthy === members.length && leader ? "good" : "bad";
  return tile("Masters", members.length ? `${healthy}/${members.length}` : "–", detail, status.loaded ? tone : "off", to("cluster"));
}

function nodesTile(nodes) {
  const bad = nodes.filter((node) => nodeHealth(node).tone === "bad");
  const detail = bad.length ? `${bad.map((node) => node.metadata.name).join(", ")}: not ready` : "all ready";
  return tile("Nodes", `${nodes.length - bad.length}/${nodes.length}`, nodes.length ? detail : "none yet", bad.length ? "bad" : "good", to("nodes"));
}

function podsTile(pods) {
  const tones = tally(pods.map((pod) => podHealth(pod).tone));
  const detail = tones.bad ? `${tones.bad} in trouble` : tones.busy ? `${tones.busy} on their way` : "none in trouble";
  return tile("Pods", String(tones.good), `running; ${detail}`, tones.bad ? "bad" : "good", to("pods"));
}

function workloadsTile(workloads) {
  const tones = tally(workloads.map((it) => it.health.tone));
  const detail = tones.bad ? `${tones.bad} in trouble` : tones.busy ? `${tones.busy} on their way` : "none in trouble";
  return tile("Workloads", String(workloads.length), detail, tones.bad ? "bad" : "good", to("workloads"));
}

function tally(tones) {
  const counts = { good: 0, busy: 0, bad: 0, off: 0 };
  for (const tone of tones) counts[tone] += 1;
  return counts;
}

function attention(workloads, pods) {
  const bad = [
    ...workloads.filter((it) => it.health.tone === "bad").map(({ kind, object, health }) => ({ address: to("workloads", kind.plural, object.metadata.namespace, object.metadata.name), name: `${kind.kind} ${object.metadata.name}`, health })),
    ...pods.map((pod) => ({ address: to("pods", pod.metadata.namespace, pod.metadata.name), name: `Pod ${pod.metadata.name}`, health: podHealth(pod) })).filter((it) => it.health.tone === "bad"),
  ];
  if (bad.length === 0) return null;
  return section("Needs attention", h("ul", { class: "plain" }, bad.slice(0, 20).map(({ address, name, health }) => h("li", { key: address }, badge(health), " ", link(address, name)))));
}

const MASTER_COLUMNS = [
  ["Name", (it) => h("strong", null, it.name), "name"],
  ["Role", (it) => (it.leader ? badge({ text: "Leader", tone: "good" }) : it.voter ? "Follower" : "Learner")],
  ["Health", (it) => badge(it.healthy ? { text: "Healthy", tone: "good" } : { text: "Silent", tone: "bad" })],
  ["Revision", (it) => it.revision ?? "–", "number"],
  ["Log behind", (it) => (it.lastLogIndex === null || it.lastLogIndex === undefined ? "–" : it.lastLogIndex - (it.appliedIndex ?? 0)), "number"],
  ["Data", (it) => bytes(it.dbSizeBytes), "number"],
  ["fsync p99", (it) => milliseconds(it.figures?.fsyncP99Us), "number"],
  ["API", (it) => h("span", { class: "code" }, it.apiUrl)],
];
const PROBLEM_COLUMN = ["Problem", (it) => it.problem ?? "", "wide"];

function masters(status) {
  if (!status.loaded && status.error?.code === 403) return problem(status.error);
  const members = status.value?.members ?? [];
  const columns = members.some((it) => it.problem) ? [...MASTER_COLUMNS, PROBLEM_COLUMN] : MASTER_COLUMNS;
  return unready(status, "masters") ?? table("Masters", columns, members, (it) => it.id, "None.");
}

function machines(nodes, pods) {
  const waiting = pods.filter((pod) => !pod.spec.nodeName);
  return [
    ...[...nodes].sort((a, b) => a.metadata.name.localeCompare(b.metadata.name)).map((node) => machine(node, pods.filter((pod) => pod.spec.nodeName === node.metadata.name))),
    waiting.length > 0 && h("article", { class: "machine", key: "/waiting" }, h("h3", null, "On no node yet"), chips(waiting)),
  ];
}

function machine(node, pods) {
  const { allocatable = {} } = node.status ?? {};
  const asked = (resource) =>
    pods
      .filter((pod) => !["Succeeded", "Failed"].includes(pod.status?.phase))
      .flatMap((pod) => pod.spec.containers)
      .reduce((sum, container) => sum + quantity(container.resources?.requests?.[resource]), 0);
  return h(
    "article",
    { class: "machine", key: node.metadata.name },
    h("h3", null, link(to("nodes", node.metadata.name), node.metadata.name), badge(nodeHealth(node))),
    gauge("CPU asked for", asked("cpu"), quantity(allocatable.cpu), (value) => value.toFixed(2)),
    gauge("Memory asked for", asked("memory"), quantity(allocatable.memory), bytes),
    chips(pods),
  );
}

function gauge(title, value, most, show) {
  return h("label", { class: "gauge" }, h("span", null, title), h("meter", { min: "0", max: most || 1, high: (most || 1) * 0.9, value }), h("span", { class: "quiet" }, `${show(value)} of ${show(most)}`));
}

function chips(pods) {
  if (pods.length === 0) return h("p", { class: "empty" }, "No pods.");
  const sorted = [...pods].sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  return h(
    "ul",
    { class: "chips" },
    sorted.map((pod) => {
      const { text, tone } = podHealth(pod);
      const { namespace, name, uid } = pod.metadata;
      return h("li", { key: uid }, h("a", { class: `chip ${tone}`, href: to("pods", namespace, name), title: `${namespace}/${name}: ${text}` }, name, h("span", { class: "hidden" }, `: ${text}`)));
    }),
  );
}

function warnings() {
  const events = use(EVENTS);
  const recent = events.items.filter((event) => event.type === "Warning" && Date.now() - Date.parse(seen(event)) < RECENT_MS && isWanted(event, event.reason, event.message));
  return unready(events, "events") ?? eventTable("Warnings of the last hour", recent.slice(0, 50), "None.", true);
}
