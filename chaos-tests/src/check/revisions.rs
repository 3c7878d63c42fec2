//! The store counts its changes, and names the count with every answer. Over all requests of a run, whatever they ask: who
//! begins after another is over is never told an earlier count, who changed something has a later one, and no two changes
//! have the same. O(n log n). The rule is etcd's: a revision a transaction, never reused.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Timeline};
use std::collections::HashMap;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut told: Vec<(&Attempt, u64)> = timeline
        .attempts
        .iter()
        .filter(|attempt| attempt.request.is_linearizable())
        .filter_map(|attempt| Some((attempt, attempt.reply()?.revision?)))
        .collect();
    let mut anomalies = given_twice(&told);
    anomalies.extend(against_real_time(&mut told));
    Checked {
        subjects: usize::from(!told.is_empty()),
        ops: told.len(),
        anomalies,
        ..Checked::default()
    }
}

fn given_twice(told: &[(&Attempt, u64)]) -> Vec<Anomaly> {
    let mut owners: HashMap<u64, &Attempt> = HashMap::new();
    let mut found = Vec::new();
    for (attempt, revision) in told
        .iter()
        .filter(|(attempt, _)| attempt.may_have_changed())
    {
        if let Some(other) = owners.insert(*revision, attempt) {
            let why = format!("revision {revision} was given to two changes; one of them is lost");
            found.push(Anomaly::new(
                Class::RevisionWentBack,
                "the store",
                *attempt,
                [other],
                why,
            ));
        }
    }
    found
}

fn against_real_time(told: &mut [(&Attempt, u64)]) -> Vec<Anomaly> {
    let mut ended: Vec<(&Attempt, u64)> = told.to_vec();
    ended.sort_by_key(|(attempt, _)| attempt.ended_ns);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(&Attempt, u64)> = None;
    let mut found = Vec::new();
    told.sort_by_key(|(attempt, _)| attempt.invoked_ns);
    for (attempt, revision) in told.iter() {
        while let Some(before) = ended.next_if(|(before, _)| before.ended_ns < attempt.invoked_ns) {
            if newest.is_none_or(|(_, highest)| highest < before.1) {
                newest = Some(before);
            }
        }
        let Some((before, highest)) = newest else {
            continue;
        };
        let is_late = *revision < highest || *revision == highest && attempt.may_have_changed();
        if is_late {
            let why = format!(
                "the store was at revision {highest} before this was sent, and answered it at revision {revision}"
            );
            found.push(Anomaly::new(
                Class::RevisionWentBack,
                "the store",
                *attempt,
                [before],
                why,
            ));
        }
    }
    found
}
