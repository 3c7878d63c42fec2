// The nodes, and one of them with what runs on it.

import { use } from "../collection.js";
import { h } from "../dom.js";
import { bytes, quantity } from "../format.js";
import { nodeHealth } from "../health.js";
import { EVENTS, NODES, PODS } from "../kinds.js";
import { yamlPanel } from "../panels/yaml.js";
import { badge, conditions, eventTable, facts, labels, link, podTable, section, table, tabs, time, unready } from "../parts.js";
import { to } from "../route.js";
import { isWanted } from "../settings.js";

export function nodesView({ parts }) {
  const nodes = use(NODES);
  const waiting = unready(nodes, "nodes");
  if (waiting) return waiting;
  if (!parts[1]) return allNodes(nodes.items);
  const node = nodes.objects.get(`/${parts[1]}`);
  return node ? oneNode(node, parts[2]) : [h("h1", null, parts[1]), h("p", { class: "empty" }, "There is no node of this name. ", link(to("nodes"), "All nodes"))];
}

function allNodes(nodes) {
  const pods = use(PODS).items;
  const columns = [
    ["Name", (node) => link(to("nodes", node.metadata.name), node.metadata.name), "name"],
    ["Status", (node) => badge(nodeHealth(node))],
    ["Pods", (node) => pods.filter((pod) => pod.spec.nodeName === node.metadata.name).length, "number"],
    ["CPU", (node) => node.status?.allocatable?.cpu ?? "–", "number"],
    ["Memory", (node) => bytes(quantity(node.status?.allocatable?.memory)), "number"],
    ["Address", (node) => h("span", { class: "code" }, addressOf(node))],
    ["Version", (node) => node.status?.nodeInfo?.kubeletVersion ?? "–"],
    ["Age", (node) => time(node.metadata.creationTimestamp), "number"],
  ];
  const shown = nodes.filter((node) => isWanted(node, addressOf(node))).sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  return [h("h1", { key: "title" }, "Nodes"), h("section", { class: "card", key: "nodes" }, table("Nodes", columns, shown, (node) => node.metadata.uid, "No node. One joins with: node run --server https://MASTER:6443 --token-file FILE"))];
}

function oneNode(node, tab) {
  const { metadata, status = {} } = node;
  const pods = use(PODS).items.filter((pod) => pod.spec.nodeName === metadata.name);
  const events = use(EVENTS).items.filter(({ involvedObject }) => involvedObject.kind === "Node" && involvedObject.name === metadata.name);
  const info = status.nodeInfo ?? {};
  return [
    h("header", { class: "head", key: "head" }, h("div", null, h("p", { class: "quiet" }, "Node"), h("h1", null, metadata.name, " ", badge(nodeHealth(node))))),
    h("div", { key: "tabs" }, tabs("Views of this node", [["Summary", to("nodes", metadata.name)], ["YAML", to("nodes", metadata.name, "yaml")]], tab === "yaml" ? "YAML" : "Summary")),
    tab === "yaml"
      ? yamlPanel(node, "Node", "/api/v1")
      : [
          section(
            "Facts",
            facts(
              ["Address", h("span", { class: "code" }, addressOf(node))],
              ["Pods' network", h("span", { class: "code" }, node.spec?.podCIDR ?? "none yet")],
              ["CPU", status.allocatable?.cpu ?? "–"],
              ["Memory", bytes(quantity(status.allocatable?.memory))],
              ["Most pods", status.allocatable?.pods ?? "–"],
              ["System", [info.osImage, info.kernelVersion, info.architecture].filter(Boolean).join(", ") || "–"],
              ["Age", time(metadata.creationTimestamp)],
              ["Labels", labels(metadata.labels)],
            ),
          ),
          section("Pods", podTable("Pods", pods, "None.")),
          conditions(node),
          section("Events", eventTable("Events", events, "None in the last hour.")),
        ],
  ];
}

function addressOf(node) {
  return node.status?.addresses?.find((it) => it.type === "InternalIP")?.address ?? "–";
}
