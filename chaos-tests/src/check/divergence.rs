//! Members hash what they hold at a revision. The same revision, compacted to the same one, has the same hash everywhere; and a
//! snapshot that a member hands out is the one that it made.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Request, Timeline, Told};
use std::collections::HashMap;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut checked = Checked::default();
    let mut known: HashMap<(u64, u64), (&Attempt, u64)> = HashMap::new();
    for attempt in &timeline.attempts {
        if let Some(Told::Snapshot { whole: false, .. }) = attempt.reply().map(|reply| &reply.told)
        {
            let why = "its checksum is wrong";
            let anomaly = Anomaly::new(Class::TornSnapshot, &attempt.server, attempt, [], why);
            checked.anomalies.push(anomaly);
        }
        let Request::Hash { revision } = attempt.request else {
            continue;
        };
        let Some(Told::Hash { hash, compacted }) = attempt.reply().map(|reply| &reply.told) else {
            continue;
        };
        checked.ops += 1;
        let (other, before) = *known
            .entry((revision, *compacted))
            .or_insert((attempt, *hash));
        if before != *hash {
            let why = format!(
                "{} and {} have different hashes at revision {revision}, both compacted to {compacted}",
                other.server, attempt.server
            );
            let anomaly = Anomaly::new(Class::Divergent, "the store", attempt, [other], why);
            checked.anomalies.push(anomaly);
        }
    }
    checked.subjects = known.len();
    checked
}
