//! A container's past and present, put together from what is on the node and what the pod's last status says.
//!
//! The node knows better; the status fills in what the node has lost with a sandbox. So a pod that may not be restarted
//! is not run twice, and a restart count never falls.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};
use objects::Timestamp;

use crate::desired::{ContainerView, Desired, Role};
use crate::observed::{Container, ContainerState, Exit, Observed, Sandbox};

/// What is known of one container of the pod.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What it shall be.
    pub view: ContainerView<'a>,
    /// Its newest instance.
    pub current: Option<Container>,
    /// Whether that is on the node; what is not is known by the status alone, and its sandbox is gone.
    pub is_here: bool,
    /// How the one before ended.
    pub previous: Option<(Exit, String)>,
    /// What the API's status says of it.
    pub told: Option<&'a ContainerStatus>,
}

impl<'a> Record<'a> {
    /// Puts together what is known of `view`.
    pub fn of(view: ContainerView<'a>, desired: &'a Desired, observed: &Observed) -> Self {
        let told = told(desired, view);
        let mut here: Vec<&Container> = observed
            .containers
            .iter()
            .filter(|container| container.name == view.name())
            .collect();
        here.sort_by_key(|container| container.attempt);
        let newest = here.pop().cloned();
        let before = here.pop();
        let is_here = newest.is_some();
        let current = newest
            .clone()
            .or_else(|| told.and_then(|told| remembered(told, observed, view)));
        let previous = before
            .and_then(|container| {
                exit_of(container).map(|exit| (exit.clone(), container.id.clone()))
            })
            .or_else(|| told.and_then(|told| last_told(told, current.as_ref())));
        Self {
            view,
            current,
            is_here,
            previous,
            told,
        }
    }

    /// How often it was restarted: never less than was told before.
    pub fn restarts(&self) -> u32 {
        let told = self
            .told
            .map_or(0, |told| u32::try_from(told.restart_count).unwrap_or(0));
        self.current
            .as_ref()
            .map_or(told, |container| container.attempt.max(told))
    }

    /// The number of its next start.
    pub fn next_attempt(&self) -> u32 {
        let ran =
            self.current.is_some() || self.told.is_some_and(|told| told.container_id.is_some());
        if ran {
            self.restarts() + 1
        } else {
            self.restarts()
        }
    }

    /// Its newest instance, if it runs.
    pub fn running(&self) -> Option<(&Container, Timestamp)> {
        match self.current.as_ref()? {
            container @ Container {
                state: ContainerState::Running { started_at },
                ..
            } => Some((container, *started_at)),
            _ => None,
        }
    }

    /// How its newest instance ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        self.current.as_ref().and_then(exit_of)
    }

    /// Whether it is in the making or runs: something that must be stopped before a pod has ended.
    pub fn is_alive(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|container| exit_of(container).is_none())
    }

    /// Whether it ended and will not be started again.
    pub fn is_done(&self) -> bool {
        self.exit()
            .is_some_and(|exit| !self.view.restart.restarts(exit.code) && !self.is_outdated())
    }

    /// Whether the pod names another image than the newest instance was started from.
    pub fn is_outdated(&self) -> bool {
        self.current.as_ref().is_some_and(|container| {
            !container.image.is_empty() && container.image != self.view.image()
        })
    }
}

fn exit_of(container: &Container) -> Option<&Exit> {
    match &container.state {
        ContainerState::Exited(exit) => Some(exit),
        _ => None,
    }
}

fn told<'a>(desired: &'a Desired, view: ContainerView<'a>) -> Option<&'a ContainerStatus> {
    let status = desired.status()?;
    let list = match view.role {
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
        Role::Init | Role::Sidecar => &status.init_container_statuses,
    };
    list.iter().flatten().find(|told| told.name == view.name())
}

/// A container that the node no longer has, as the status tells it.
fn remembered(
    told: &ContainerStatus,
    observed: &Observed,
    view: ContainerView<'_>,
) -> Option<Container> {
    let state = told.state.as_ref()?;
    let last = || {
        told.last_state
            .as_ref()
            .and_then(|last| last.terminated.as_ref())
            .filter(|_| told.restart_count > 0 || state.waiting.is_some())
    };
    let exit = match (&state.terminated, &state.running) {
        (Some(terminated), _) => exit_from(terminated),
        (None, Some(running)) => {
            let started_at = running.started_at.as_ref().map(|time| Timestamp(time.0));
            vanished(started_at)
        }
        (None, None) => exit_from(last()?),
    };
    // A new sandbox has new volumes: what its init containers did for the old one is gone with it.
    let sandbox_since = match observed.sandbox {
        Sandbox::Ready { since } => Some(since),
        _ => None,
    };
    if view.role.is_initial() && sandbox_since.is_none_or(|since| exit.finished_at < since) {
        return None;
    }
    Some(Container {
        name: told.name.clone(),
        id: told.container_id.as_deref().map(id_of).unwrap_or_default(),
        attempt: u32::try_from(told.restart_count).unwrap_or(0),
        level: remembered_level(told),
        image: view.image().to_owned(),
        image_id: told.image_id.clone(),
        state: ContainerState::Exited(exit),
        stopping_until: None,
        resources: None,
    })
}

/// A container in its back-off stays in it, though the agent that counted is gone.
fn remembered_level(told: &ContainerStatus) -> u32 {
    let waiting = told.state.as_ref().and_then(|state| state.waiting.as_ref());
    let backs_off =
        waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
    if backs_off {
        u32::try_from(told.restart_count).unwrap_or(0)
    } else {
        0
    }
}

fn vanished(started_at: Option<Timestamp>) -> Exit {
    Exit {
        code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".into(),
        message: "The container could not be located when the pod was terminated".into(),
        started_at,
        finished_at: started_at.unwrap_or(Timestamp::from_unix(0)),
    }
}

fn last_told(told: &ContainerStatus, current: Option<&Container>) -> Option<(Exit, String)> {
    let told_terminated = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.as_ref()?.terminated.as_ref()?;
        let id = terminated
            .container_id
            .as_deref()
            .map(id_of)
            .unwrap_or_default();
        (current.is_none_or(|current| current.id != id)).then(|| (exit_from(terminated), id))
    };
    told_terminated(&told.state).or_else(|| told_terminated(&told.last_state))
}

fn exit_from(terminated: &ContainerStateTerminated) -> Exit {
    Exit {
        code: terminated.exit_code,
        signal: terminated.signal.unwrap_or(0),
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started_at: terminated.started_at.as_ref().map(|time| Timestamp(time.0)),
        finished_at: terminated
            .finished_at
            .as_ref()
            .map_or(Timestamp::from_unix(0), |time| Timestamp(time.0)),
    }
}

/// The id behind `libcontainer://`.
fn id_of(container_id: &str) -> String {
    container_id
        .split_once("://")
        .map_or(container_id, |(_, id)| id)
        .to_owned()
}
