//! Locks: a lock is a key with a lease, and the revision that created it is its holder's token. A lease may end under a
//! holder who does not know, so only a write on the condition that the token still holds is safe; one without is shown to
//! be unsafe by the same rule: when a write takes effect, nobody has taken the lock since the writer did.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Request, Timeline};
use std::collections::BTreeMap;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut takers: BTreeMap<&str, BTreeMap<u64, &Attempt>> = BTreeMap::new();
    for attempt in &timeline.attempts {
        if let Request::Acquire { lock, .. } = &attempt.request
            && let Some(reply) = attempt.reply()
            && let (true, Some(revision)) = (reply.took_effect(), reply.revision)
        {
            takers.entry(lock).or_default().insert(revision, attempt);
        }
    }
    let mut checked = Checked {
        subjects: takers.len(),
        ops: takers.values().map(BTreeMap::len).sum(),
        ..Checked::default()
    };
    for attempt in &timeline.attempts {
        let Request::Guarded { lock, token, .. } = &attempt.request else {
            continue;
        };
        checked.ops += 1;
        let Some(reply) = attempt.reply().filter(|reply| reply.took_effect()) else {
            continue;
        };
        let (Some(revision), Some(takers)) = (reply.revision, takers.get(lock.as_str())) else {
            continue;
        };
        let mut later = takers.range(token + 1..);
        if let Some((taken, taker)) = later.next().filter(|(taken, _)| **taken < revision) {
            let why = format!(
                "written at revision {revision} by who took the lock at {token}, though another had taken it at {taken}"
            );
            let anomaly = Anomaly::new(Class::LockBroken, lock, attempt, [*taker], why);
            checked.anomalies.push(anomaly);
        }
    }
    checked
}
