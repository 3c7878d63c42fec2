//! Leases: a key lives at least as long as its lease was promised, counted from when the last acknowledged grant or
//! keep-alive was sent; and not much longer, counted from when the last one was over, from the last fault and from the last
//! change of leader, each of which may begin the time anew.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, FaultSpan, Outcome, Request, Timeline, Told};
use std::collections::BTreeMap;

/// What an expiry may take beyond its time: an election, the expiry's own commit, and a machine that others use.
const SLACK_NS: u64 = 8 * NS;
const NS: u64 = 1_000_000_000;

#[derive(Default)]
struct Lease<'a> {
    /// Grant and keep-alives, by invocation.
    prolonged: Vec<&'a Attempt>,
    revoked: Vec<&'a Attempt>,
    asked: Vec<&'a Attempt>,
}

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut leases: BTreeMap<u64, Lease> = BTreeMap::new();
    let mut checked = Checked::default();
    for attempt in &timeline.attempts {
        match attempt.request {
            Request::Grant { lease, .. } | Request::KeepAlive { lease } => {
                leases.entry(lease).or_default().prolonged.push(attempt);
            }
            Request::Revoke { lease } => leases.entry(lease).or_default().revoked.push(attempt),
            Request::IsAttached { lease } => leases.entry(lease).or_default().asked.push(attempt),
            _ => continue,
        }
        checked.ops += 1;
    }
    checked.subjects = leases.len();
    for (name, lease) in &leases {
        let name = format!("lease {name}");
        checked
            .anomalies
            .extend(early(&name, lease, &timeline.faults));
        checked.anomalies.extend(late(&name, lease, timeline));
    }
    checked
}

/// The seconds that an acknowledged grant or keep-alive gave; None where it gave nothing.
fn given(attempt: &Attempt) -> Option<u64> {
    match attempt.reply()?.told {
        Told::Lease { ttl } if ttl > 0 => Some(ttl),
        _ => None,
    }
}

/// Who was told that the lease was gone although its time was not over.
fn early(name: &str, lease: &Lease, faults: &[FaultSpan]) -> Option<Anomaly> {
    let told_gone = |attempt: &&&Attempt| {
        attempt.reply().is_some_and(|reply| match &reply.told {
            Told::Held { held } => !held,
            Told::Lease { ttl } => *ttl == 0,
            _ => false,
        })
    };
    let asked = lease.asked.iter().chain(&lease.prolonged);
    for gone in asked.filter(told_gone) {
        let is_revoked = lease
            .revoked
            .iter()
            .any(|revoke| revoke.invoked_ns < gone.ended_ns);
        let last = lease
            .prolonged
            .iter()
            .filter(|attempt| attempt.ended_ns < gone.ended_ns)
            .filter_map(|attempt| Some((*attempt, attempt.invoked_ns + given(attempt)? * NS)))
            .max_by_key(|(_, until)| *until);
        let Some((last, until)) = last.filter(|_| !is_revoked) else {
            continue;
        };
        if gone.ended_ns >= until || runs_too_fast(faults, last.invoked_ns, gone.ended_ns) {
            continue;
        }
        let why = format!(
            "it was gone {:.3} s before its time was over",
            (until - gone.ended_ns) as f64 / 1e9
        );
        return Some(Anomaly::new(Class::EarlyExpiry, name, *gone, [last], why));
    }
    None
}

/// Whether a member's clock was made to run faster meanwhile: then its seconds are shorter, and a lease is right to be.
fn runs_too_fast(faults: &[FaultSpan], from_ns: u64, until_ns: u64) -> bool {
    faults.iter().any(|fault| {
        fault.kind.contains("rate")
            && fault.skipped.is_none()
            && fault.from_ns < until_ns
            && fault.until_ns.is_none_or(|healed| healed > from_ns)
    })
}

/// Who saw the key long after the lease's time.
fn late(name: &str, lease: &Lease, timeline: &Timeline) -> Option<Anomaly> {
    let ttl = lease
        .prolonged
        .iter()
        .filter_map(|attempt| given(attempt))
        .max()?;
    let last = lease
        .prolonged
        .iter()
        .filter(|attempt| !matches!(attempt.outcome, Outcome::Fail(_)))
        .max_by_key(|attempt| attempt.ended_ns)?;
    for seen in &lease.asked {
        if seen.reply().map(|reply| &reply.told) != Some(&Told::Held { held: true }) {
            continue;
        }
        let Some(begun_anew) = begun_anew(timeline, seen) else {
            continue;
        };
        let until = last.ended_ns.max(begun_anew) + ttl * NS + SLACK_NS;
        if seen.invoked_ns > until {
            let why = format!(
                "its key was there {:.3} s after its time and all that may prolong it",
                (seen.invoked_ns - until) as f64 / 1e9
            );
            return Some(Anomaly::new(Class::LateExpiry, name, *seen, [*last], why));
        }
    }
    None
}

/// The last instant before `seen` at which a lease's time may have begun anew; None while a fault is in force.
fn begun_anew(timeline: &Timeline, seen: &Attempt) -> Option<u64> {
    let mut last = 0;
    for fault in timeline
        .faults
        .iter()
        .filter(|fault| fault.skipped.is_none())
    {
        if fault.from_ns < seen.ended_ns {
            last = last.max(fault.until_ns.filter(|until| *until < seen.invoked_ns)?);
        }
    }
    let leaders = timeline.leaders.iter().map(|(ns, ..)| *ns);
    Some(
        leaders
            .filter(|ns| *ns < seen.ended_ns)
            .fold(last, u64::max),
    )
}
