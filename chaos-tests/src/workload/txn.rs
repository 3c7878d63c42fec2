//! Transactions over several keys: some steps each, on lists or on registers. A key is left for the next one while its list is
//! short.

use super::process::{Process, Shared};
use super::{Kind, LAST_WORD_DEADLINE, number, together};
use crate::history::{Request, Step};
use rand::RngExt;
use std::sync::{Arc, Mutex};

const PROCESSES: u64 = 8;
/// Keys in use at any time.
const KEYS: usize = 5;
/// Writes to a key before the next takes its place.
const WRITES_PER_KEY: u32 = 40;
const STEPS_MAX: usize = 4;

struct Keys {
    lists: bool,
    in_use: Mutex<Vec<(u64, u32)>>,
}

pub(super) async fn run(shared: Arc<Shared>, per_second: f64, lists: bool) -> Vec<String> {
    let kind = if lists { Kind::Append } else { Kind::Txn };
    let keys = Arc::new(Keys {
        lists,
        in_use: Mutex::new((0..KEYS as u64).map(|key| (key, 0)).collect()),
    });
    together(PROCESSES, |process| {
        let process = number(kind, 0, process);
        let process = Process::new(&shared, process, per_second / PROCESSES as f64);
        run_process(process, keys.clone())
    })
    .await;
    let mut last = Process::new(&shared, number(kind, 0, PROCESSES), per_second);
    let numbers: Vec<u64> = keys.in_use().iter().map(|(key, _)| *key).collect();
    let read = || {
        let steps = numbers.iter().map(|key| Step::Read {
            key: keys.name(*key),
        });
        Request::Txn {
            steps: steps.collect(),
        }
    };
    let word = last.insist(read, LAST_WORD_DEADLINE).await;
    let unread = word.is_none().then(|| format!("{} keys", kind.name()));
    unread.into_iter().collect()
}

async fn run_process(mut process: Process, keys: Arc<Keys>) {
    while process.is_due().await {
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..process.rng.random_range(1..=STEPS_MAX) {
            let step = keys.step(&mut process);
            // One step a key: what a transaction reads of a key is what was there before it.
            if steps.iter().all(|other| other.key() != step.key()) {
                steps.push(step);
            } else if let Step::Append { .. } = step
                && steps
                    .iter()
                    .all(|other| other.key() != step.key() || other.value().is_some())
            {
                // But two appends to one list, of which nobody may see the first alone.
                steps.push(step);
            }
        }
        process.ask(Request::Txn { steps }).await;
    }
}

impl Keys {
    fn name(&self, key: u64) -> String {
        let what = if self.lists { "list" } else { "cell" };
        format!("{what}-{key}")
    }

    fn in_use(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u32)>> {
        self.in_use.lock().expect("no holder of this lock panics")
    }

    fn step(&self, process: &mut Process) -> Step {
        let mut in_use = self.in_use();
        let place = process.rng.random_range(0..in_use.len());
        let next = in_use.iter().map(|(key, _)| key + 1).max().unwrap_or(0);
        let (key, writes) = &mut in_use[place];
        let name = self.name(*key);
        if process.rng.random() {
            return Step::Read { key: name };
        }
        *writes += 1;
        if *writes >= WRITES_PER_KEY {
            (*key, *writes) = (next, 0);
        }
        let value = process.shared.number();
        if self.lists {
            Step::Append { key: name, value }
        } else {
            Step::Write { key: name, value }
        }
    }
}
