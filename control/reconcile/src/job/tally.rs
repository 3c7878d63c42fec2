//! Which of a job's pods ended, and which of these were counted. See [`super`] for the way from a pod to a count.

use super::is_tracked;
use crate::pods;
use crate::view::{self, Viewed};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use objects::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
}

/// The ended pods of a job.
pub struct Tally<'a> {
    counted: [usize; 2],
    /// Uids that are not in the counts yet.
    uncounted: BTreeMap<String, Outcome>,
    /// Pods whose uid the status names already: their finalizer may go.
    named: Vec<&'a Pod>,
    /// Ended pods with the time of their end, the newest last.
    ended: Vec<(Timestamp, Outcome)>,
}

impl<'a> Tally<'a> {
    /// Looks at the status and the pods.
    pub fn of(job: &Viewed<Job>, pods: &[&'a Pod]) -> Self {
        let status = job.object.body.get("status");
        let list = |name: &str| {
            let uncounted = status.and_then(|status| status.get("uncountedTerminatedPods"));
            let list = uncounted.and_then(|uncounted| uncounted.get(name)?.as_array());
            let list = list.into_iter().flatten().filter_map(Value::as_str);
            list.map(str::to_owned).collect::<Vec<String>>()
        };
        let told = [list("succeeded"), list("failed")];
        let number = |name: &str| {
            let number = status.and_then(|status| status.get(name)?.as_u64());
            usize::try_from(number.unwrap_or(0)).unwrap_or(usize::MAX)
        };
        // The status tells the sum of what was counted and what is named.
        let counted = [
            number("succeeded").saturating_sub(told[0].len()),
            number("failed").saturating_sub(told[1].len()),
        ];
        let mut tally = Tally {
            counted,
            uncounted: BTreeMap::new(),
            named: Vec::new(),
            ended: Vec::new(),
        };
        let outcomes = [Outcome::Succeeded, Outcome::Failed];
        for (uids, outcome) in told.iter().zip(outcomes) {
            tally.settle(uids, outcome, pods);
        }
        // A pod that is being deleted has failed already, unless its replacement waits for its end.
        let waits = job.spec("podReplacementPolicy") == Some(&json!("Failed"));
        for pod in pods {
            tally.look_at(pod, waits);
        }
        tally.ended.sort_by_key(|(at, _)| *at);
        tally
    }

    /// Counts those of the named pods whose finalizer is gone.
    fn settle(&mut self, uids: &[String], outcome: Outcome, pods: &[&'a Pod]) {
        for uid in uids {
            let pod = pods.iter().find(|pod| view::uid(&pod.metadata) == uid);
            match pod.filter(|pod| is_tracked(pod)) {
                Some(pod) => {
                    self.named.push(pod);
                    self.uncounted.insert(uid.clone(), outcome);
                }
                None => self.counted[outcome as usize] += 1,
            }
        }
    }

    fn look_at(&mut self, pod: &'a Pod, waits: bool) {
        // One without a node has nobody who would tell of its end.
        let is_lost = || pods::node_name(pod).is_none() || !waits;
        let outcome = match pods::phase(pod) {
            "Succeeded" => Outcome::Succeeded,
            "Failed" => Outcome::Failed,
            _ if pods::is_deleting(pod) && is_tracked(pod) && is_lost() => Outcome::Failed,
            _ => return,
        };
        self.ended.push((ended_at(pod), outcome));
        if is_tracked(pod) {
            let uid = view::uid(&pod.metadata).to_owned();
            self.uncounted.entry(uid).or_insert(outcome);
        }
    }

    fn total(&self, wanted: Outcome) -> usize {
        let uncounted = self
            .uncounted
            .values()
            .filter(|outcome| **outcome == wanted);
        self.counted[wanted as usize] + uncounted.count()
    }

    /// Pods that succeeded.
    pub fn succeeded(&self) -> usize {
        self.total(Outcome::Succeeded)
    }

    /// Pods that failed.
    pub fn failed(&self) -> usize {
        self.total(Outcome::Failed)
    }

    /// Whether some are still on their way into the counts.
    pub fn is_counting(&self) -> bool {
        !self.uncounted.is_empty()
    }

    /// Pods that the status names: what holds them may go.
    pub fn to_release(&self) -> impl Iterator<Item = &&'a Pod> {
        self.named.iter()
    }

    /// `status.uncountedTerminatedPods`.
    pub fn uncounted(&self) -> Value {
        let mut value = json!({});
        for (name, wanted) in [
            ("succeeded", Outcome::Succeeded),
            ("failed", Outcome::Failed),
        ] {
            let of_it = self
                .uncounted
                .iter()
                .filter(|(_, outcome)| **outcome == wanted);
            let uids: Vec<&String> = of_it.map(|(uid, _)| uid).collect();
            if !uids.is_empty() {
                value[name] = json!(uids);
            }
        }
        value
    }

    /// When a new pod may be tried after failures in a row.
    pub fn retry_at(&self, first: Duration, most: Duration) -> Option<Timestamp> {
        let newest = self.ended.iter().rev();
        let row = newest
            .take_while(|(_, outcome)| *outcome == Outcome::Failed)
            .count();
        let (last, _) = self.ended.last().filter(|_| row > 0)?;
        let doublings = u32::try_from(row - 1).unwrap_or(u32::MAX).min(16);
        Some(last.plus((first * 2u32.pow(doublings)).min(most)))
    }
}

/// When the last of the pod's containers ended, or else the pod's last known time.
fn ended_at(pod: &Pod) -> Timestamp {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| Timestamp(time.0))
    });
    let condition = || {
        let ready = pods::condition(pod, "Ready")?;
        ready
            .last_transition_time
            .as_ref()
            .map(|time| Timestamp(time.0))
    };
    let deleted = || {
        pod.metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| Timestamp(time.0))
    };
    ends.max()
        .or_else(condition)
        .or_else(deleted)
        .or_else(|| view::created(&pod.metadata))
        .unwrap_or(Timestamp::from_unix(0))
}
