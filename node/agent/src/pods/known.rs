//! The node's pods as their workers were last told of them, for those who ask about all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lifecycle::{Desired, ProbeKind};

/// The pods, by UID.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<String, Arc<Desired>>>);

impl Known {
    /// All of them.
    pub fn all(&self) -> Vec<Arc<Desired>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(super) fn set(&self, desired: Arc<Desired>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(desired.uid.clone(), desired);
    }

    pub(super) fn forget(&self, uid: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(uid);
    }
}

/// A probe of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The pod.
    pub uid: String,
    /// The container.
    pub container: String,
    /// Which of its probes.
    pub kind: ProbeKind,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
}

/// Its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That all is well.
    pub successful: u64,
    /// That it is not, or no answer.
    pub failed: u64,
}

/// Answers of all probes.
#[derive(Default)]
pub struct ProbeCounts(Mutex<BTreeMap<Probe, Counts>>);

impl ProbeCounts {
    /// All of them.
    pub fn all(&self) -> BTreeMap<Probe, Counts> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn count(&self, probe: Probe, successful: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = all.entry(probe).or_default();
        match successful {
            true => counts.successful += 1,
            false => counts.failed += 1,
        }
    }

    pub(super) fn forget(&self, uid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|probe, _| probe.uid != uid);
    }
}
