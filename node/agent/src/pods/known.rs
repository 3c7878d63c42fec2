//! The node's pods as their workers were last told of them, for those who ask about all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lifecycle::resources::pod_requests;
use lifecycle::{Amount, Desired, Ended, ProbeKind, Room};
use tokio::sync::Notify;

/// The pods, by UID.
#[derive(Default)]
pub struct Known {
    pods: Mutex<BTreeMap<String, Arc<Desired>>>,
    /// Those that the node ends, and how.
    ended: Mutex<BTreeMap<String, Ended>>,
    /// Wakes a pod's worker.
    pokes: Mutex<BTreeMap<String, Arc<Notify>>>,
}

impl Known {
    /// All of them.
    pub fn all(&self) -> Vec<Arc<Desired>> {
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// One of them.
    pub fn get(&self, uid: &str) -> Option<Arc<Desired>> {
        let known = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(uid).cloned()
    }

    /// What the node has for the pod `uid` beside its others.
    pub fn room(&self, uid: &str, allocatable: Amount) -> Room {
        let known = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = Amount::default();
        let others = known.values().filter(|pod| pod.uid != uid);
        for pod in others.filter(|pod| !pod.has_ended()) {
            let requests = pod_requests(pod.spec());
            used.cpu_milli += requests.cpu_milli;
            used.memory_bytes += requests.memory_bytes;
        }
        Room { allocatable, used }
    }

    /// Ends a pod for the node's sake; its worker does it.
    pub fn end(&self, uid: &str, ended: Ended) {
        let mut all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(uid.to_owned()).or_insert(ended);
        let pokes = self.pokes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(poke) = pokes.get(uid) {
            poke.notify_one();
        }
    }

    /// How the node ends the pod, if it does.
    pub fn ended(&self, uid: &str) -> Option<Ended> {
        let all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).cloned()
    }

    pub(super) fn wake_by(&self, uid: &str, poke: Arc<Notify>) {
        let mut pokes = self.pokes.lock().unwrap_or_else(PoisonError::into_inner);
        pokes.insert(uid.to_owned(), poke);
    }

    pub(super) fn set(&self, desired: Arc<Desired>) {
        let mut known = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(desired.uid.clone(), desired);
    }

    pub(super) fn forget(&self, uid: &str) {
        let mut known = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(uid);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.remove(uid);
        let mut pokes = self.pokes.lock().unwrap_or_else(PoisonError::into_inner);
        pokes.remove(uid);
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
