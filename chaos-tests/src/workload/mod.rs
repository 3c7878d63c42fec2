//! What clients do to a store while it is broken, through the etcd v3 API.
//!
//! A process has one request at a time and never repeats one; what is unknown stays unknown. Each workload keeps its keys
//! apart from the others' and ends, when everything is healed, with a last word on them.

mod admin;
mod ask;
mod bank;
mod client;
mod keep;
mod lease;
mod lock;
mod process;
mod register;
mod set;
mod txn;
mod watch;

pub use keep::Keepers;

use crate::history::Recorder;
use crate::testbed::Endpoint;
use process::Shared;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the last word on a key may take to be answered, once everything is healed.
const LAST_WORD_DEADLINE: Duration = Duration::from_secs(20);

/// A workload.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Registers that are read, written, compared and swapped
    Register,
    /// Registers of which half of the reads ask for no more than any member's own state
    Stale,
    /// Sets whose elements are created once, removed and listed
    Set,
    /// Transactions that read lists and append to them
    Append,
    /// Transactions that read and write registers
    Txn,
    /// Transfers between accounts, and their sum now and in the past
    Bank,
    /// Watches from now and from the past, with filters, resumed at other members
    Watch,
    /// Leases kept alive and left to expire
    Lease,
    /// Locks with a lease, and writes on the condition of holding them
    Lock,
    /// The same without the condition: shown to be unsafe, as etcd documents it
    LockUnfenced,
    /// Compaction, hashes of all members, snapshots
    Admin,
}

impl Kind {
    /// What runs where nothing is said: all that is expected to be right.
    pub const USUAL: [Kind; 9] = [
        Kind::Register,
        Kind::Set,
        Kind::Append,
        Kind::Txn,
        Kind::Bank,
        Kind::Watch,
        Kind::Lease,
        Kind::Lock,
        Kind::Admin,
    ];

    /// As it is typed.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What is asked of the members.
pub struct Load {
    /// The workloads.
    pub kinds: Vec<Kind>,
    /// The members; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Before every key, so that runs on one store keep apart.
    pub prefix: String,
    /// Operations a second, in all.
    pub rate: u32,
    /// Registers in use at any time.
    pub lanes: u32,
    /// Decides who asks what; what comes of it depends on the machine too.
    pub seed: u64,
    /// Planted fault: reads take any member's word.
    pub stale_reads: bool,
}

/// Runs until `stop`, then says the last word on every key. What could not be said is returned.
pub async fn run(load: Load, recorder: Arc<Recorder>, stop: CancellationToken) -> Vec<String> {
    let shared = Arc::new(Shared {
        endpoints: load.endpoints,
        prefix: load.prefix,
        recorder,
        stop,
        seed: load.seed,
        stale_reads: load.stale_reads,
        next_process: AtomicU64::new(0),
        next_id: AtomicU64::new(1),
        newest: AtomicU64::new(0),
    });
    let per_second = f64::from(load.rate.max(1)) / load.kinds.len().max(1) as f64;
    let running: Vec<_> = load
        .kinds
        .iter()
        .map(|kind| tokio::spawn(one(*kind, shared.clone(), per_second, load.lanes)))
        .collect();
    let mut problems = Vec::new();
    for workload in running {
        problems.extend(workload.await.expect("a workload does not panic"));
    }
    problems
}

async fn one(kind: Kind, shared: Arc<Shared>, per_second: f64, lanes: u32) -> Vec<String> {
    match kind {
        Kind::Register => register::run(shared, per_second, lanes, false).await,
        Kind::Stale => register::run(shared, per_second, lanes, true).await,
        Kind::Set => set::run(shared, per_second).await,
        Kind::Append => txn::run(shared, per_second, true).await,
        Kind::Txn => txn::run(shared, per_second, false).await,
        Kind::Bank => bank::run(shared, per_second).await,
        Kind::Watch => watch::run(shared, per_second).await,
        Kind::Lease => lease::run(shared, per_second).await,
        Kind::Lock => lock::run(shared, per_second, true).await,
        Kind::LockUnfenced => lock::run(shared, per_second, false).await,
        Kind::Admin => admin::run(shared).await,
    }
}

/// Runs processes of one workload until all are over.
async fn together<F: Future<Output = ()> + Send + 'static>(count: u64, process: impl Fn(u64) -> F) {
    let processes: Vec<_> = (0..count)
        .map(|number| tokio::spawn(process(number)))
        .collect();
    for process in processes {
        process.await.expect("a process does not panic");
    }
}

/// Processes of different workloads get different random numbers.
fn number(kind: Kind, lane: u64, process: u64) -> u64 {
    (kind as u64 + 1) << 48 | lane << 8 | process
}
