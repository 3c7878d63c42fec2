//! Names what is wrong with a register as a person would name it.
//! Never decides whether a history is legal; `wgl` and `witness` do.

use super::anomaly::{Anomaly, Class, Moment};
use super::register::{ABSENT, Action, INITIAL, Op};
use super::wgl::Fault;

/// How much of the last good order is told.
const LAST_GOOD_TOLD: usize = 8;

/// The anomaly behind a fault that the search found.
pub(super) fn of_fault(key: &str, ops: &[Op], fault: &Fault) -> Anomaly {
    let offending = &ops[fault.offending];
    // Without revisions the order of concurrent writes is open, so that the first answer that cannot be may come after
    // the wrong one. Where revisions name an earlier one, it is told.
    let (class, why) = match super::witness::first_of_key(key, ops, offending) {
        Some(earlier) => {
            let why = format!(
                "{}; by the revisions: {}",
                earlier.offending.text, earlier.why
            );
            (earlier.class, why)
        }
        None => classify(ops, offending),
    };
    let told = fault.last_good.len().saturating_sub(LAST_GOOD_TOLD);
    let overlaps =
        |op: &&Op| op.id != offending.id && !op.is_before(offending) && !offending.is_before(op);
    let against = fault.last_good[told..].iter().map(|&at| &ops[at]);
    Anomaly {
        concurrent: ops.iter().filter(overlaps).map(Moment::from).collect(),
        ..Anomaly::new(class, key, offending, against, why)
    }
}

fn classify(ops: &[Op], offending: &Op) -> (Class, String) {
    match offending.action {
        Action::Read(ABSENT) => classify_absent(ops, offending),
        Action::Read(value) => classify_read(ops, offending, value),
        Action::Cas {
            from,
            swapped: true,
            ..
        } => {
            let why = format!(
                "it swapped {from} although that had been overwritten: what was written in between is lost"
            );
            (Class::LostWrite, why)
        }
        Action::Cas { from, .. } => {
            let why = format!("it was refused, though the register held {from} all the while");
            (Class::NotLinearizable, why)
        }
        Action::Write(_) => {
            let why = "no order explains what was told until this write was acknowledged";
            (Class::NotLinearizable, why.to_owned())
        }
    }
}

fn classify_read(ops: &[Op], read: &Op, value: u64) -> (Class, String) {
    let writer = ops.iter().find(|op| op.action.writes() == Some(value));
    if value != INITIAL {
        let Some(writer) = writer else {
            let why = format!("nobody wrote {value}, or its write was told to have failed");
            return (Class::Phantom, why);
        };
        if read.is_before(writer) {
            return (
                Class::Phantom,
                format!("{value} was read before anybody wrote it"),
            );
        }
        if let (Some(seen), Some(written)) = (read.revision, writer.revision)
            && seen > written
        {
            let why = format!(
                "{value} was written at revision {written}, overwritten, and there again at revision {seen}"
            );
            return (Class::Duplicate, why);
        }
    }
    let class = stale_or_lost(ops, read);
    let why = match class {
        Class::LostWrite => format!(
            "{value} was read after a newer write had been acknowledged, and the newer one was never seen again"
        ),
        _ => format!(
            "{value} was read after a newer write had been acknowledged, and the newer one was there for others"
        ),
    };
    (class, why)
}

/// There was no object, though one had been made and nobody deletes any.
pub(super) fn classify_absent(ops: &[Op], read: &Op) -> (Class, String) {
    let is_there_later = ops.iter().any(|op| {
        op.invoked_ns > read.invoked_ns
            && op.returned_ns.is_some()
            && op.action.observes().is_some_and(|value| value != ABSENT)
    });
    if is_there_later {
        let why = "no object was found, though it had been made and others saw it later";
        (Class::StaleRead, why.to_owned())
    } else {
        let why = "the object was gone for good, though nobody deleted it";
        (Class::LostWrite, why.to_owned())
    }
}

/// An overwritten value was read: is the newer one lost, or was only the read stale? Lost, where nobody sees it any more.
pub(super) fn stale_or_lost(ops: &[Op], read: &Op) -> Class {
    let written_at = ops
        .iter()
        .find(|op| op.action.writes() == read.action.observes())
        .and_then(|writer| writer.returned_ns)
        .unwrap_or(0);
    let is_newer = |op: &&Op| match (op.revision, read.revision) {
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => op.invoked_ns > written_at,
    };
    let newer: Vec<u64> = ops
        .iter()
        .filter(|op| op.is_before(read))
        .filter(is_newer)
        .filter_map(|op| op.action.writes().or(op.action.observes()))
        .collect();
    // The newer writes were acknowledged when the read was sent, so whoever came later had to see them.
    let later = |op: &&Op| op.invoked_ns > read.invoked_ns;
    let seen_later: Vec<&Op> = ops
        .iter()
        .filter(later)
        .filter(|op| op.returned_ns.is_some() && op.action.observes().is_some())
        .collect();
    let is_newer_seen = |op: &Op| {
        op.action
            .observes()
            .is_some_and(|value| newer.contains(&value))
    };
    if seen_later.iter().any(|op| is_newer_seen(op)) {
        return Class::StaleRead;
    }
    let is_same = |op: &Op| op.action.observes() == read.action.observes();
    let was_seen = ops
        .iter()
        .any(|op| op.returned_ns.is_some() && is_newer_seen(op));
    let is_lost = if was_seen {
        seen_later.iter().all(|op| is_same(op))
    } else {
        seen_later.first().is_none_or(|op| is_same(op))
    };
    if is_lost {
        Class::LostWrite
    } else {
        Class::StaleRead
    }
}
