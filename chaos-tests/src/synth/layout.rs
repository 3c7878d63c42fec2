//! Turns operations that took effect one after another into the history that concurrent processes would have written. Pure.

use crate::history::{Event, Failure, Record, Reply, Request, WatchPart};
use rand::RngExt;
use rand::rngs::StdRng;

/// Between two operations' effects.
pub const STEP_NS: u64 = 500_000;
/// How long before its effect an operation is sent, and how long after it is answered, at most.
const AROUND_NS: u64 = 2_000_000;
/// Operations further apart than this are never concurrent.
pub const APART: usize = (2 * AROUND_NS / STEP_NS) as usize + 1;

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum End {
    Ok(Reply),
    Fail,
    Info,
}

/// Something that took effect at an instant.
#[derive(Clone, Debug)]
pub enum Made {
    Op {
        ns: u64,
        request: Request,
        end: End,
    },
    Watch {
        ns: u64,
        watch: u64,
        part: WatchPart,
    },
}

impl Made {
    pub fn op(ns: u64, request: Request, end: End) -> Self {
        Made::Op { ns, request, end }
    }
}

/// Gives each operation a process and a time around its effect.
pub fn lay_out(rng: &mut StdRng, made: Vec<Made>) -> Vec<Record> {
    let mut records = Vec::new();
    let mut free_at: Vec<u64> = Vec::new();
    for (id, made) in made.into_iter().enumerate() {
        let (ns, request, end) = match made {
            Made::Watch { ns, watch, part } => {
                let event = Event::Watch { watch, part };
                records.push(Record { ns, event });
                continue;
            }
            Made::Op { ns, request, end } => (ns, request, end),
        };
        let from = ns.saturating_sub(rng.random_range(0..AROUND_NS));
        let until = ns + rng.random_range(1..AROUND_NS);
        let process = free_at.iter().position(|free| *free < from);
        let process = process.unwrap_or_else(|| {
            free_at.push(0);
            free_at.len() - 1
        });
        let id = id as u64;
        let error = Failure::new("synthetic", "the answer was lost");
        let (end, free) = match end {
            End::Ok(reply) => (Event::Ok { id, reply }, until),
            End::Fail => (Event::Fail { id, error }, until),
            End::Info => (Event::Info { id, error }, u64::MAX),
        };
        free_at[process] = free;
        let invoke = Event::Invoke {
            id,
            process: process as u64,
            server: format!("m{}", process % 3 + 1),
            request,
        };
        records.push(Record {
            ns: from,
            event: invoke,
        });
        records.push(Record {
            ns: until,
            event: end,
        });
    }
    records.sort_by_key(|record| record.ns);
    records
}

/// Of a hundred writes, two have an unknown outcome; of those one took effect.
pub fn luck(rng: &mut StdRng) -> Luck {
    match rng.random_range(0..200) {
        0..2 => Luck::LostDone,
        2..4 => Luck::LostNotDone,
        4..8 => Luck::Refused,
        _ => Luck::Done,
    }
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Done,
    Refused,
    LostDone,
    LostNotDone,
}

impl Luck {
    pub fn takes_effect(self) -> bool {
        matches!(self, Luck::Done | Luck::LostDone)
    }

    pub fn end(self, reply: Reply) -> End {
        match self {
            Luck::Done => End::Ok(reply),
            Luck::Refused => End::Fail,
            Luck::LostDone | Luck::LostNotDone => End::Info,
        }
    }
}
