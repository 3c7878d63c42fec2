//! One pod's worker: look, decide, act, tell; then sleep until something happens or is due.
//!
//! Nothing is queued for it but the answers of its own tasks: what is wanted is a value that it looks at, so that a slow
//! worker never holds up the watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::{Deadline, Payload};
use http::Method;
use lifecycle::{Action, Desired, Observed, ProbeKind, PullState, Step};
use objects::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use super::known::Probe;
use super::observe::{Local, observe};
use super::{end, spec, volumes};
use crate::clock;
use crate::context::Context;
use crate::events::Subject;

/// Answers that wait.
const ANSWERS_MAX: usize = 32;
/// Steps that follow one another without a pause; more would mean that two of them undo each other.
const STEPS_MAX: usize = 20;
const STATUS_DEADLINE: Deadline = Deadline(Duration::from_secs(5));
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// Files from the API are brought up to date so often.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Without any event a worker looks this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What the API wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The pod.
    pub desired: Arc<Desired>,
    /// Its object is gone.
    pub removed: bool,
}

/// What a worker's own tasks tell it.
#[derive(Debug)]
pub enum Answer {
    /// A pull ended.
    Pulled {
        /// The container.
        container: String,
        /// For which start.
        attempt: u32,
        /// Reason and message of a failure.
        result: Result<(), (String, String)>,
    },
    /// A probe was answered.
    Probed {
        /// The container.
        container: String,
        /// Its id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// What it said when it failed.
        result: Result<(), String>,
    },
    /// A container was stopped, or could not be.
    Stopped {
        /// Its id.
        id: String,
    },
}

/// A worker.
pub struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) desired: Arc<Desired>,
    pub(super) removed: bool,
    pub(super) subject: Subject,
    pub(super) local: Local,
    pub(super) answers: mpsc::Sender<Answer>,
    pub(super) retry_at: Option<Timestamp>,
    pub(super) finished: bool,
    /// Containers whose back-off was told by an event.
    backing_off: BTreeSet<(String, u32)>,
    refresh_at: Timestamp,
}

/// Runs until the pod is gone from node and API.
pub async fn run(context: Arc<Context>, mut wanted: watch::Receiver<Wanted>, poke: Arc<Notify>) {
    let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
    let Wanted { desired, removed } = wanted.borrow_and_update().clone();
    let subject = Subject {
        namespace: desired.namespace.clone(),
        name: desired.name.clone(),
        uid: desired.uid.clone(),
    };
    let mut worker = Worker {
        context,
        desired,
        removed,
        subject,
        local: Local::default(),
        answers,
        retry_at: None,
        finished: false,
        backing_off: BTreeSet::new(),
        refresh_at: clock::now().plus(REFRESH_EVERY),
    };
    worker.adopt(wanted.borrow().clone());
    while !worker.finished {
        let wake_at = worker.settle().await;
        if worker.finished {
            break;
        }
        let pause = wake_at.map_or(LOOK_EVERY, |wake_at| {
            wake_at.since(clock::now()).min(LOOK_EVERY)
        });
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => { let now = wanted.borrow_and_update().clone(); worker.adopt(now); }
                Err(_) => return,
            },
            Some(answer) = answered.recv() => {
                worker.answer(answer);
                while let Ok(answer) = answered.try_recv() {
                    worker.answer(answer);
                }
            }
            () = poke.notified() => {}
            () = tokio::time::sleep(pause + Duration::from_millis(1)) => {}
        }
    }
    worker.leave_nothing().await;
    worker.context.tokens.forget(&worker.subject.uid);
    end::forget_files(&worker.context, &worker.subject).await;
}

impl Worker {
    /// A former agent may have been killed when the sandbox was gone, or not yet there, and the network was: no sandbox tells of it.
    async fn leave_nothing(&self) {
        while let Err(error) = end::remove(&self.context, &self.subject.uid, true).await {
            tracing::warn!(pod = %self.desired.label(), %error, "cannot take away what is left of the pod; trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    fn adopt(&mut self, wanted: Wanted) {
        self.removed |= wanted.removed;
        // An answer to a write may have been newer than what the watch has come to.
        if wanted.desired.revision() >= self.desired.revision() {
            self.desired = wanted.desired;
        }
        if self.removed {
            self.desired = Arc::new(Desired::clone(&self.desired).removed(clock::now()));
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Pulled {
                container,
                attempt,
                result,
            } => self.pulled(&container, attempt, result),
            Answer::Probed {
                container,
                id,
                kind,
                result,
            } => self.probed(&container, id, kind, result),
            Answer::Stopped { id } => {
                self.local.stopping.remove(&id);
            }
        }
    }

    fn pulled(&mut self, container: &str, attempt: u32, result: Result<(), (String, String)>) {
        let Some(pull) = self
            .local
            .pulls
            .get_mut(container)
            .filter(|pull| pull.attempt == attempt)
        else {
            return;
        };
        match result {
            Ok(()) => {
                self.context.events.normal(
                    &self.subject,
                    Some(container),
                    "Pulled",
                    format!("Successfully pulled image \"{}\"", pull.image),
                );
                pull.state = PullState::Done;
                self.local.pull_failures.remove(container);
            }
            Err((reason, message)) => {
                let told = format!("Failed to pull image \"{}\": {message}", pull.image);
                self.context
                    .events
                    .warning(&self.subject, Some(container), "Failed", told);
                self.context.events.warning(
                    &self.subject,
                    Some(container),
                    "Failed",
                    format!("Error: {reason}"),
                );
                let failures = self
                    .local
                    .pull_failures
                    .entry(container.to_owned())
                    .or_default();
                *failures = failures.saturating_add(1);
                pull.state = PullState::Failed {
                    reason,
                    message,
                    at: clock::now(),
                    failures: *failures,
                };
            }
        }
    }

    fn probed(&mut self, container: &str, id: String, kind: ProbeKind, result: Result<(), String>) {
        let desired = self.desired.clone();
        let Some(probe) = desired
            .container(container)
            .and_then(|view| kind.of(view.spec))
        else {
            return;
        };
        let probed = Probe {
            uid: self.subject.uid.clone(),
            container: container.to_owned(),
            kind,
            namespace: self.subject.namespace.clone(),
            pod: self.subject.name.clone(),
        };
        self.context.probe_counts.count(probed, result.is_ok());
        if let Err(why) = &result {
            self.context.events.warning(
                &self.subject,
                Some(container),
                "Unhealthy",
                format!("{kind} probe failed: {why}"),
            );
        }
        self.local.probes.entry((id, kind)).or_default().record(
            probe,
            result.is_ok(),
            clock::now(),
        );
    }

    /// Steps until nothing is left to do at once; returns when to look again.
    async fn settle(&mut self) -> Option<Timestamp> {
        self.refresh_volumes().await;
        for _ in 0..STEPS_MAX {
            let observed = observe(&self.context, &self.desired, &self.local).await;
            self.tell_host_ports(&observed);
            let Step {
                actions,
                status,
                wake_at,
            } = lifecycle::step(&self.desired, &observed, clock::now());
            tracing::debug!(pod = %self.desired.label(), actions = %actions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), "step");
            let (last, first): (Vec<Action>, Vec<Action>) =
                actions.into_iter().partition(|action| {
                    matches!(action, Action::RemoveSandbox | Action::DeleteFromApi)
                });
            let mut progressed = false;
            for action in first {
                progressed |= self.execute(action, &observed).await;
            }
            if progressed {
                continue;
            }
            self.tell_back_off(status.as_ref());
            let told = self.tell(status.as_ref()).await;
            if !told {
                return self.later(wake_at);
            }
            for action in last {
                progressed |= self.execute(action, &observed).await;
            }
            if self.finished {
                return None;
            }
            // A pod that has just ended is taken down at once.
            let phase = status.as_ref().and_then(|status| status.phase.as_deref());
            let ended = matches!(phase, Some("Succeeded" | "Failed")) && observed.has_sandbox();
            let goes_on = ended && self.retry_at.is_none() && !self.local.has_stopping();
            if !progressed && !goes_on {
                return self.sleep_until(wake_at);
            }
        }
        self.later(None)
    }

    fn later(&mut self, wake_at: Option<Timestamp>) -> Option<Timestamp> {
        let retry_at = clock::now().plus(RETRY_AFTER);
        self.retry_at = None;
        [wake_at, Some(retry_at)].into_iter().flatten().min()
    }

    fn sleep_until(&mut self, wake_at: Option<Timestamp>) -> Option<Timestamp> {
        let refresh_at = volumes::change(&self.desired).then_some(self.refresh_at);
        [wake_at, self.retry_at.take(), refresh_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Brings mounted files up to date now and then; what fails is tried again the next time.
    async fn refresh_volumes(&mut self) {
        let now = clock::now();
        let due = now >= self.refresh_at
            && self.local.volumes == lifecycle::Volumes::Ready
            && volumes::change(&self.desired);
        if !due || self.desired.is_deleting() || self.desired.has_ended() {
            return;
        }
        self.refresh_at = now.plus(REFRESH_EVERY);
        let observed = observe(&self.context, &self.desired, &self.local).await;
        if let Err(error) = volumes::prepare(&self.context, &self.desired, &observed).await {
            tracing::debug!(pod = %self.desired.label(), %error, "volumes stay as they are");
        }
    }

    fn tell_host_ports(&self, observed: &Observed) {
        let ip = observed
            .pod_ip
            .as_ref()
            .and_then(|ip| ip.parse().ok())
            .filter(|_| observed.has_sandbox());
        self.context.host_ports.set(
            &self.desired.uid,
            ip.map(|ip| spec::host_ports(&self.desired, ip))
                .unwrap_or_default(),
        );
    }

    /// The event that comes with a back-off, once for each.
    fn tell_back_off(&mut self, status: Option<&k8s_openapi::api::core::v1::PodStatus>) {
        let Some(status) = status else { return };
        for container in status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
        {
            let waiting = container
                .state
                .as_ref()
                .and_then(|state| state.waiting.as_ref());
            let reason = waiting
                .and_then(|waiting| waiting.reason.as_deref())
                .unwrap_or_default();
            let key = (
                container.name.clone(),
                u32::try_from(container.restart_count).unwrap_or(0),
            );
            let message = match reason {
                "CrashLoopBackOff" => format!(
                    "Back-off restarting failed container {} in pod {}",
                    container.name,
                    self.desired.label()
                ),
                "ImagePullBackOff" => format!("Back-off pulling image \"{}\"", container.image),
                _ => continue,
            };
            if self.backing_off.insert(key) {
                let warning = reason == "CrashLoopBackOff";
                match warning {
                    true => self.context.events.warning(
                        &self.subject,
                        Some(&container.name),
                        "BackOff",
                        message,
                    ),
                    false => self.context.events.normal(
                        &self.subject,
                        Some(&container.name),
                        "BackOff",
                        message,
                    ),
                }
            }
        }
    }

    /// Writes the status where it differs; true when the API says what it should.
    async fn tell(&mut self, status: Option<&k8s_openapi::api::core::v1::PodStatus>) -> bool {
        let Some(status) = status.filter(|_| !self.removed) else {
            return true;
        };
        let Some(mut patch) = lifecycle::status_patch(self.desired.status(), status) else {
            return true;
        };
        patch["metadata"] = json!({ "uid": self.desired.uid });
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/status",
            self.subject.namespace, self.subject.name
        );
        let payload = Payload::Bytes(
            "application/strategic-merge-patch+json",
            patch.to_string().into(),
        );
        match self
            .context
            .client
            .call::<Value>(Method::PATCH, &path, payload, STATUS_DEADLINE)
            .await
        {
            Ok(object) => {
                match Desired::parse(object) {
                    Ok(desired)
                        if desired.uid == self.desired.uid
                            && desired.revision() >= self.desired.revision() =>
                    {
                        self.desired = Arc::new(desired)
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(pod = %self.desired.label(), %error, "the API answered with something that is no pod")
                    }
                }
                true
            }
            // The watch will tell that it is gone; until then nothing is ended for it.
            Err(error) if error.is_code(404) => false,
            Err(error) => {
                tracing::warn!(pod = %self.desired.label(), %error, "cannot write the pod's status; trying again");
                false
            }
        }
    }
}
