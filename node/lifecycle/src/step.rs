//! One step of a pod.
//!
//! Four situations, looked for in this order: the pod is deleted, it has ended, its deadline has passed, it lives. In the
//! first two nothing is started any more; a sandbox goes only after nothing runs in it and the status was told.

use objects::Timestamp;

use crate::action::{Action, Step, StopReason};
use crate::desired::{Desired, Role};
use crate::images::{self, ImageNeed};
use crate::observed::{Container, ContainerState, Observed, Sandbox, Volumes};
use crate::probe::{self, Health, ProbeKind};
use crate::record::Record;
use crate::resize::{self, Resize};
use crate::restart;
use crate::status::{self, Ending, Judged, Waiting};

/// Containers of one name that are kept: the newest and the one before.
const KEPT_MAX: usize = 2;

/// What is to be done for `desired`, seen as `observed`, at `now`.
pub fn step(desired: &Desired, observed: &Observed, now: Timestamp) -> Step {
    let records: Vec<Record<'_>> = desired
        .containers()
        .into_iter()
        .map(|view| Record::of(view, desired, observed))
        .collect();
    if desired.is_deleting() {
        return delete(desired, observed, records, now);
    }
    if desired.has_ended() {
        return wind_down(desired, observed, records, now);
    }
    if desired.deadline().is_some_and(|deadline| deadline <= now) {
        let message = "Pod was active on the node longer than the specified deadline";
        let ending = Ending {
            failed: Some(("DeadlineExceeded", message.to_owned())),
            ..Ending::default()
        };
        return fail(desired, observed, records, &ending, desired.grace_s(), now);
    }
    if let Some(ended) = &observed.ended {
        let ending = Ending {
            failed: Some((ended.reason, ended.message.clone())),
            by_node: true,
            ..Ending::default()
        };
        return fail(desired, observed, records, &ending, ended.grace_s, now);
    }
    live(desired, observed, records, now)
}

/// Ends a pod that has not ended by itself.
fn fail(
    desired: &Desired,
    observed: &Observed,
    records: Vec<Record<'_>>,
    ending: &Ending,
    grace_s: u32,
    now: Timestamp,
) -> Step {
    let actions = stop_all(observed, &records, grace_s, StopReason::PodEnded, now);
    let judged = judge_only(records, observed, now);
    Step {
        actions,
        status: Some(status::status(desired, observed, &judged, ending, now)),
        wake_at: None,
    }
}

fn delete(
    desired: &Desired,
    observed: &Observed,
    records: Vec<Record<'_>>,
    now: Timestamp,
) -> Step {
    let grace_s = desired.grace_s();
    let stopping = stop_all(observed, &records, grace_s, StopReason::Deleted, now);
    let alive = observed.is_any_alive();
    let is_there = observed.has_sandbox();
    let actions = match (alive, is_there) {
        (true, _) => stopping,
        (false, true) => vec![Action::RemoveSandbox],
        (false, false) => vec![Action::DeleteFromApi],
    };
    let status = is_there.then(|| {
        let judged = judge_only(records, observed, now);
        keep_phase(
            desired,
            status::status(
                desired,
                observed,
                &judged,
                &Ending {
                    over: !alive,
                    ..Ending::default()
                },
                now,
            ),
        )
    });
    Step {
        actions,
        status,
        wake_at: None,
    }
}

fn wind_down(
    desired: &Desired,
    observed: &Observed,
    records: Vec<Record<'_>>,
    now: Timestamp,
) -> Step {
    if !observed.has_sandbox() {
        return Step {
            actions: vec![],
            status: None,
            wake_at: None,
        };
    }
    let grace_s = desired.grace_s();
    let mut actions = stop_all(observed, &records, grace_s, StopReason::PodEnded, now);
    if !observed.is_any_alive() {
        actions.push(Action::RemoveSandbox);
    }
    let judged = judge_only(records, observed, now);
    let status = keep_phase(
        desired,
        status::status(
            desired,
            observed,
            &judged,
            &Ending {
                over: true,
                ..Ending::default()
            },
            now,
        ),
    );
    Step {
        actions,
        status: Some(status),
        wake_at: None,
    }
}

/// A pod that has ended stays as it ended.
fn keep_phase(
    desired: &Desired,
    mut status: k8s_openapi::api::core::v1::PodStatus,
) -> k8s_openapi::api::core::v1::PodStatus {
    if desired.has_ended() {
        status.phase = desired.status().and_then(|before| before.phase.clone());
    }
    status
}

/// Stops what runs: sidecars when nothing else does.
fn stop_all(
    observed: &Observed,
    records: &[Record<'_>],
    grace_s: u32,
    why: StopReason,
    now: Timestamp,
) -> Vec<Action> {
    let is_sidecar = |container: &Container| {
        records
            .iter()
            .any(|record| record.view.name() == container.name && record.view.role == Role::Sidecar)
    };
    let alive = || {
        observed
            .containers
            .iter()
            .filter(|container| !matches!(container.state, ContainerState::Exited(_)))
    };
    let sidecars_turn = alive().all(is_sidecar);
    alive()
        .filter(|container| sidecars_turn || !is_sidecar(container))
        .filter_map(|container| stop(container, grace_s, why, now))
        .collect()
}

/// Stops a container, unless it is being stopped no later than that already.
fn stop(container: &Container, grace_s: u32, why: StopReason, now: Timestamp) -> Option<Action> {
    let until = now.plus(std::time::Duration::from_secs(grace_s.into()));
    let needed = container
        .stopping_until
        .is_none_or(|stopping| stopping > until);
    needed.then(|| Action::Stop {
        container: container.name.clone(),
        id: container.id.clone(),
        grace_s,
        why,
    })
}

/// The containers as they are, when nothing shall be started or probed.
fn judge_only<'a>(
    records: Vec<Record<'a>>,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Judged<'a>> {
    let creating = creating(&records);
    let judge = |record: Record<'a>| {
        let health = record
            .running()
            .map(|(container, since)| probe::health(&record, &container.id, since, observed, now));
        let (started, ready) =
            health.map_or((false, false), |health| (health.started, health.ready));
        let waiting = record.current.is_none().then(|| creating.clone());
        Judged {
            record,
            waiting,
            started,
            ready,
        }
    };
    records.into_iter().map(judge).collect()
}

/// What a container waits for that was never started.
fn creating(records: &[Record<'_>]) -> Waiting {
    let has_init = records.iter().any(|record| record.view.role.is_initial());
    Waiting::new(if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    })
}

fn live(desired: &Desired, observed: &Observed, records: Vec<Record<'_>>, now: Timestamp) -> Step {
    let creating = creating(&records);
    let mut turn = Turn {
        desired,
        observed,
        now,
        actions: vec![],
        wake_at: desired.deadline(),
        creating,
    };
    let is_open = turn.prepare();
    let judged = turn.containers(records, is_open);
    let status = status::status(desired, observed, &judged, &Ending::default(), now);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        // Told first; the next step takes down what is left.
        return Step {
            actions: vec![],
            status: Some(status),
            wake_at: None,
        };
    }
    turn.forget_old();
    Step {
        actions: turn.actions,
        status: Some(status),
        wake_at: turn.wake_at,
    }
}

/// The making of a step for a pod that lives.
struct Turn<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    now: Timestamp,
    actions: Vec<Action>,
    wake_at: Option<Timestamp>,
    creating: Waiting,
}

impl<'a> Turn<'a> {
    /// Sees to sandbox and volumes; true when containers can be started.
    fn prepare(&mut self) -> bool {
        match &self.observed.sandbox {
            Sandbox::Ready { .. } => self.prepare_volumes(),
            Sandbox::Lost => self.closed(Action::RemoveSandbox, None),
            Sandbox::Absent => self.closed(Action::CreateSandbox, None),
            Sandbox::Failed { retry_at, .. } => self.closed(Action::CreateSandbox, Some(*retry_at)),
        }
    }

    fn prepare_volumes(&mut self) -> bool {
        match &self.observed.volumes {
            Volumes::Ready => true,
            Volumes::Unmounted => self.closed(Action::MountVolumes, None),
            Volumes::Failed { retry_at, .. } => self.closed(Action::MountVolumes, Some(*retry_at)),
        }
    }

    fn closed(&mut self, action: Action, not_before: Option<Timestamp>) -> bool {
        match not_before.filter(|not_before| *not_before > self.now) {
            Some(not_before) => self.wake(Some(not_before)),
            None => self.actions.push(action),
        }
        false
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }

    /// Goes through all containers; init containers close the way for those behind them until they have done their part.
    fn containers(&mut self, records: Vec<Record<'a>>, is_open: bool) -> Vec<Judged<'a>> {
        let past_init = records
            .iter()
            .any(|record| record.view.role == Role::Main && record.is_here);
        let has_sandbox = is_open;
        let mut is_open = is_open;
        let mut judged = Vec::with_capacity(records.len());
        for record in records {
            let role = record.view.role;
            let one = match record.running() {
                Some(_) => self.running(record),
                None if role == Role::Ephemeral && has_sandbox => self.stopped(record),
                None if is_open && !(role == Role::Init && past_init) => self.stopped(record),
                None => self.held_back(record),
            };
            let done = match role {
                Role::Main | Role::Ephemeral => true,
                Role::Init => one.record.exit().is_some_and(|exit| exit.code == 0) || past_init,
                Role::Sidecar => one.started || past_init,
            };
            is_open &= done;
            judged.push(one);
        }
        judged
    }

    /// A container whose turn has not come.
    fn held_back(&mut self, record: Record<'a>) -> Judged<'a> {
        // What a lost sandbox took with it is only a memory.
        let ended = record.exit().is_some() && (record.is_here || record.is_done());
        let waiting = (!ended).then(|| self.creating.clone());
        Judged {
            record,
            waiting,
            started: false,
            ready: false,
        }
    }

    fn running(&mut self, record: Record<'a>) -> Judged<'a> {
        let Some((container, since)) = record
            .running()
            .map(|(container, since)| (container.clone(), since))
        else {
            return self.held_back(record);
        };
        let health = probe::health(&record, &container.id, since, self.observed, self.now);
        let outdated = record.is_outdated();
        let why = match health.failed {
            _ if outdated => Some(StopReason::Changed),
            Some(ProbeKind::Startup) => Some(StopReason::NeverStarted),
            Some(_) => Some(StopReason::Unhealthy),
            None => self.resize(&record, &container),
        };
        match why {
            Some(why) => {
                let grace_s = self.probe_grace_s(&record, health.failed);
                self.actions
                    .extend(stop(&container, grace_s, why, self.now));
            }
            None => self.probe(&container, &health),
        }
        Judged {
            record,
            waiting: None,
            started: health.started,
            ready: health.ready,
        }
    }

    /// Brings a running container to the resources that the pod asks for; a restart where its policy says so.
    fn resize(&mut self, record: &Record<'_>, container: &Container) -> Option<StopReason> {
        if container.stopping_until.is_some() {
            return None;
        }
        match resize::of_container(&record.view, container, self.desired, self.observed) {
            Resize::Nothing => None,
            Resize::Restart => Some(StopReason::Resized),
            Resize::InPlace => {
                let failure = self.observed.resize_failures.get(&container.name);
                match failure.filter(|failure| failure.retry_at > self.now) {
                    Some(failure) => self.wake(Some(failure.retry_at)),
                    None => self.actions.push(Action::Resize {
                        container: container.name.clone(),
                        id: container.id.clone(),
                    }),
                }
                None
            }
        }
    }

    fn probe_grace_s(&self, record: &Record<'_>, kind: Option<ProbeKind>) -> u32 {
        let own = kind
            .and_then(|kind| kind.of(record.view.spec))
            .and_then(|probe| probe.termination_grace_period_seconds);
        own.and_then(|own| u32::try_from(own).ok())
            .unwrap_or_else(|| self.desired.grace_s())
    }

    fn probe(&mut self, container: &Container, health: &Health) {
        if container.stopping_until.is_some() {
            return;
        }
        let probe = |kind: &ProbeKind| Action::Probe {
            container: container.name.clone(),
            id: container.id.clone(),
            kind: *kind,
        };
        self.actions.extend(health.due.iter().map(probe));
        self.wake(health.wake_at);
    }

    /// A container that may run now and does not.
    fn stopped(&mut self, record: Record<'a>) -> Judged<'a> {
        let waiting = self.start_or_wait(&record);
        Judged {
            record,
            waiting,
            started: false,
            ready: false,
        }
    }

    fn start_or_wait(&mut self, record: &Record<'_>) -> Option<Waiting> {
        let (attempt, level) = match record
            .current
            .as_ref()
            .map(|current| (current, &current.state))
        {
            None => (record.next_attempt(), 0),
            Some((current, ContainerState::Exited(exit))) => {
                if record.is_done() {
                    return None;
                }
                let next = restart::next(current.level, exit);
                if self.now < next.at && !record.is_outdated() {
                    self.wake(Some(next.at));
                    return Some(self.crash_loop(record, next.delay));
                }
                (record.next_attempt(), next.level)
            }
            Some(_) => return Some(self.creating.clone()),
        };
        let blank = record.current.is_none().then(|| self.creating.clone());
        match images::need(&record.view, attempt, self.observed, self.now) {
            ImageNeed::Ready => self.start(record, attempt, level).or(blank),
            ImageNeed::Pulling => blank,
            ImageNeed::Pull => {
                let (container, image) = (
                    record.view.name().to_owned(),
                    record.view.image().to_owned(),
                );
                self.actions.push(Action::Pull {
                    container,
                    image,
                    attempt,
                });
                blank
            }
            ImageNeed::Waiting {
                reason,
                message,
                wake_at,
            } => {
                self.wake(wake_at);
                Some(Waiting {
                    reason,
                    message: Some(message),
                })
            }
        }
    }

    fn start(&mut self, record: &Record<'_>, attempt: u32, level: u32) -> Option<Waiting> {
        let name = record.view.name();
        let failure = self.observed.start_failures.get(name);
        if failure.is_none_or(|failure| failure.retry_at <= self.now) {
            self.actions.push(Action::Start {
                container: name.to_owned(),
                attempt,
                level,
            });
        } else {
            self.wake(failure.map(|failure| failure.retry_at));
        }
        failure.map(|failure| Waiting {
            reason: failure.reason.clone(),
            message: Some(failure.message.clone()),
        })
    }

    fn crash_loop(&self, record: &Record<'_>, delay: std::time::Duration) -> Waiting {
        let delay = restart::go_duration(delay);
        let message = format!(
            "back-off {delay} restarting failed container={} pod={}",
            record.view.name(),
            self.desired.label()
        );
        Waiting {
            reason: "CrashLoopBackOff".into(),
            message: Some(message),
        }
    }

    /// Lets go of containers that neither status nor logs ask for any more.
    fn forget_old(&mut self) {
        for view in self.desired.containers() {
            let mut ended: Vec<&Container> = self
                .observed
                .containers
                .iter()
                .filter(|container| container.name == view.name())
                .collect();
            ended.sort_by_key(|container| std::cmp::Reverse(container.attempt));
            let old = ended
                .into_iter()
                .skip(KEPT_MAX)
                .filter(|container| matches!(container.state, ContainerState::Exited(_)));
            self.actions
                .extend(old.map(|container| Action::RemoveContainer {
                    id: container.id.clone(),
                }));
        }
    }
}
