//! A node that does at once what a step says, and whose containers do what a story says.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use lifecycle::resources::Applied;
use lifecycle::{
    Action, Container, ContainerState, Desired, Exit, Observed, ProbeKind, Pull, PullState,
    Sandbox, StartFailure, Step, Volumes, allocated, status_patch, step,
};
use objects::Timestamp;
use serde_json::{Value, json};

/// Steps until rest; more would mean that two of them undo each other.
const STEPS_MAX: usize = 40;

/// The node, the API and the clock.
pub struct World {
    pub pod: Value,
    pub observed: Observed,
    pub now: Timestamp,
    pub deleted: bool,
    pub failing_probes: BTreeSet<(String, ProbeKind)>,
    pub failing_pulls: BTreeMap<String, String>,
    pub broken_config: BTreeMap<String, String>,
    pub broken_volumes: Option<String>,
    pub stubborn: BTreeSet<String>,
    pull_failures: u32,
}

impl World {
    pub fn new(pod: Value) -> Self {
        let mut pod = pod;
        let metadata = pod["metadata"].as_object_mut().expect("a pod has metadata");
        metadata.entry("uid").or_insert_with(|| "u1".into());
        metadata
            .entry("namespace")
            .or_insert_with(|| "default".into());
        let observed = Observed {
            host_ip: "192.0.2.1".into(),
            images_present: vec!["busybox:1".into()],
            ..Observed::default()
        };
        Self {
            pod,
            observed,
            now: Timestamp::from_unix(1_800_000_000),
            deleted: false,
            failing_probes: BTreeSet::new(),
            failing_pulls: BTreeMap::new(),
            broken_config: BTreeMap::new(),
            broken_volumes: None,
            stubborn: BTreeSet::new(),
            pull_failures: 0,
        }
    }

    pub fn desired(&self) -> Desired {
        Desired::parse(self.pod.clone()).expect("the story's pod can be read")
    }

    pub fn status(&self) -> Option<PodStatus> {
        self.desired().status().cloned()
    }

    /// Steps until nothing is left to do now; gives what was done and when to look again.
    pub fn settle(&mut self) -> (Vec<String>, Option<Timestamp>) {
        let mut done = vec![];
        for _ in 0..STEPS_MAX {
            if self.deleted {
                return (done, None);
            }
            let Step {
                actions,
                status,
                wake_at,
            } = step(&self.desired(), &self.observed, self.now);
            let told = status.is_some_and(|status| self.tell(&status));
            if actions.is_empty() && !told {
                return (done, wake_at);
            }
            for action in actions {
                done.push(action.to_string());
                self.execute(action);
            }
        }
        panic!("no rest after {STEPS_MAX} steps: {done:#?}");
    }

    /// Writes the status as the API would; true when it was another.
    fn tell(&mut self, status: &PodStatus) -> bool {
        let before = self.status();
        let Some(patch) = status_patch(before.as_ref(), status) else {
            return false;
        };
        merge(&mut self.pod["status"], &patch["status"]);
        assert_eq!(
            status_patch(self.status().as_ref(), status),
            None,
            "what was written is not what was meant"
        );
        true
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::CreateSandbox => {
                self.observed.sandbox = Sandbox::Ready { since: self.now };
                self.observed.pod_ip = Some("10.244.0.2".into());
            }
            Action::MountVolumes => {
                let retry_at = self.now.plus(Duration::from_secs(10));
                self.observed.volumes = match &self.broken_volumes {
                    Some(message) => Volumes::Failed {
                        message: message.clone(),
                        retry_at,
                    },
                    None => Volumes::Ready,
                };
            }
            Action::Pull {
                container,
                image,
                attempt,
            } => self.pull(container, image, attempt),
            Action::Start {
                container,
                attempt,
                level,
            } => self.start(&container, attempt, level),
            Action::Stop {
                container,
                id,
                grace_s,
                ..
            } => {
                let until = self.now.plus(Duration::from_secs(grace_s.into()));
                if let Some(found) = self.container(&id) {
                    found.stopping_until = Some(until);
                }
                if !self.stubborn.contains(&container) {
                    self.exit(&container, 143);
                }
            }
            Action::Resize { container, id } => {
                let desired = self.desired();
                let view = desired.container(&container).expect("is in the pod");
                let wanted = Applied::of(view.spec);
                self.container(&id).expect("what is resized runs").resources = Some(wanted);
            }
            Action::Probe {
                container,
                id,
                kind,
            } => {
                let desired = self.desired();
                let view = desired
                    .container(&container)
                    .expect("the probed container is in the pod");
                let success = !self.failing_probes.contains(&(container.clone(), kind));
                let probe = kind.of(view.spec).expect("the container has the probe");
                self.observed
                    .probes
                    .entry((id, kind))
                    .or_default()
                    .record(probe, success, self.now);
            }
            Action::RemoveContainer { id } => self
                .observed
                .containers
                .retain(|container| container.id != id),
            Action::RemoveSandbox => {
                assert!(
                    !self.observed.is_any_alive(),
                    "a sandbox was removed with containers alive"
                );
                self.forget_agent();
                self.observed.sandbox = Sandbox::Absent;
                self.observed.volumes = Volumes::Unmounted;
                self.observed.containers.clear();
            }
            Action::DeleteFromApi => self.deleted = true,
        }
    }

    fn pull(&mut self, container: String, image: String, attempt: u32) {
        let state = match self.failing_pulls.get(&container) {
            Some(message) => {
                self.pull_failures += 1;
                let failures = self.pull_failures;
                PullState::Failed {
                    reason: "ErrImagePull".into(),
                    message: message.clone(),
                    at: self.now,
                    failures,
                }
            }
            None => {
                self.observed.images_present.push(image.clone());
                self.pull_failures = 0;
                PullState::Done
            }
        };
        self.observed.pulls.insert(
            container,
            Pull {
                attempt,
                image,
                state,
            },
        );
    }

    fn start(&mut self, name: &str, attempt: u32, level: u32) {
        if let Some(message) = self.broken_config.get(name) {
            let retry_at = self.now.plus(Duration::from_secs(10));
            let failure = StartFailure {
                reason: "CreateContainerConfigError".into(),
                message: message.clone(),
                retry_at,
            };
            self.observed.start_failures.insert(name.into(), failure);
            return;
        }
        self.observed.start_failures.remove(name);
        let alive = self.observed.containers.iter().any(|container| {
            container.name == name && !matches!(container.state, ContainerState::Exited(_))
        });
        assert!(!alive, "{name} was started beside itself");
        let desired = self.desired();
        let view = desired
            .container(name)
            .expect("what is started is in the pod");
        let image = view.image().to_owned();
        let resources =
            allocated(&desired, &self.observed, name).unwrap_or_else(|| Applied::of(view.spec));
        self.observed.containers.push(Container {
            name: name.into(),
            id: format!("{name}-{attempt}"),
            attempt,
            level,
            image: image.clone(),
            image_id: format!("{image}@sha256:0"),
            state: ContainerState::Running {
                started_at: self.now,
            },
            stopping_until: None,
            resources: Some(resources),
        });
    }

    fn container(&mut self, id: &str) -> Option<&mut Container> {
        self.observed
            .containers
            .iter_mut()
            .find(|container| container.id == id)
    }

    /// Ends the running container of a name.
    pub fn exit(&mut self, name: &str, code: i32) {
        let now = self.now;
        for container in self
            .observed
            .containers
            .iter_mut()
            .filter(|container| container.name == name)
        {
            if let ContainerState::Running { started_at } = container.state {
                let reason = if code == 0 { "Completed" } else { "Error" };
                container.state = ContainerState::Exited(Exit {
                    code,
                    signal: 0,
                    reason: reason.into(),
                    message: String::new(),
                    started_at: Some(started_at),
                    finished_at: now,
                });
            }
        }
    }

    /// What a new agent does not know.
    pub fn forget_agent(&mut self) {
        self.observed.pulls.clear();
        self.observed.start_failures.clear();
        self.observed.probes.clear();
        for container in &mut self.observed.containers {
            container.stopping_until = None;
        }
    }

    /// All processes of the pod are gone, as after the machine's restart.
    pub fn lose_sandbox(&mut self) {
        let names: Vec<String> = self
            .observed
            .containers
            .iter()
            .map(|container| container.name.clone())
            .collect();
        for name in names {
            self.exit(&name, 137);
        }
        if self.observed.has_sandbox() {
            self.observed.sandbox = Sandbox::Lost;
        }
    }

    pub fn delete(&mut self, grace_s: i64) {
        self.pod["metadata"]["deletionTimestamp"] = self
            .now
            .plus(Duration::from_secs(grace_s.unsigned_abs()))
            .to_string()
            .into();
        self.pod["metadata"]["deletionGracePeriodSeconds"] = grace_s.into();
    }

    /// The status as a story shows it.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let Some(status) = self.status() else {
            return "no status\n".into();
        };
        let condition = |kind: &str| {
            let found = status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == kind);
            found.map_or("-".to_owned(), |found| match &found.reason {
                Some(reason) => format!("{} ({reason})", found.status),
                None => found.status.clone(),
            })
        };
        let reason = status
            .reason
            .as_ref()
            .map(|reason| format!(" {reason}"))
            .unwrap_or_default();
        let phase = status.phase.clone().unwrap_or_default();
        writeln!(
            text,
            "{phase}{reason}, initialized {}, ready {}",
            condition("Initialized"),
            condition("Ready")
        )
        .expect("a string takes it");
        for kind in ["PodResizePending", "PodResizeInProgress"] {
            let found = status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == kind);
            if let Some(found) = found {
                let words =
                    [&found.reason, &found.message].map(|it| it.clone().unwrap_or_default());
                writeln!(text, "  {kind}: {}", words.join(" ")).expect("a string takes it");
            }
        }
        for container in status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .flatten()
        {
            writeln!(text, "  {}", line(container)).expect("a string takes it");
        }
        text
    }

    /// How often each container was restarted, as the API says.
    pub fn restarts(&self) -> BTreeMap<String, i32> {
        let status = self.status().unwrap_or_default();
        let all = status
            .init_container_statuses
            .into_iter()
            .chain(status.container_statuses)
            .flatten();
        all.map(|container| (container.name, container.restart_count))
            .collect()
    }
}

fn line(container: &ContainerStatus) -> String {
    let state = container.state.clone().unwrap_or_default();
    let state = match (state.running, state.waiting, state.terminated) {
        (Some(_), _, _) => "running".to_owned(),
        (_, Some(waiting), _) => {
            let message = waiting
                .message
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            format!("waiting {}{message}", waiting.reason.unwrap_or_default())
        }
        (_, _, Some(ended)) => format!(
            "ended {} {}",
            ended.exit_code,
            ended.reason.unwrap_or_default()
        ),
        _ => "?".to_owned(),
    };
    let last = container
        .last_state
        .clone()
        .and_then(|last| last.terminated);
    let last = last
        .map(|last| {
            format!(
                ", before {} {}",
                last.exit_code,
                last.reason.unwrap_or_default()
            )
        })
        .unwrap_or_default();
    let ready = if container.ready { " ready" } else { "" };
    let limits = container.resources.clone().and_then(|it| it.limits);
    let limits: Vec<String> = limits
        .unwrap_or_default()
        .into_iter()
        .map(|(name, amount)| format!(", {name} {}", amount.0))
        .collect();
    let limits = limits.concat();
    format!(
        "{}{ready} restarts {}: {state}{last}{limits}",
        container.name, container.restart_count
    )
}

/// As a strategic merge does with a status: conditions by their type, all else replaced or removed.
fn merge(status: &mut Value, patch: &Value) {
    if status.is_null() {
        *status = json!({});
    }
    for (field, value) in patch.as_object().expect("a status patch is an object") {
        match field.as_str() {
            "conditions" => merge_conditions(&mut status["conditions"], value),
            _ if value.is_null() => drop(
                status
                    .as_object_mut()
                    .and_then(|status| status.remove(field)),
            ),
            _ => status[field] = value.clone(),
        }
    }
}

fn merge_conditions(present: &mut Value, changes: &Value) {
    if present.is_null() {
        *present = json!([]);
    }
    let present = present.as_array_mut().expect("conditions are a list");
    for change in changes.as_array().into_iter().flatten() {
        let index = present
            .iter()
            .position(|condition| condition["type"] == change["type"]);
        if change["$patch"] == "delete" {
            if let Some(index) = index {
                present.remove(index);
            }
            continue;
        }
        let mut merged = index.map_or(json!({}), |index| present[index].clone());
        for (field, value) in change.as_object().into_iter().flatten() {
            match value {
                Value::Null => drop(
                    merged
                        .as_object_mut()
                        .and_then(|merged| merged.remove(field)),
                ),
                value => merged[field] = value.clone(),
            }
        }
        match index {
            Some(index) => present[index] = merged,
            None => present.push(merged),
        }
    }
}
