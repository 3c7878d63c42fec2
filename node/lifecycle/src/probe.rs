//! Probes: when the next is due and what the answers so far mean. The agent asks; here is only counting.
//!
//! Rules: Kubernetes' documentation of startup, liveness and readiness probes. While a startup probe has not succeeded the
//! others do not run. Readiness begins as false, liveness as true.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use objects::Timestamp;

use crate::observed::Observed;
use crate::record::Record;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        })
    }
}

impl ProbeKind {
    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The answers of one probe of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// When the last answer came.
    pub last_at: Option<Timestamp>,
    /// What the answers mean; none before the first threshold.
    pub verdict: Option<bool>,
    /// A probe goes on.
    pub in_flight: bool,
    succeeded: u32,
    failed: u32,
}

impl Tally {
    /// Counts an answer.
    pub fn record(&mut self, probe: &Probe, success: bool, at: Timestamp) {
        self.last_at = Some(at);
        self.in_flight = false;
        if success {
            (self.succeeded, self.failed) = (self.succeeded.saturating_add(1), 0);
        } else {
            (self.succeeded, self.failed) = (0, self.failed.saturating_add(1));
        }
        if self.succeeded >= at_least_one(probe.success_threshold, 1) {
            self.verdict = Some(true);
        }
        if self.failed >= at_least_one(probe.failure_threshold, 3) {
            self.verdict = Some(false);
        }
    }
}

/// The deadline of one probe.
pub fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(at_least_one(probe.timeout_seconds, 1).into())
}

fn at_least_one(value: Option<i32>, default: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(default)
}

/// What the probes say of a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Its startup probe succeeded, or it has none.
    pub started: bool,
    /// It takes traffic.
    pub ready: bool,
    /// The probe that demands its end.
    pub failed: Option<ProbeKind>,
    /// Probes to be asked now.
    pub due: Vec<ProbeKind>,
    /// When the next is due.
    pub wake_at: Option<Timestamp>,
}

/// Judges a container that runs since `started_at` under `id`.
pub(crate) fn health(
    record: &Record<'_>,
    id: &str,
    started_at: Timestamp,
    observed: &Observed,
    now: Timestamp,
) -> Health {
    let spec = record.view.spec;
    let tally = |kind: ProbeKind| {
        observed
            .probes
            .get(&(id.to_owned(), kind))
            .copied()
            .unwrap_or_default()
    };
    let verdict = |kind: ProbeKind| tally(kind).verdict;
    // A new agent has no tallies: until its own first verdict it believes what was told of this very container.
    let same = record.told.filter(|told| {
        told.container_id
            .as_deref()
            .is_some_and(|told| told.ends_with(id))
    });
    let told_started = same.is_some_and(|told| told.started == Some(true));
    let told_ready = same.is_some_and(|told| told.ready);
    let mut health = Health {
        started: true,
        ready: true,
        ..Health::default()
    };
    if spec.startup_probe.is_some() {
        health.started = verdict(ProbeKind::Startup).unwrap_or(told_started);
    }
    if spec.readiness_probe.is_some() {
        health.ready = verdict(ProbeKind::Readiness).unwrap_or(told_ready);
    }
    health.ready &= health.started;
    let failing = [ProbeKind::Startup, ProbeKind::Liveness]
        .into_iter()
        .find(|kind| kind.of(spec).is_some() && verdict(*kind) == Some(false));
    health.failed = failing;
    let kinds: &[ProbeKind] = if health.started {
        &[ProbeKind::Liveness, ProbeKind::Readiness]
    } else {
        &[ProbeKind::Startup]
    };
    for kind in kinds {
        let (Some(probe), tally) = (kind.of(spec), tally(*kind)) else {
            continue;
        };
        if tally.in_flight {
            continue;
        }
        let due_at = due_at(probe, &tally, started_at);
        if due_at <= now {
            health.due.push(*kind);
        } else {
            health.wake_at = [health.wake_at, Some(due_at)].into_iter().flatten().min();
        }
    }
    health
}

fn due_at(probe: &Probe, tally: &Tally, started_at: Timestamp) -> Timestamp {
    let seconds = |value: Option<i32>| {
        Duration::from_secs(
            value
                .and_then(|value| u64::try_from(value).ok())
                .unwrap_or(0),
        )
    };
    match tally.last_at {
        Some(last_at) => last_at.plus(Duration::from_secs(
            at_least_one(probe.period_seconds, 10).into(),
        )),
        None => started_at.plus(seconds(probe.initial_delay_seconds)),
    }
}
