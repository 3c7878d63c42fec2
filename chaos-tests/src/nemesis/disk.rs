//! Power, failing and slow calls, full disks.

use super::{Effect, Fault, Kind};
use crate::history::Event;
use crate::injector::{Calls, Effect as CallEffect};
use crate::testbed::{Canaries, Probe, Status};
use anyhow::{Result, ensure};
use nix::errno::Errno;
use rand::RngExt;
use std::time::{Duration, Instant};

/// A disk with less room than this is full: no file of a store grows by less.
const FULL: u64 = 64 << 10;
/// What a sync takes longer while members vote.
const SLOW_VOTE: Duration = Duration::from_millis(900);
/// Members whose leader is dead ask for votes within this, also on such disks.
const VOTES_DEADLINE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

impl Fault<'_> {
    /// The power of all targets is lost at one moment; the processes, which would see errors afterwards, are killed.
    pub(super) async fn power_loss(&mut self, targets: Vec<String>) -> Result<Effect> {
        let canaries = self.set_canaries(&targets)?;
        self.installed(&targets);
        self.lose_power(&canaries).await
    }

    /// Syncs take so long that a vote which is told without one is surely not on the disk yet when the power goes, nor is the entry
    /// that a new leader writes after it, whose sync would bring the vote along.
    pub(super) async fn power_loss_in_election(&mut self) -> Result<Effect> {
        let (names, probe) = (self.bed.names(), self.bed.probe()?);
        let canaries = self.set_canaries(&names)?;
        let before = told(&probe).await;
        for name in &names {
            let delay = CallEffect::Delay(SLOW_VOTE);
            self.bed.injector(name)?.set(Calls::Sync, delay);
        }
        self.installed(&names);
        self.bed.kill(&self.leader.clone()).await?;
        let until = Instant::now() + VOTES_DEADLINE;
        let voted = loop {
            let told = told(&probe).await;
            let voted = match self.bed.target().tells_votes() {
                true => raised(&before, told),
                // Who follows nobody asks for votes, or soon will.
                false => told
                    .into_iter()
                    .filter(|(_, told)| told.leader == 0)
                    .collect(),
            };
            if !voted.is_empty() || Instant::now() > until {
                break voted;
            }
            tokio::time::sleep(LOOK).await;
        };
        for (name, status) in &voted {
            self.recorder.add(Event::Term {
                name: name.clone(),
                member: status.id,
                term: status.term,
            });
        }
        let lost = self.lose_power(&canaries).await?;
        Ok(match lost {
            Effect::Seen(_) if voted.is_empty() => {
                Effect::Unseen("no member asked for votes".to_owned())
            }
            Effect::Seen(text) => {
                let names: Vec<&str> = voted.iter().map(|(name, _)| name.as_str()).collect();
                Effect::Seen(format!("{} voted; {text}", names.join(", ")))
            }
            unseen @ Effect::Unseen(_) => unseen,
        })
    }

    fn set_canaries(&mut self, targets: &[String]) -> Result<Vec<(String, Canaries)>> {
        let canaries = targets.iter().map(|name| {
            let canaries = self.bed.disk(name)?.set_canaries()?;
            Ok((name.clone(), canaries))
        });
        canaries.collect()
    }

    async fn lose_power(&mut self, targets: &[(String, Canaries)]) -> Result<Effect> {
        for (name, _) in targets {
            self.bed.disk(name)?.cut_power()?;
        }
        for (name, _) in targets {
            self.bed.make_gone(name).await?;
        }
        self.hold().await?;
        let mut survived = Vec::new();
        for (name, canaries) in targets {
            let loss = self.bed.disk(name)?.power_on(canaries)?;
            ensure!(
                loss.kept_synced,
                "the disk of {name} lost a file that was synced: the harness' disks cannot be trusted here"
            );
            if !loss.lost_unsynced {
                survived.push(name.clone());
            }
        }
        Ok(if survived.is_empty() {
            let text = "files that were not synced were lost, those that were are there";
            Effect::Seen(text.to_owned())
        } else {
            let survived = survived.join(", ");
            Effect::Unseen(format!("a file that was not synced survived at {survived}"))
        })
    }

    /// Calls fail or wait. Where a member ends because of it, it stays down until the fault is over.
    pub(super) async fn calls(&mut self) -> Result<Effect> {
        let delay = Duration::from_millis(self.rng.random_range(50..400));
        let (name, calls, effect, what) = match self.planned.kind {
            Kind::SyncDelay => {
                let what = format!("syncs took {delay:?} longer");
                (
                    self.leader.clone(),
                    Calls::Sync,
                    CallEffect::Delay(delay),
                    what,
                )
            }
            Kind::SyncError => (
                self.any(),
                Calls::Sync,
                CallEffect::Fail(Errno::EIO),
                "syncs failed".to_owned(),
            ),
            Kind::WriteError => (
                self.any(),
                Calls::Write,
                CallEffect::Fail(Errno::EIO),
                "writes failed".to_owned(),
            ),
            _ => (
                self.any(),
                Calls::Write,
                CallEffect::Fail(Errno::ENOSPC),
                "writes found no space".to_owned(),
            ),
        };
        let injector = self.bed.injector(&name)?;
        ensure!(
            injector.asked() > 0,
            "the kernel never asked about a call of {name}"
        );
        let before = injector.touched();
        injector.set(calls, effect);
        self.installed(std::slice::from_ref(&name));
        self.hold().await?;
        let touched = self.bed.injector(&name)?.touched() - before;
        let end = self.how_it_took_it(&name);
        Ok(Effect::counted(touched, &format!("{what}; {name} {end}")))
    }

    /// The disk stays full, however much the member gives back.
    pub(super) async fn disk_full(&mut self) -> Result<Effect> {
        let name = self.any();
        self.bed.disk(&name)?.fill(0)?;
        self.installed(std::slice::from_ref(&name));
        let until = self.until();
        let mut left = u64::MAX;
        while Instant::now() < until {
            left = left.min(self.bed.disk(&name)?.fill(0)?);
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.look_after()?;
        }
        let end = self.how_it_took_it(&name);
        Ok(if left < FULL {
            Effect::Seen(format!("{left} bytes were left; {name} {end}"))
        } else {
            Effect::Unseen(format!("{left} bytes were always left"))
        })
    }

    fn how_it_took_it(&mut self, name: &str) -> String {
        match self.ended(name) {
            Some(how) => format!("ended by itself ({how})"),
            None => "went on".to_owned(),
        }
    }
}

/// What the members say that answer.
async fn told(probe: &Probe) -> Vec<(String, Status)> {
    let statuses = probe.statuses().await.into_iter();
    statuses
        .filter_map(|(name, status)| Some((name, status?)))
        .collect()
}

/// The members that tell a higher term than before.
fn raised(before: &[(String, Status)], told: Vec<(String, Status)>) -> Vec<(String, Status)> {
    let is_raised = |(name, now): &(String, Status)| {
        let before = before.iter().find(|(before, _)| before == name);
        before.is_some_and(|(_, before)| before.term < now.term)
    };
    told.into_iter().filter(is_raised).collect()
}
