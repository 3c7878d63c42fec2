//! One file a figure; each loads both sides and says what it saw.

pub mod crash;
pub mod rates;
pub mod size;
pub mod stages;
pub mod watch;

use crate::sides::{Kind, Side};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;

/// How much is measured.
pub struct Plan {
    /// Below which folder the members write.
    pub dir: PathBuf,
    /// Rounds of each side.
    pub rounds: usize,
    /// How long a round takes.
    pub time: Duration,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// How often the leader is killed.
    pub kills: usize,
    /// How long the full load without an election lasts.
    pub full_load: Duration,
    /// How many clients put meanwhile.
    pub full_load_clients: usize,
    /// Bytes of state at the restart.
    pub state_bytes: u64,
}

/// The two sides, beside each other.
pub struct Pair {
    pub ours: Side,
    pub etcd: Side,
}

impl Pair {
    /// Both without data, below a folder of their own.
    pub async fn start(plan: &Plan, name: &str) -> Result<Pair> {
        let dir = (0..)
            .map(|number| plan.dir.join(format!("{name}{number}")))
            .find(|dir| !dir.exists())
            .context("a folder is always free")?;
        std::fs::create_dir_all(&dir)?;
        eprintln!("{name}: starting both sides");
        Ok(Pair {
            ours: Side::start(Kind::Trireme, &dir).await?,
            etcd: Side::start(Kind::Etcd, &dir).await?,
        })
    }

    /// Each side's turn of a round; who begins changes from round to round.
    pub fn in_turns(&mut self, round: usize) -> [(usize, &mut Side); 2] {
        let (ours, etcd) = ((0, &mut self.ours), (1, &mut self.etcd));
        match round % 2 {
            0 => [ours, etcd],
            _ => [etcd, ours],
        }
    }
}
