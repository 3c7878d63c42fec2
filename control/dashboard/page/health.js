// How objects are, in a word and a tone: good, busy (on its way), bad, off (at rest). Pods are told as in kubectl's STATUS column.

export function podHealth(pod) {
  const { status = {}, metadata, spec } = pod;
  if (metadata.deletionTimestamp) return { text: "Terminating", tone: "busy" };
  const inits = status.initContainerStatuses ?? [];
  const pending = inits.findIndex((it) => !(it.state?.terminated?.exitCode === 0 || (it.started && it.state?.running)));
  if (status.phase === "Pending" && pending >= 0) {
    const trouble = troubleOf(inits[pending]);
    return trouble ? { text: `Init:${trouble}`, tone: "bad" } : { text: `Init:${pending}/${spec.initContainers.length}`, tone: "busy" };
  }
  const containers = status.containerStatuses ?? [];
  const trouble = containers.map(troubleOf).find(Boolean);
  if (trouble && status.phase !== "Succeeded") return { text: trouble, tone: "bad" };
  const waiting = containers.map((it) => it.state?.waiting?.reason).find(Boolean);
  if (waiting) return { text: waiting, tone: "busy" };
  switch (status.phase) {
    case "Succeeded":
      return { text: "Completed", tone: "off" };
    case "Failed":
      return { text: status.reason ?? "Failed", tone: "bad" };
    case "Running":
      return isReady(pod) ? { text: "Running", tone: "good" } : { text: "Not ready", tone: "busy" };
    default:
      return isUnschedulable(pod) ? { text: "Unschedulable", tone: "bad" } : { text: status.reason ?? status.phase ?? "Pending", tone: "busy" };
  }
}

// Why a container does not run as it should; reasons on the way to running are none.
function troubleOf(container) {
  const { waiting, terminated } = container.state ?? {};
  if (waiting && !["ContainerCreating", "PodInitializing"].includes(waiting.reason)) return waiting.reason;
  if (terminated && terminated.exitCode !== 0) return terminated.reason ?? `Exit ${terminated.exitCode}`;
  return null;
}

export function condition(object, type) {
  return object.status?.conditions?.find((it) => it.type === type);
}

export function isReady(object) {
  return condition(object, "Ready")?.status === "True";
}

function isUnschedulable(pod) {
  const scheduled = condition(pod, "PodScheduled");
  return scheduled?.status === "False" && scheduled.reason === "Unschedulable";
}

export function readyContainers(pod) {
  const statuses = pod.status?.containerStatuses ?? [];
  return `${statuses.filter((it) => it.ready).length}/${pod.spec.containers.length}`;
}

export function restarts(pod) {
  return (pod.status?.containerStatuses ?? []).reduce((sum, it) => sum + it.restartCount, 0);
}

export function nodeHealth(node) {
  const ready = condition(node, "Ready");
  if (ready?.status !== "True") return { text: ready?.status === "False" ? "Not ready" : "Silent", tone: "bad" };
  const pressure = (node.status.conditions ?? []).find((it) => it.type !== "Ready" && it.status === "True");
  if (pressure) return { text: pressure.type, tone: "bad" };
  return node.spec?.unschedulable ? { text: "Cordoned", tone: "busy" } : { text: "Ready", tone: "good" };
}

// A workload's health, with how many of its pods are ready of how many that are wanted, where that means something.
export function workloadHealth(kind, object) {
  const health = WORKLOADS[kind.kind](object);
  return object.metadata.deletionTimestamp ? { ...health, text: "Terminating", tone: "busy" } : health;
}

const WORKLOADS = {
  Deployment({ metadata, spec, status = {} }) {
    const wanted = spec.replicas ?? 1;
    const ready = status.readyReplicas ?? 0;
    const progressing = status.conditions?.find((it) => it.type === "Progressing");
    if (progressing?.reason === "ProgressDeadlineExceeded") return { ready, wanted, text: "Stuck", tone: "bad" };
    if (spec.paused) return { ready, wanted, text: "Paused", tone: "off" };
    const settled = status.observedGeneration >= metadata.generation && (status.updatedReplicas ?? 0) === wanted && (status.replicas ?? 0) === wanted;
    return replicas(ready, wanted, settled);
  },
  StatefulSet({ metadata, spec, status = {} }) {
    const wanted = spec.replicas ?? 1;
    const settled = status.observedGeneration >= metadata.generation && status.currentRevision === status.updateRevision;
    return replicas(status.readyReplicas ?? 0, wanted, settled);
  },
  DaemonSet({ metadata, status = {} }) {
    const wanted = status.desiredNumberScheduled ?? 0;
    const settled = status.observedGeneration >= metadata.generation && (status.updatedNumberScheduled ?? 0) === wanted;
    return replicas(status.numberReady ?? 0, wanted, settled);
  },
  Job({ spec, status = {} }) {
    const wanted = spec.completions ?? 1;
    const ready = status.succeeded ?? 0;
    const is = (type) => status.conditions?.some((it) => it.type === type && it.status === "True");
    if (is("Complete")) return { ready, wanted, text: "Complete", tone: "off" };
    if (is("Failed")) return { ready, wanted, text: "Failed", tone: "bad" };
    return is("Suspended") ? { ready, wanted, text: "Suspended", tone: "off" } : { ready, wanted, text: "Running", tone: "busy" };
  },
  CronJob({ spec, status = {} }) {
    if (spec.suspend) return { text: "Suspended", tone: "off" };
    return status.active?.length ? { text: "Running", tone: "busy" } : { text: "Scheduled", tone: "good" };
  },
};

function replicas(ready, wanted, settled) {
  if (wanted === 0 && settled) return { ready, wanted, text: "Scaled to 0", tone: "off" };
  if (!settled) return { ready, wanted, text: "Rolling out", tone: "busy" };
  if (ready >= wanted) return { ready, wanted, text: "Healthy", tone: "good" };
  return ready === 0 ? { ready, wanted, text: "Down", tone: "bad" } : { ready, wanted, text: "Degraded", tone: "bad" };
}
