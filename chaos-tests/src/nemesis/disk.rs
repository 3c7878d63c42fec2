//! Power, failing and slow calls, full disks.

use super::{Effect, Fault, Kind};
use crate::injector::{Calls, Effect as CallEffect};
use crate::testbed::Probe;
use crate::tunswitch::Quality;
use anyhow::{Result, ensure};
use nix::errno::Errno;
use rand::RngExt;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A disk with less room than this is full: no file of a store grows by less.
const FULL: u64 = 64 << 10;
/// Members that hear nobody ask for votes within this.
const VOTES_DEADLINE: Duration = Duration::from_secs(10);

impl Fault<'_> {
    /// The power of all targets is lost at one moment; the processes, which would see errors afterwards, are killed.
    pub(super) async fn power_loss(&mut self, targets: Vec<String>) -> Result<Effect> {
        self.installed(&targets);
        self.lose_power(&targets).await
    }

    /// Members that hear nobody raise their terms, each with a vote for itself and no entry to follow it to the disk.
    pub(super) async fn power_loss_in_election(&mut self) -> Result<Effect> {
        let (names, probe) = (self.bed.names(), self.bed.probe()?);
        let before = terms(&probe).await;
        for (from, to) in super::network::directions(&names, |_, _| true) {
            self.bed.network().set(&from, &to, Quality::cut())?;
        }
        self.installed(&names);
        let until = Instant::now() + VOTES_DEADLINE;
        let raised = loop {
            let now = terms(&probe).await;
            let is_raised = |(name, term): &(&String, &u64)| before.get(*name) < Some(*term);
            let raised = now.iter().filter(is_raised).count();
            if raised == names.len() || Instant::now() > until {
                break raised;
            }
            self.wait(50..100).await?;
        };
        // Whoever records the terms has to see them too.
        self.wait(400..800).await?;
        let lost = self.lose_power(&names).await?;
        Ok(match lost {
            Effect::Seen(text) if raised > 0 => {
                Effect::Seen(format!("{raised} members raised their terms; {text}"))
            }
            Effect::Seen(_) => Effect::Unseen("no member asked for votes".to_owned()),
            unseen @ Effect::Unseen(_) => unseen,
        })
    }

    async fn lose_power(&mut self, targets: &[String]) -> Result<Effect> {
        let mut canaries = Vec::new();
        for name in targets {
            canaries.push(self.bed.disk(name)?.set_canaries()?);
        }
        for name in targets {
            self.bed.disk(name)?.cut_power()?;
        }
        for name in targets {
            self.bed.kill(name).await?;
        }
        self.hold().await?;
        let mut survived = Vec::new();
        for (name, canaries) in targets.iter().zip(&canaries) {
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

/// The terms of the members that answer.
async fn terms(probe: &Probe) -> BTreeMap<String, u64> {
    let statuses = probe.statuses().await;
    let told = statuses
        .into_iter()
        .filter_map(|(name, status)| Some((name, status?.term)));
    told.collect()
}
