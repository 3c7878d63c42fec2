// The kinds of workload that the dashboard shows: where they are, what can be done with them, and whose their pods are.

export const KINDS = [
  { kind: "Deployment", plural: "deployments", api: "/apis/apps/v1", scales: true, restarts: true },
  { kind: "StatefulSet", plural: "statefulsets", api: "/apis/apps/v1", scales: true, restarts: true },
  { kind: "DaemonSet", plural: "daemonsets", api: "/apis/apps/v1", scales: false, restarts: true },
  { kind: "Job", plural: "jobs", api: "/apis/batch/v1", scales: false, restarts: false },
  { kind: "CronJob", plural: "cronjobs", api: "/apis/batch/v1", scales: false, restarts: false },
];

export const PODS = "/api/v1/pods";
export const NODES = "/api/v1/nodes";
export const NAMESPACES = "/api/v1/namespaces";
export const EVENTS = "/api/v1/events";

// Whether the objects of a collection lie in namespaces.
export function isNamespaced(path) {
  return path !== NODES && path !== NAMESPACES;
}

// The part of a collection that lies in one namespace.
export function within(path, namespace) {
  const at = path.lastIndexOf("/");
  return `${path.slice(0, at)}/namespaces/${encodeURIComponent(namespace)}${path.slice(at)}`;
}

export function collectionPath(kind) {
  return `${kind.api}/${kind.plural}`;
}

export function objectPath(kind, namespace, name) {
  return `${kind.api}/namespaces/${encodeURIComponent(namespace)}/${kind.plural}/${encodeURIComponent(name)}`;
}

export function podPath(namespace, name) {
  return `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`;
}

export function kindOf(plural) {
  return KINDS.find((kind) => kind.plural === plural);
}

// The pods of a workload: those that its selector selects; a CronJob's are those of its Jobs.
export function podsOf(kind, object, pods, jobs = []) {
  if (kind.kind === "CronJob") {
    const own = jobs.filter((job) => isOwnedBy(job, object));
    return pods.filter((pod) => own.some((job) => isOwnedBy(pod, job)));
  }
  if (kind.kind === "Job") return pods.filter((pod) => isOwnedBy(pod, object));
  const { namespace } = object.metadata;
  return pods.filter((pod) => pod.metadata.namespace === namespace && selects(object.spec.selector, pod.metadata.labels ?? {}));
}

function isOwnedBy(object, owner) {
  return (object.metadata.ownerReferences ?? []).some((reference) => reference.uid === owner.metadata.uid);
}

// A label selector as Kubernetes reads it; one that says nothing selects nothing here.
export function selects(selector, labels) {
  const exact = Object.entries(selector?.matchLabels ?? {});
  const rules = selector?.matchExpressions ?? [];
  if (exact.length + rules.length === 0) return false;
  return exact.every(([key, value]) => labels[key] === value) && rules.every((rule) => holds(rule, labels));
}

function holds({ key, operator, values = [] }, labels) {
  const has = Object.hasOwn(labels, key);
  switch (operator) {
    case "In":
      return has && values.includes(labels[key]);
    case "NotIn":
      return !has || !values.includes(labels[key]);
    case "Exists":
      return has;
    default:
      return !has;
  }
}
