//! Which pod must go when the node runs short of something. Pure: readings, pods and now to one decision.
//!
//! ```text
//! threshold met ─▶ (soft: for its grace) ─▶ pressure told, images and dead containers given up ─▶ one pod ends ─▶ look again
//! threshold not met ─▶ pressure told for the transition period ─▶ calm
//! ```
//! One pod at a time: what it gave back is seen before the next is chosen. Rule and words: Kubernetes' "Node-pressure Eviction".

mod local;
mod rank;
mod threshold;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use objects::Timestamp;

pub use local::exceeds_local_limits;
pub use rank::{Candidate, ContainerUsage};
pub use threshold::{Amount, Signal, Threshold, ThresholdError};

/// What a node may be short of, as its conditions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// `MemoryPressure`
    Memory,
    /// `DiskPressure`
    Disk,
    /// `PIDPressure`
    Pids,
}

impl Pressure {
    /// The condition's type.
    pub fn condition(self) -> &'static str {
        match self {
            Pressure::Memory => "MemoryPressure",
            Pressure::Disk => "DiskPressure",
            Pressure::Pids => "PIDPressure",
        }
    }
}

/// When pods are evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Hard and soft thresholds.
    pub thresholds: Vec<Threshold>,
    /// How long a pressure is told after its last sign.
    pub pressure_transition_period: Duration,
    /// The longest that a pod gets which is evicted by a soft threshold.
    pub max_pod_grace_s: u32,
}

/// How much of something is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is left.
    pub available: u64,
    /// Of how much.
    pub capacity: u64,
}

/// What must be remembered from one look to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Since when each threshold is met, by its place in the configuration.
    met_since: BTreeMap<usize, Timestamp>,
    /// When each pressure was last seen.
    seen: BTreeMap<Pressure, Timestamp>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What the node is short of, for its conditions.
    pub pressures: BTreeSet<Pressure>,
    /// Whether images that nobody uses and containers that ended should go first.
    pub reclaims_disk: bool,
    /// The pod that must go, if giving those up does not help.
    pub evict: Option<Eviction>,
}

/// The end of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Its UID.
    pub uid: String,
    /// What its status says.
    pub message: String,
    /// Seconds that its containers get.
    pub grace_s: u32,
}

/// Decides, and brings `memory` up to date.
pub fn decide(
    config: &Config,
    readings: &BTreeMap<Signal, Reading>,
    pods: &[Candidate],
    memory: &mut Memory,
    now: Timestamp,
) -> Decision {
    let is_met = |threshold: &Threshold| {
        let reading = readings.get(&threshold.signal);
        reading.is_some_and(|it| it.available < threshold.value.of(it.capacity))
    };
    let thresholds = || config.thresholds.iter().enumerate();
    memory
        .met_since
        .retain(|index, _| config.thresholds.get(*index).is_some_and(is_met));
    for (index, threshold) in thresholds().filter(|(_, threshold)| is_met(threshold)) {
        memory.met_since.entry(index).or_insert(now);
        memory.seen.insert(threshold.signal.pressure(), now);
    }
    let calm_after = config.pressure_transition_period;
    memory
        .seen
        .retain(|_, at| *at == now || now < at.plus(calm_after));
    let is_due = |index: &usize, threshold: &Threshold| {
        let since = memory.met_since.get(index);
        since.is_some_and(|since| now >= since.plus(threshold.grace.unwrap_or_default()))
    };
    let mut due: Vec<&Threshold> = thresholds()
        .filter(|(index, threshold)| is_due(index, threshold))
        .map(|(_, threshold)| threshold)
        .collect();
    // Memory first, and what cannot wait before what can.
    due.sort_by_key(|threshold| (threshold.signal, threshold.grace));
    let reclaims_disk = due
        .iter()
        .any(|threshold| threshold.signal.pressure() == Pressure::Disk);
    let evict = due.first().and_then(|threshold| {
        let reading = readings.get(&threshold.signal)?;
        let grace_max = match threshold.grace {
            Some(_) => config.max_pod_grace_s,
            None => 0,
        };
        rank::evict(threshold, reading, grace_max, pods)
    });
    Decision {
        pressures: memory.seen.keys().copied().collect(),
        reclaims_disk,
        evict,
    }
}

/// Why a new pod is not taken while the node is short of something, if it is not.
pub fn refusal(pressures: &BTreeSet<Pressure>, pod: &crate::Desired) -> Option<String> {
    if pressures.is_empty() || rank::is_critical(pod) {
        return None;
    }
    let only_memory = pressures.iter().all(|it| *it == Pressure::Memory);
    let class = crate::resources::qos_class(pod.spec());
    let tolerates = || {
        let tolerations = pod.spec().tolerations.iter().flatten();
        let mut known = tolerations.filter(|it| {
            it.key
                .as_deref()
                .is_none_or(|key| key.is_empty() || key == "node.kubernetes.io/memory-pressure")
                && it
                    .effect
                    .as_deref()
                    .is_none_or(|effect| effect.is_empty() || effect == "NoSchedule")
        });
        known.next().is_some()
    };
    if only_memory && (class != crate::resources::QosClass::BestEffort || tolerates()) {
        return None;
    }
    let names: Vec<&str> = pressures.iter().map(|it| it.condition()).collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}
