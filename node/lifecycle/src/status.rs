//! The pod's status from what is known of it. The same knowledge gives the same status, down to the times.

use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, PodIP, PodStatus,
};
use objects::Timestamp;
use serde_json::{Map, Value, json};

use crate::conditions::{self, whole_seconds};
use crate::desired::{Desired, Role};
use crate::observed::{ContainerState, Exit, Observed, Sandbox};
use crate::record::Record;
use crate::resize;
use crate::resources::{self, Applied};

/// Names the runtime before a container's id.
const RUNTIME: &str = "libcontainer";

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub reason: String,
    pub message: Option<String>,
}

impl Waiting {
    pub fn new(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: None,
        }
    }
}

/// A container with what the step decided of it.
#[derive(Clone, Debug)]
pub(crate) struct Judged<'a> {
    pub record: Record<'a>,
    pub waiting: Option<Waiting>,
    pub started: bool,
    pub ready: bool,
}

/// How the pod ends, where that is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// All containers ended for good: the phase is `Succeeded` or `Failed`.
    pub over: bool,
    /// `DeadlineExceeded` and the like: the phase is `Failed`.
    pub failed: Option<(&'static str, String)>,
    /// The node ends it, for its own sake.
    pub by_node: bool,
}

/// The status.
pub(crate) fn status(
    desired: &Desired,
    observed: &Observed,
    judged: &[Judged<'_>],
    ending: &Ending,
    now: Timestamp,
) -> PodStatus {
    let before = desired.status();
    let generation = desired.metadata().generation;
    let phase = phase(judged, ending);
    let facts = facts(desired, observed, judged, &phase);
    let mut conditions = conditions::conditions(&facts, before, generation, now);
    if let Some((_, message)) = ending.failed.as_ref().filter(|_| ending.by_node) {
        conditions.push(conditions::disrupted(message, before, generation, now));
    }
    if ending == &Ending::default() {
        conditions.extend(resize::conditions(desired, observed, now));
    }
    let of = |is_wanted: fn(Role) -> bool| -> Option<Vec<ContainerStatus>> {
        let wanted = judged
            .iter()
            .filter(|judged| is_wanted(judged.record.view.role));
        let statuses: Vec<ContainerStatus> = wanted.map(container_status).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    let host_ip = Some(observed.host_ip.clone()).filter(|ip| !ip.is_empty());
    let pod_ip = observed
        .pod_ip
        .clone()
        .or_else(|| before.and_then(|before| before.pod_ip.clone()));
    let kept = before.filter(|before| before.phase.as_deref() == Some("Failed"));
    PodStatus {
        conditions: Some(conditions),
        reason: ending
            .failed
            .as_ref()
            .map(|(reason, _)| (*reason).to_owned())
            .or_else(|| kept.and_then(|before| before.reason.clone())),
        message: ending
            .failed
            .as_ref()
            .map(|(_, message)| message.clone())
            .or_else(|| kept.and_then(|before| before.message.clone())),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: Some(
            before
                .and_then(|before| before.start_time.clone())
                .unwrap_or_else(|| whole_seconds(now)),
        ),
        init_container_statuses: of(Role::is_initial),
        container_statuses: of(|role| role == Role::Main),
        ephemeral_container_statuses: of(|role| role == Role::Ephemeral),
        qos_class: Some(resources::qos_class(desired.spec()).as_str().to_owned()),
        observed_generation: generation,
        phase: Some(phase),
        ..PodStatus::default()
    }
}

fn facts(
    desired: &Desired,
    observed: &Observed,
    judged: &[Judged<'_>],
    phase: &str,
) -> conditions::Facts {
    let name = |judged: &Judged<'_>| judged.record.view.name().to_owned();
    let initialized = |judged: &Judged<'_>| match judged.record.view.role {
        Role::Init => judged.record.exit().is_some_and(|exit| exit.code == 0),
        Role::Sidecar => judged.started,
        Role::Main | Role::Ephemeral => true,
    };
    // A sidecar counts for readiness as a main container does.
    let counted =
        |judged: &&Judged<'_>| matches!(judged.record.view.role, Role::Main | Role::Sidecar);
    conditions::Facts {
        phase: phase.to_owned(),
        sandbox: matches!(observed.sandbox, Sandbox::Ready { .. }),
        uninitialized: judged
            .iter()
            .filter(|judged| !initialized(judged))
            .map(name)
            .collect(),
        past_init: judged
            .iter()
            .any(|judged| judged.record.view.role == Role::Main && judged.record.is_here),
        unready: judged
            .iter()
            .filter(counted)
            .filter(|judged| !judged.ready)
            .map(name)
            .collect(),
        gates: desired
            .spec()
            .readiness_gates
            .iter()
            .flatten()
            .map(|gate| gate.condition_type.clone())
            .collect(),
    }
}

/// As the kubelet finds it from the containers' states.
fn phase(judged: &[Judged<'_>], ending: &Ending) -> String {
    let main = || {
        judged
            .iter()
            .filter(|judged| judged.record.view.role == Role::Main)
    };
    let init_failed = judged.iter().any(|judged| {
        judged.record.view.role == Role::Init
            && judged.record.is_done()
            && judged.record.exit().is_some_and(|exit| exit.code != 0)
    });
    let succeeded = || main().all(|judged| judged.record.exit().is_some_and(|exit| exit.code == 0));
    let phase = if ending.failed.is_some() || init_failed {
        "Failed"
    } else if ending.over {
        if succeeded() { "Succeeded" } else { "Failed" }
    } else if main().all(|judged| judged.record.current.is_some()) {
        match (main().all(|judged| judged.record.is_done()), succeeded()) {
            (true, true) => "Succeeded",
            (true, false) => "Failed",
            (false, _) => "Running",
        }
    } else {
        "Pending"
    };
    phase.to_owned()
}

fn container_status(judged: &Judged<'_>) -> ContainerStatus {
    let record = &judged.record;
    let current = record.current.as_ref();
    let id = current
        .map(|container| container.id.as_str())
        .unwrap_or_default();
    let previous = || {
        record
            .previous
            .as_ref()
            .map(|(exit, id)| terminated(exit, id))
    };
    let (state, last_state) = match (&judged.waiting, current.map(|container| &container.state)) {
        (Some(waiting), current) => {
            let last = match current {
                Some(ContainerState::Exited(exit)) => Some(terminated(exit, id)),
                _ => previous(),
            };
            (waiting_state(waiting), last)
        }
        (None, Some(ContainerState::Running { started_at })) => (running(*started_at), previous()),
        (None, Some(ContainerState::Exited(exit))) => (terminated(exit, id), previous()),
        (None, Some(ContainerState::Created) | None) => (
            waiting_state(&Waiting::new("ContainerCreating")),
            previous(),
        ),
    };
    let init_done =
        record.view.role == Role::Init && record.exit().is_some_and(|exit| exit.code == 0);
    ContainerStatus {
        name: record.view.name().to_owned(),
        container_id: Some(id)
            .filter(|id| !id.is_empty())
            .map(|id| format!("{RUNTIME}://{id}")),
        image: record.view.image().to_owned(),
        image_id: current
            .map(|container| container.image_id.clone())
            .unwrap_or_default(),
        ready: match record.view.role {
            Role::Init => init_done,
            Role::Ephemeral => false,
            Role::Main | Role::Sidecar => judged.ready,
        },
        allocated_resources: current
            .and_then(|container| container.resources.as_ref())
            .and_then(|applied| applied.to_api().requests),
        resources: current
            .and_then(|container| container.resources.as_ref())
            .map(Applied::to_api),
        started: Some(judged.started),
        restart_count: i32::try_from(record.restarts()).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn waiting_state(waiting: &Waiting) -> ApiState {
    let waiting = ContainerStateWaiting {
        reason: Some(waiting.reason.clone()),
        message: waiting.message.clone(),
    };
    ApiState {
        waiting: Some(waiting),
        ..ApiState::default()
    }
}

fn running(started_at: Timestamp) -> ApiState {
    ApiState {
        running: Some(ContainerStateRunning {
            started_at: Some(whole_seconds(started_at)),
        }),
        ..ApiState::default()
    }
}

fn terminated(exit: &Exit, id: &str) -> ApiState {
    let terminated = ContainerStateTerminated {
        exit_code: exit.code,
        signal: Some(exit.signal).filter(|signal| *signal != 0),
        reason: Some(exit.reason.clone()),
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        started_at: exit.started_at.map(whole_seconds),
        finished_at: Some(whole_seconds(exit.finished_at)),
        container_id: Some(id)
            .filter(|id| !id.is_empty())
            .map(|id| format!("{RUNTIME}://{id}")),
    };
    ApiState {
        terminated: Some(terminated),
        ..ApiState::default()
    }
}

/// The strategic merge patch of `/status` that makes `before` say what `wanted` says; none if it does. Conditions of
/// others stay.
pub fn status_patch(before: Option<&PodStatus>, wanted: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (before, mut wanted) = (before.map(object).unwrap_or_default(), object(wanted));
    for cleared in ["reason", "message"] {
        if before.contains_key(cleared) && !wanted.contains_key(cleared) {
            wanted.insert(cleared.to_owned(), Value::Null);
        }
    }
    wanted.retain(|field, value| match (field.as_str(), before.get(field)) {
        ("conditions", Some(Value::Array(old))) => {
            let new = value.as_array_mut().map(std::mem::take).unwrap_or_default();
            let kind = |kind: &&str, all: &[Value]| all.iter().any(|one| one["type"] == *kind);
            let gone = resize::CONDITIONS
                .iter()
                .filter(|gone| kind(gone, old) && !kind(gone, &new))
                .map(|gone| json!({ "type": gone, "$patch": "delete" }))
                .collect::<Vec<_>>();
            *value = new
                .into_iter()
                .filter(|condition| !old.contains(condition))
                .map(|condition| cleared(condition, old))
                .chain(gone)
                .collect();
            value.as_array().is_some_and(|changed| !changed.is_empty())
        }
        (_, old) => old.unwrap_or(&Value::Null) != value,
    });
    (!wanted.is_empty()).then(|| json!({ "status": wanted }))
}

/// A changed condition, with a null for what the old one said and the new one does not: merging would keep it.
fn cleared(mut condition: Value, old: &[Value]) -> Value {
    let before = old
        .iter()
        .find(|before| before["type"] == condition["type"]);
    for field in ["reason", "message"] {
        if before.is_some_and(|before| before.get(field).is_some_and(|value| !value.is_null()))
            && condition.get(field).is_none()
        {
            condition[field] = Value::Null;
        }
    }
    condition
}
