//! Terms: a member never tells a lower one than it told before. A term counts from the vote that is on its disk, so that a lower
//! one shows a vote that was given and forgotten (Raft, figure 2: persistent state is updated before answering). A member that
//! comes back with an empty disk has another number; one whose files were damaged is let be, since what it had is gone.

use super::Checked;
use super::anomaly::{Anomaly, Class, Moment};
use crate::history::{TermTold, Timeline};
use crate::nemesis::Kind;
use std::collections::BTreeMap;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut highest: BTreeMap<u64, &TermTold> = BTreeMap::new();
    let mut checked = Checked {
        ops: timeline.terms.len(),
        ..Checked::default()
    };
    for told in &timeline.terms {
        let before = *highest.entry(told.member).or_insert(told);
        if told.term >= before.term {
            highest.insert(told.member, told);
        } else if !is_damaged(timeline, before, told) {
            let why = format!(
                "{} was in term {} before: what it voted there is forgotten",
                told.name, before.term
            );
            let anomaly = Anomaly::new(
                Class::TermWentBack,
                &told.name,
                moment(told),
                [moment(before)],
                why,
            );
            checked.anomalies.push(anomaly);
            highest.insert(told.member, told);
        }
    }
    checked.subjects = highest.len();
    checked
}

/// Whether the member's files were damaged between the two.
fn is_damaged(timeline: &Timeline, before: &TermTold, told: &TermTold) -> bool {
    timeline.faults.iter().any(|fault| {
        let damages = fault.kind.parse().is_ok_and(Kind::damages_files);
        damages
            && fault.targets.contains(&told.name)
            && fault.from_ns < told.ns
            && fault.until_ns.is_none_or(|until| until > before.ns)
    })
}

fn moment(told: &TermTold) -> Moment {
    Moment {
        id: told.member,
        from_ns: told.ns,
        until_ns: Some(told.ns),
        text: format!("member {} ({}): term {}", told.member, told.name, told.term),
    }
}
