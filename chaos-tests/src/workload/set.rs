//! Sets: elements are created once, some are removed, lists tell what is there. A set is left for the next one while it can be
//! listed in one answer.

use super::process::{Process, Shared};
use super::{Kind, LAST_WORD_DEADLINE, number, together};
use crate::history::{Outcome, Request};
use rand::RngExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const PROCESSES: u64 = 5;
/// Operations on a set before the next takes its place.
const OPS_PER_SET: u32 = 400;

struct Set {
    name: String,
    ops_left: AtomicU32,
    /// Elements acknowledged and not yet removed by anybody.
    removable: Mutex<Vec<u64>>,
}

pub(super) async fn run(shared: Arc<Shared>, per_second: f64) -> Vec<String> {
    let mut unread = Vec::new();
    for generation in 0_u64.. {
        if shared.stop.is_cancelled() {
            break;
        }
        let set = Arc::new(Set {
            name: format!("set-{generation}"),
            ops_left: AtomicU32::new(OPS_PER_SET),
            removable: Mutex::default(),
        });
        let numbers = |process| number(Kind::Set, generation, process);
        together(PROCESSES, |process| {
            let process = Process::new(&shared, numbers(process), per_second / PROCESSES as f64);
            run_process(process, set.clone())
        })
        .await;
        let mut last = Process::new(&shared, numbers(PROCESSES), per_second);
        if last
            .insist(|| set.list(), LAST_WORD_DEADLINE)
            .await
            .is_none()
        {
            unread.push(set.name.clone());
        }
    }
    unread
}

async fn run_process(mut process: Process, set: Arc<Set>) {
    let take = |left: u32| left.checked_sub(1);
    while process.is_due().await {
        let left = &set.ops_left;
        if left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_err()
        {
            return;
        }
        match process.rng.random_range(0..20) {
            0..4 => drop(process.ask(set.list()).await),
            4..8 => {
                let element = set.removable().pop();
                if let Some(element) = element {
                    let set = set.name.clone();
                    process.ask(Request::Remove { set, element }).await;
                }
            }
            _ => {
                let element = process.shared.number();
                let add = Request::Add {
                    set: set.name.clone(),
                    element,
                };
                let outcome = process.ask(add).await;
                if matches!(outcome, Outcome::Ok(_)) && process.rng.random() {
                    set.removable().push(element);
                }
            }
        }
    }
}

impl Set {
    fn list(&self) -> Request {
        Request::Elements {
            set: self.name.clone(),
        }
    }

    fn removable(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.removable
            .lock()
            .expect("no holder of this lock panics")
    }
}
