//! A pod's line: how many containers are ready, and in one word what it is doing.

use super::{AGE, Column, NAME, shown, text, wide};
use objects::Timestamp;
use serde_json::{Value, json};

/// The columns of pods.
pub const PODS: &[Column] = &[
    NAME,
    shown(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
        |pod, _| {
            let summary = summarize(pod);
            json!(format!("{}/{}", summary.ready, summary.total))
        },
    ),
    shown(
        "Status",
        "The aggregate status of the containers in this pod.",
        |pod, _| json!(summarize(pod).reason),
    ),
    shown(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        |pod, now| json!(summarize(pod).restarts(now)),
    ),
    AGE,
    wide("IP", "The pod's address.", |pod, _| {
        let first = text::at(pod, "/status/podIPs/0/ip");
        let address = if first.is_empty() {
            text::at(pod, "/status/podIP")
        } else {
            first
        };
        json!(text::or_none(address))
    }),
    wide("Node", "The node that runs the pod.", |pod, _| {
        json!(text::or_none(text::at(pod, "/spec/nodeName")))
    }),
    wide(
        "Nominated Node",
        "The node on which room is being made for the pod.",
        |pod, _| json!(text::or_none(text::at(pod, "/status/nominatedNodeName"))),
    ),
    wide(
        "Readiness Gates",
        "How many of the pod's own readiness gates are open.",
        |pod, _| json!(readiness_gates(pod)),
    ),
];

#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

#[derive(Clone, Default)]
struct Restarts {
    count: i64,
    last: String,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += text::number(status, "/restartCount");
        let finished = text::at(status, "/lastState/terminated/finishedAt");
        // RFC 3339 in UTC sorts as text.
        if finished > self.last.as_str() {
            self.last = finished.to_owned();
        }
    }
}

impl Summary {
    fn restarts(&self, now: Timestamp) -> String {
        let Restarts { count, last } = &self.restarts;
        if *count == 0 || last.is_empty() {
            return count.to_string();
        }
        format!("{count} ({} ago)", text::age_of(last, now))
    }
}

fn summarize(pod: &Value) -> Summary {
    let phase = text::at(pod, "/status/phase");
    let status_reason = text::at(pod, "/status/reason");
    let gated = condition(pod, "PodScheduled")
        .is_some_and(|condition| text::at(condition, "/reason") == "SchedulingGated");
    let reason = match (gated, status_reason) {
        (true, _) => "SchedulingGated",
        (false, "") => phase,
        (false, reason) => reason,
    };
    let mut summary = Summary {
        reason: reason.to_owned(),
        ..Summary::default()
    };
    let sidecars = sidecars(pod);
    summary.total = text::list(pod, "/spec/containers").len() + sidecars.len();
    let (initializing, sidecar_restarts) = summarize_init(pod, &sidecars, &mut summary);
    if !initializing || is_true(pod, "Initialized") {
        summary.restarts = sidecar_restarts;
        summarize_main(pod, &mut summary);
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        if status_reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// The names of init containers that go on running beside the others.
fn sidecars(pod: &Value) -> Vec<&str> {
    text::list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text::at(container, "/restartPolicy") == "Always")
        .map(|container| text::at(container, "/name"))
        .collect()
}

/// Looks at the init containers up to the first that is not done; says whether there is one, and how often sidecars restarted.
fn summarize_init(pod: &Value, sidecars: &[&str], summary: &mut Summary) -> (bool, Restarts) {
    let mut sidecar_restarts = Restarts::default();
    let total = text::list(pod, "/spec/initContainers").len();
    for (index, status) in text::list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        summary.restarts.add(status);
        let is_sidecar = sidecars.contains(&text::at(status, "/name"));
        if is_sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = status.pointer("/state/terminated");
        let waiting = text::at(status, "/state/waiting/reason");
        let started = status.get("started") == Some(&Value::Bool(true));
        match terminated {
            Some(ended) if text::number(ended, "/exitCode") == 0 => continue,
            _ if is_sidecar && started => {
                summary.ready += usize::from(is_ready(status));
                continue;
            }
            Some(ended) => summary.reason = format!("Init:{}", end_reason(ended)),
            None if !matches!(waiting, "" | "PodInitializing") => {
                summary.reason = format!("Init:{waiting}");
            }
            None => summary.reason = format!("Init:{index}/{total}"),
        }
        return (true, sidecar_restarts);
    }
    (false, sidecar_restarts)
}

fn summarize_main(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in text::list(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts.add(status);
        let waiting = text::at(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(ended) = status.pointer("/state/terminated") {
            summary.reason = end_reason(ended);
        } else if is_ready(status) && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if is_true(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}

fn end_reason(ended: &Value) -> String {
    match (text::at(ended, "/reason"), text::number(ended, "/signal")) {
        ("", 0) => format!("ExitCode:{}", text::number(ended, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = text::list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return text::NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(pod, text::at(gate, "/conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    text::list(pod, "/status/conditions")
        .iter()
        .find(|condition| text::at(condition, "/type") == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| text::at(condition, "/status") == "True")
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pod: Value) -> String {
        let now = Timestamp::parse("2026-01-01T01:00:00Z").expect("a time");
        let summary = summarize(&pod);
        format!(
            "{}/{} {} {}",
            summary.ready,
            summary.total,
            summary.reason,
            summary.restarts(now)
        )
    }

    fn pod(status: Value) -> Value {
        json!({"spec": {"containers": [{}, {}], "initContainers": [{"name": "i"}]}, "status": status})
    }

    #[test]
    fn one_word_says_what_a_pod_does() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let crashing = json!({
            "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}},
        });
        let cases = [
            (json!({"phase": "Pending"}), "0/2 Pending 0"),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                "0/2 Evicted 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, running]}),
                "2/2 Running 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, crashing]}),
                "1/2 CrashLoopBackOff 3 (60s ago)",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, done]}),
                "1/2 NotReady 0",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [done, done]}),
                "0/2 Completed 0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}),
                "0/2 Init:0/1 0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"restartCount": 1, "state": {"terminated": {"exitCode": 2}}}]}),
                "0/2 Init:ExitCode:2 1",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                "0/2 Init:ErrImagePull 0",
            ),
        ];
        for (status, expected) in cases {
            assert_eq!(line(pod(status)), expected);
        }
        let mut ending = pod(json!({"phase": "Running"}));
        ending["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(line(ending), "0/2 Terminating 0");
    }
}
