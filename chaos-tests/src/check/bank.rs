//! A bank: transfers move money and make none, so that the accounts at any one revision have the sum with which they were
//! opened; and a revision's balances are the same whoever tells them, whenever.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Request, Timeline, Told};
use std::collections::HashMap;

/// With what each account is opened.
pub const OPENED_WITH: i64 = 100;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut checked = Checked::default();
    let mut told_at: HashMap<u64, (&Attempt, &[i64])> = HashMap::new();
    for attempt in &timeline.attempts {
        let at = match &attempt.request {
            Request::Balances { at } => *at,
            Request::Transfer { .. } => {
                checked.ops += 1;
                continue;
            }
            _ => continue,
        };
        let Some(reply) = attempt.reply() else {
            continue;
        };
        let Told::Balances { accounts } = &reply.told else {
            continue;
        };
        checked.ops += 1;
        checked.subjects = accounts.len();
        let (sum, expected) = (
            accounts.iter().sum::<i64>(),
            OPENED_WITH * accounts.len() as i64,
        );
        if sum != expected {
            let why = format!("the sum is {sum}, and was {expected} from the beginning");
            let anomaly = Anomaly::new(Class::WrongSum, "the bank", attempt, [], why);
            checked.anomalies.push(anomaly);
        }
        let Some(revision) = at.or(reply.revision) else {
            continue;
        };
        let (other, before) = *told_at.entry(revision).or_insert((attempt, accounts));
        if before != accounts.as_slice() {
            let why = format!("two answers differ about revision {revision}");
            let anomaly = Anomaly::new(Class::Divergent, "the bank", attempt, [other], why);
            checked.anomalies.push(anomaly);
        }
    }
    checked
}
