//! Breaks members while the workload runs, and heals them again. Each fault is recorded with what became of it: installed, skipped
//! with the reason, healed with what was seen of it, or indeterminate where nothing was. It never hides that a fault was not
//! possible, and never takes one that hit nothing for one that did.
//!
//! A fault is one function: it puts itself in force, says so (`Fault::installed`), holds, and ends; [`Testbed::restore`] ends
//! whatever it left. An error before it said so means that it was skipped; one afterwards is a fault of the harness, or a store
//! that does not recover.

mod admin;
mod clock;
mod disk;
mod files;
mod kind;
mod network;
mod process;
mod restore;
mod schedule;

pub use kind::{Group, Kind};
pub use restore::restore;
pub use schedule::{Planned, combined, schedule};

use crate::history::{Event, FaultPhase, Recorder};
use crate::testbed::{Leader, Probe, Testbed};
use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the members are asked who leads.
const LEADER_POLL: Duration = Duration::from_millis(100);
/// A leader must be known within this, or the fault is skipped.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a member is started again that ends because of a fault that is over.
const STARTS_MAX: u32 = 3;
/// How often a fault in force is looked after.
const HOLD_POLL: Duration = Duration::from_millis(100);

/// The faults of one run.
pub struct Nemesis<'a> {
    /// What is broken.
    pub bed: &'a mut Testbed,
    /// Where it is told.
    pub recorder: Arc<Recorder>,
    /// Told of each fault as it begins; empty when it is over.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Nemesis<'_> {
    /// Installs faults until `until`; the last one is healed when this returns, with its number. An error is a fault of the
    /// harness, or members that do not become whole again.
    pub async fn run(
        &mut self,
        planned: impl Iterator<Item = Planned>,
        until: Instant,
    ) -> Result<u32> {
        let mut number = 0;
        for planned in planned {
            if Instant::now() + planned.lasts > until {
                break;
            }
            number += 1;
            let kind = planned.kind.name();
            (self.progress)(kind);
            let targets = self
                .with_beside(&mut number, planned)
                .await
                .with_context(|| format!("fault {number} ({kind})"))?;
            let mut fault = self.fault(number, planned);
            fault.targets = targets;
            fault
                .bring_back()
                .await
                .with_context(|| format!("after fault {number} ({kind}) was healed"))?;
            (self.progress)("");
            let rest = planned
                .rest
                .min(until.saturating_duration_since(Instant::now()));
            tokio::time::sleep(rest).await;
        }
        Ok(number)
    }

    /// One fault, and the bad links beside it, which have a number of their own. Returns the fault's targets.
    async fn with_beside(&mut self, number: &mut u32, planned: Planned) -> Result<Vec<String>> {
        let Some(kind) = planned.beside else {
            return self.one(*number, planned).await;
        };
        let mut beside = self.fault(*number, Planned { kind, ..planned });
        if beside.find_leader().await.is_err() {
            return self.one(*number, planned).await;
        }
        let links = beside.spoil_links()?;
        let targets = std::mem::take(&mut beside.targets);
        let beside = *number;
        *number += 1;
        let done = self.one(*number, planned).await;
        let effect = links.effect(self.bed.network().counts());
        let mut ended = self.fault(beside, Planned { kind, ..planned });
        ended.targets = targets;
        ended.record(effect.phase());
        done
    }

    fn fault(&mut self, number: u32, planned: Planned) -> Fault<'_> {
        Fault {
            bed: self.bed,
            recorder: self.recorder.clone(),
            number,
            planned,
            rng: StdRng::seed_from_u64(planned.seed),
            leader: String::new(),
            targets: Vec::new(),
            is_installed: false,
        }
    }

    /// One fault, from its beginning until everything is restored. Returns its targets.
    async fn one(&mut self, number: u32, planned: Planned) -> Result<Vec<String>> {
        let mut fault = self.fault(number, planned);
        let outcome = fault.run().await;
        let restored = fault.bed.restore().await;
        let (phase, error) = match outcome {
            Ok(effect) => (effect.phase(), None),
            Err(error) => {
                let reason = format!("{error:#}");
                if fault.is_installed {
                    (FaultPhase::Indeterminate { reason }, Some(error))
                } else {
                    (FaultPhase::Skipped { reason }, None)
                }
            }
        };
        fault.record(phase);
        match (error, restored) {
            (None, Ok(())) => Ok(fault.targets),
            (None, Err(error)) => Err(error),
            (Some(error), Ok(())) => Err(error),
            (Some(error), Err(also)) => {
                Err(error.context(format!("the members cannot be restored ({also:#})")))
            }
        }
    }
}

/// What was seen of a fault that was in force.
enum Effect {
    /// This.
    Seen(String),
    /// Nothing; this is what was looked for.
    Unseen(String),
}

impl Effect {
    fn phase(self) -> FaultPhase {
        match self {
            Effect::Seen(effect) => FaultPhase::Healed { effect },
            Effect::Unseen(reason) => FaultPhase::Indeterminate { reason },
        }
    }

    /// Seen where `count` is not 0.
    fn counted(count: u64, what: &str) -> Self {
        if count == 0 {
            Effect::Unseen(format!("0 {what}"))
        } else {
            Effect::Seen(format!("{count} {what}"))
        }
    }
}

/// One fault.
struct Fault<'a> {
    bed: &'a mut Testbed,
    recorder: Arc<Recorder>,
    number: u32,
    planned: Planned,
    rng: StdRng,
    /// Who led when it began.
    leader: String,
    targets: Vec<String>,
    is_installed: bool,
}

impl Fault<'_> {
    async fn find_leader(&mut self) -> Result<()> {
        self.leader = tokio::time::timeout(LEADER_DEADLINE, self.bed.wait_for_leader())
            .await
            .with_context(|| format!("no leader was known within {LEADER_DEADLINE:?}"))??
            .name;
        Ok(())
    }

    async fn run(&mut self) -> Result<Effect> {
        self.find_leader().await?;
        match self.planned.kind {
            Kind::Kill => self.kill(vec![self.leader.clone()]).await,
            Kind::KillRandom => {
                let any = self.any();
                self.kill(vec![any]).await
            }
            Kind::KillMajority => {
                let majority = self.majority();
                self.kill(majority).await
            }
            Kind::KillAll => self.kill(self.bed.names()).await,
            Kind::Pause => self.pause().await,
            Kind::Restart => self.restart().await,
            Kind::Rolling => self.rolling().await,
            Kind::Partition
            | Kind::PartitionHalves
            | Kind::PartitionRing
            | Kind::PartitionBridge
            | Kind::OneWay => self.partition().await,
            Kind::Flapping => self.flapping().await,
            Kind::Delay | Kind::Loss | Kind::Duplication | Kind::Reorder => self.bad_links().await,
            Kind::PowerLoss => {
                let any = self.any();
                self.power_loss(vec![any]).await
            }
            Kind::PowerLossMajority => {
                let majority = self.majority();
                self.power_loss(majority).await
            }
            Kind::PowerLossAll => self.power_loss(self.bed.names()).await,
            Kind::PowerLossElection => self.power_loss_in_election().await,
            Kind::SyncError | Kind::SyncDelay | Kind::WriteError | Kind::NoSpace => {
                self.calls().await
            }
            Kind::DiskFull => self.disk_full().await,
            Kind::TornLog | Kind::ZeroedSector | Kind::FlippedBit => self.damaged_file().await,
            Kind::FlippedEntry => self.flipped_entry().await,
            Kind::ClockRate => self.clock_rate().await,
            Kind::ClockJump => self.clock_jump().await,
            Kind::MemberAdd => self.member_add().await,
            Kind::MemberRemove => self.member_remove().await,
            Kind::MemberReplace => self.member_replace().await,
            Kind::LeaderStorm => self.leader_storm().await,
            Kind::Compaction => self.compaction().await,
            Kind::Snapshot => self.snapshot().await,
            Kind::Restore => bail!("it can only be the end of a run"),
        }
    }

    /// Says that the fault is in force.
    fn installed(&mut self, targets: &[String]) {
        self.targets = targets.to_vec();
        self.is_installed = true;
        self.record(FaultPhase::Installed);
    }

    fn record(&self, phase: FaultPhase) {
        self.recorder.add(Event::Fault {
            number: self.number,
            kind: self.planned.kind.name().to_owned(),
            targets: self.targets.clone(),
            phase,
        });
    }

    /// Keeps the fault in force for its time. A member that ends by itself meanwhile is an error, unless it should.
    async fn hold(&mut self) -> Result<()> {
        let until = self.until();
        while Instant::now() < until {
            tokio::time::sleep(HOLD_POLL).await;
            self.look_after()?;
        }
        Ok(())
    }

    /// Waits a random time of so many milliseconds within a fault that goes on.
    async fn wait(&mut self, millis: Range<u64>) -> Result<()> {
        let pause = Duration::from_millis(self.rng.random_range(millis));
        tokio::time::sleep(pause).await;
        self.look_after()
    }

    fn until(&self) -> Instant {
        Instant::now() + self.planned.lasts
    }

    fn look_after(&mut self) -> Result<()> {
        for (name, how) in self.bed.ended() {
            let may_end = self.planned.kind.may_end_members() && self.targets.contains(&name);
            ensure!(may_end, "{name} ended by itself ({how})");
        }
        Ok(())
    }

    /// Waits until the members are whole. A member that had to end because of the fault may do so a moment after it was healed,
    /// and is started again.
    async fn bring_back(&mut self) -> Result<()> {
        let mut starts = 0;
        loop {
            let Err(error) = self.bed.wait_until_whole().await else {
                return Ok(());
            };
            starts += 1;
            if self.bed.ended().is_empty() || starts > STARTS_MAX {
                return Err(error);
            }
            self.look_after()?;
            self.bed.restore().await?;
        }
    }

    /// How a member ended by itself, if it did.
    fn ended(&mut self, name: &str) -> Option<String> {
        let ended = self.bed.ended();
        ended
            .into_iter()
            .find(|(ended, _)| ended == name)
            .map(|(_, how)| how)
    }

    fn any(&mut self) -> String {
        let names = self.bed.names();
        let any = names.choose(&mut self.rng);
        any.cloned().unwrap_or_else(|| self.leader.clone())
    }

    /// A majority, the leader among them.
    fn majority(&mut self) -> Vec<String> {
        let mut others = self.others();
        others.shuffle(&mut self.rng);
        others.truncate(self.bed.names().len() / 2);
        others.push(self.leader.clone());
        others.sort();
        others
    }

    fn others(&self) -> Vec<String> {
        let mut names = self.bed.names();
        names.retain(|name| *name != self.leader);
        names
    }
}

/// Records who leads and which terms the members tell, whenever that changes, until `stop`.
pub async fn watch_leader(probe: Probe, recorder: Arc<Recorder>, stop: CancellationToken) {
    let mut known: Option<Option<Leader>> = None;
    let mut terms: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    loop {
        let statuses = probe.statuses().await;
        for (name, status) in &statuses {
            let Some(status) = status else { continue };
            let told = (status.id, status.term);
            if terms.insert(name.clone(), told) != Some(told) {
                recorder.add(Event::Term {
                    name: name.clone(),
                    member: status.id,
                    term: status.term,
                });
            }
        }
        let leader = Leader::of(&statuses);
        if known.as_ref() != Some(&leader) {
            recorder.add(Event::Leader {
                name: leader.as_ref().map(|leader| leader.name.clone()),
                term: leader.as_ref().map_or(0, |leader| leader.term),
            });
            known = Some(leader);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LEADER_POLL) => {}
        }
    }
}
