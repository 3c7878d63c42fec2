//! A bank: transfers, and all balances at one revision, now or a while ago.

use super::ask::account_key;
use super::process::{Process, Shared};
use super::{Kind, LAST_WORD_DEADLINE, number, together};
use crate::check::OPENED_WITH;
use crate::history::{Outcome, Request, Told};
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;

const PROCESSES: u64 = 4;
const ACCOUNTS: u32 = 8;
/// How many revisions ago the past is asked.
const AGO_MAX: u64 = 200;

pub(super) async fn run(shared: Arc<Shared>, per_second: f64) -> Vec<String> {
    let mut last = Process::new(&shared, number(Kind::Bank, 0, PROCESSES), per_second);
    let Some(opened) = open(&mut last).await else {
        return vec!["the bank's accounts could not be opened".to_owned()];
    };
    together(PROCESSES, |process| {
        let process = number(Kind::Bank, 0, process);
        let process = Process::new(&shared, process, per_second / PROCESSES as f64);
        run_process(process, opened)
    })
    .await;
    let all = || Request::Balances { at: None };
    let word = last.insist(all, LAST_WORD_DEADLINE).await;
    let unread = word.is_none().then(|| "the bank".to_owned());
    unread.into_iter().collect()
}

/// Opens all accounts, which is no part of the history; the revision at which all are open.
async fn open(maker: &mut Process) -> Option<u64> {
    for account in 0..ACCOUNTS {
        for at in 0.. {
            let make = Request::Cas {
                key: account_key(account),
                from: 0,
                value: OPENED_WITH as u64,
                revision: 0,
            };
            maker.prepare(at, &make).await;
            let read = Request::Read {
                key: account_key(account),
                serializable: false,
            };
            if let Outcome::Ok(reply) = maker.prepare(at, &read).await
                && let Told::Value { value: Some(_), .. } = reply.told
            {
                if account + 1 == ACCOUNTS {
                    return reply.revision;
                }
                break;
            }
            if !maker.rest(Duration::from_millis(200)).await {
                return None;
            }
        }
    }
    None
}

async fn run_process(mut process: Process, opened: u64) {
    while process.is_due().await {
        let request = match process.rng.random_range(0..10) {
            0..7 => {
                let from = process.rng.random_range(0..ACCOUNTS);
                let to = (from + process.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let amount = process.rng.random_range(1..10);
                Request::Transfer { from, to, amount }
            }
            7..9 => Request::Balances { at: None },
            _ => {
                let ago = process.rng.random_range(0..AGO_MAX);
                let at = process.shared.newest().saturating_sub(ago).max(opened);
                Request::Balances { at: Some(at) }
            }
        };
        process.ask(request).await;
    }
}
