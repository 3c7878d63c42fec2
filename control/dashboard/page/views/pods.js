// All pods.

import { use } from "../collection.js";
import { h } from "../dom.js";
import { podHealth } from "../health.js";
import { PODS } from "../kinds.js";
import { podTable, unready } from "../parts.js";
import { isWanted, settings } from "../settings.js";

export function podsView() {
  const pods = use(PODS);
  const shown = pods.items.filter((pod) => isWanted(pod, pod.spec.nodeName, pod.status?.podIP, podHealth(pod).text));
  const nothing = settings.search || settings.namespace ? "No pod matches the namespace and the search." : "No pods yet. Make some with: ctl apply -f FILE";
  return [h("h1", { key: "title" }, "Pods"), h("section", { class: "card", key: "pods" }, unready(pods, "pods") ?? podTable("Pods", shown, nothing))];
}
