//! The conditions of a pod, with the reasons and messages that the kubelet gives.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::Timestamp;

/// What conditions are made from.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The pod's phase.
    pub phase: String,
    /// Whether sandbox and network are there.
    pub sandbox: bool,
    /// Init containers that have not done their part.
    pub uninitialized: Vec<String>,
    /// Whether the pod may still be initialising: false once a main container was seen.
    pub past_init: bool,
    /// Containers that are not ready.
    pub unready: Vec<String>,
    /// `readinessGates`: the types of further conditions that must be true.
    pub gates: Vec<String>,
}

/// The conditions that the node keeps. Those that stay as they were keep their time.
pub fn conditions(
    facts: &Facts,
    before: Option<&PodStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old: &[PodCondition] = before
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or(&[]);
    let containers = containers_ready(facts);
    let ready = ready(facts, &containers, old);
    let wanted = [
        ("PodReadyToStartContainers", verdict(facts.sandbox)),
        ("Initialized", initialized(facts)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", verdict(true)),
    ];
    wanted
        .into_iter()
        .map(|(kind, verdict)| condition(kind, verdict, old, generation, now))
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub met: bool,
    pub reason: Option<&'static str>,
    pub message: Option<String>,
}

fn verdict(met: bool) -> Verdict {
    Verdict {
        met,
        reason: None,
        message: None,
    }
}

fn because(met: bool, reason: &'static str, message: Option<String>) -> Verdict {
    Verdict {
        met,
        reason: Some(reason),
        message,
    }
}

fn initialized(facts: &Facts) -> Verdict {
    if facts.phase == "Succeeded" {
        return because(true, "PodCompleted", None);
    }
    if facts.uninitialized.is_empty() || facts.past_init {
        return verdict(true);
    }
    let message = format!(
        "containers with incomplete status: [{}]",
        facts.uninitialized.join(" ")
    );
    because(false, "ContainersNotInitialized", Some(message))
}

fn containers_ready(facts: &Facts) -> Verdict {
    match facts.phase.as_str() {
        "Succeeded" => because(false, "PodCompleted", None),
        "Failed" => because(false, "PodFailed", None),
        _ if facts.unready.is_empty() => verdict(true),
        _ => because(
            false,
            "ContainersNotReady",
            Some(format!(
                "containers with unready status: [{}]",
                facts.unready.join(" ")
            )),
        ),
    }
}

fn ready(facts: &Facts, containers: &Verdict, old: &[PodCondition]) -> Verdict {
    if !containers.met {
        return containers.clone();
    }
    let is_true = |gate: &String| {
        old.iter()
            .any(|condition| &condition.type_ == gate && condition.status == "True")
    };
    let unmet: Vec<String> = facts
        .gates
        .iter()
        .filter(|gate| !is_true(gate))
        .map(|gate| {
            format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")
        })
        .collect();
    if unmet.is_empty() {
        return verdict(true);
    }
    because(false, "ReadinessGatesNotReady", Some(unmet.join(", ")))
}

/// That the node ended the pod.
pub(crate) fn disrupted(
    message: &str,
    before: Option<&PodStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let old = before.and_then(|status| status.conditions.as_deref());
    let verdict = because(true, "TerminationByKubelet", Some(message.to_owned()));
    condition(
        "DisruptionTarget",
        verdict,
        old.unwrap_or(&[]),
        generation,
        now,
    )
}

pub(crate) fn condition(
    kind: &str,
    verdict: Verdict,
    old: &[PodCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.met { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == kind);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(since.unwrap_or_else(|| whole_seconds(now))),
        last_probe_time: None,
        observed_generation: generation,
    }
}

/// A time as it is written, so that what was written compares equal to what is meant.
pub(crate) fn whole_seconds(time: Timestamp) -> Time {
    let second = time.0.as_second();
    Time(Timestamp::from_unix(second).0)
}
