//! What an administrator does while the load runs: members come, go and are replaced; leadership is handed on; old revisions are
//! compacted; snapshots are taken.

use super::{Effect, Fault};
use crate::history::{Event, Failure, Reply, Request, Told};
use anyhow::{Context, Result};
use rand::RngExt;
use rand::seq::IndexedRandom;
use std::time::Instant;

/// Revisions that a compaction leaves at most: few, so that watchers that resume run into it.
const KEEP_MAX: i64 = 200;

/// Requests of a fault are numbered from here on, so many a fault, far from those of the load.
const FIRST_REQUEST: u64 = 1 << 40;
const REQUESTS_MAX: u64 = 1000;

impl Fault<'_> {
    pub(super) async fn member_add(&mut self) -> Result<Effect> {
        let name = self.bed.add_member().await?;
        self.installed(std::slice::from_ref(&name));
        let began = Instant::now();
        self.bed.wait_until_whole().await?;
        let took = began.elapsed().as_secs_f64();
        self.hold().await?;
        self.bed.remove_member(&name).await?;
        Ok(Effect::Seen(format!(
            "{name} voted after {took:.1} s and was removed"
        )))
    }

    pub(super) async fn member_remove(&mut self) -> Result<Effect> {
        let name = self.any();
        self.bed.expel(&name).await?;
        self.installed(std::slice::from_ref(&name));
        self.hold().await?;
        self.rejoin(&name).await
    }

    pub(super) async fn member_replace(&mut self) -> Result<Effect> {
        let name = self.any();
        self.bed.kill(&name).await?;
        self.installed(std::slice::from_ref(&name));
        self.bed.expel(&name).await?;
        self.rejoin(&name).await
    }

    async fn rejoin(&mut self, name: &str) -> Result<Effect> {
        let began = Instant::now();
        self.bed.rejoin(name).await?;
        self.bed.wait_until_whole().await?;
        let took = began.elapsed().as_secs_f64();
        Ok(Effect::Seen(format!(
            "{name} voted again {took:.1} s after it joined with an empty disk"
        )))
    }

    pub(super) async fn leader_storm(&mut self) -> Result<Effect> {
        let probe = self.bed.probe()?;
        self.installed(&self.bed.names());
        let until = self.until();
        let (mut moved, mut refused) = (0, 0);
        while Instant::now() < until {
            if let Some(leader) = probe.leader().await {
                self.leader = leader.name;
                let others = self.others();
                let to = others.choose(&mut self.rng).context("there are others")?;
                match probe.move_leader(&self.leader, to).await {
                    Ok(()) => moved += 1,
                    Err(_) => refused += 1,
                }
            }
            self.wait(100..400).await?;
        }
        let what = format!("times leadership was handed on, {refused} times it was refused");
        Ok(Effect::counted(moved, &what))
    }

    /// Compactions are requests of the history, since watchers that are refused a revision must be able to name who forgot it.
    pub(super) async fn compaction(&mut self) -> Result<Effect> {
        let probe = self.bed.probe()?;
        self.installed(&self.bed.names());
        let until = self.until();
        let first = FIRST_REQUEST + u64::from(self.number) * REQUESTS_MAX;
        let (mut done, mut refused) = (0, 0);
        while Instant::now() < until && done + refused < REQUESTS_MAX {
            let name = self.any();
            if let Ok(status) = probe.status(&name).await {
                let at = (status.revision - self.rng.random_range(0..KEEP_MAX)).max(1);
                let id = first + done + refused;
                self.recorder.add(Event::Invoke {
                    id,
                    process: id,
                    server: name.clone(),
                    request: Request::Compact {
                        revision: at.cast_unsigned(),
                    },
                });
                // A revision that was compacted before is refused, which is no news.
                let answer = match probe.compact(&name, at).await {
                    Ok(()) => {
                        done += 1;
                        let reply = Reply {
                            revision: None,
                            told: Told::Done,
                        };
                        Event::Ok { id, reply }
                    }
                    Err(error) => {
                        refused += 1;
                        let error = Failure::new("compaction", format!("{error:#}"));
                        Event::Info { id, error }
                    }
                };
                self.recorder.add(answer);
            }
            self.wait(100..300).await?;
        }
        let what = format!("compactions, {refused} refused");
        Ok(Effect::counted(done, &what))
    }

    pub(super) async fn snapshot(&mut self) -> Result<Effect> {
        let probe = self.bed.probe()?;
        self.installed(&self.bed.names());
        let until = self.until();
        let (mut done, mut largest, mut refused) = (0, 0, 0);
        while Instant::now() < until {
            let name = self.any();
            match probe.snapshot(&name).await {
                Ok(bytes) => {
                    done += 1;
                    largest = bytes.max(largest);
                }
                Err(_) => refused += 1,
            }
            self.wait(50..200).await?;
        }
        let what = format!("snapshots of up to {largest} bytes, {refused} failed");
        Ok(Effect::counted(done, &what))
    }
}
