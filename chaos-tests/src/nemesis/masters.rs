//! Breaks masters of a whole cluster, with its API, while the workload runs, and heals them again: only the faults that the
//! bridge and plain processes allow. Each is recorded with what became of it: installed, skipped with the reason, healed.

use super::{Kind, Planned};
use crate::cluster::{Cluster, Leader, Probe};
use crate::history::{Event, FaultPhase, Recorder};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the masters are asked who leads.
const LEADER_POLL: Duration = Duration::from_millis(100);
/// A leader must be known within this, or the fault is skipped.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);

/// The faults of one run.
pub struct Nemesis<'a> {
    /// What is broken.
    pub cluster: &'a mut Cluster,
    /// Where it is told.
    pub recorder: Arc<Recorder>,
    /// Told of each fault as it begins.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Nemesis<'_> {
    /// Installs faults until `until`; the last one is healed when this returns. An error is a fault of the harness, or a
    /// cluster that does not become whole again.
    pub async fn run(
        &mut self,
        planned: impl Iterator<Item = Planned>,
        until: Instant,
    ) -> Result<()> {
        for (number, planned) in (1..).zip(planned) {
            if Instant::now() + planned.lasts > until {
                return Ok(());
            }
            let kind = planned.kind.name();
            (self.progress)(kind);
            self.one(number, planned)
                .await
                .with_context(|| format!("fault {number} ({kind})"))?;
            self.cluster
                .wait_until_whole()
                .await
                .with_context(|| format!("after fault {number} ({kind}) was healed"))?;
            (self.progress)("");
            tokio::time::sleep(
                planned
                    .rest
                    .min(until.saturating_duration_since(Instant::now())),
            )
            .await;
        }
        Ok(())
    }

    async fn one(&mut self, number: u32, planned: Planned) -> Result<()> {
        let kind = planned.kind.name().to_owned();
        let recorder = self.recorder.clone();
        let record = |targets: &[String], phase| {
            recorder.add(Event::Fault {
                number,
                kind: kind.clone(),
                targets: targets.to_vec(),
                phase,
            });
        };
        let leader =
            match tokio::time::timeout(LEADER_DEADLINE, self.cluster.wait_for_leader()).await {
                Ok(Ok(leader)) => leader.name,
                _ => {
                    let reason = format!("no leader was known within {LEADER_DEADLINE:?}");
                    record(&[], FaultPhase::Skipped { reason });
                    return Ok(());
                }
            };
        let targets = self.targets(planned.kind, &leader);
        if let Err(error) = self.install(planned.kind, &targets).await {
            let reason = format!("{error:#}");
            record(&targets, FaultPhase::Skipped { reason });
            return self.heal(planned.kind, &targets).await;
        }
        record(&targets, FaultPhase::Installed);
        self.hold(planned, &targets).await?;
        self.heal(planned.kind, &targets).await?;
        record(
            &targets,
            FaultPhase::Healed {
                effect: String::new(),
            },
        );
        Ok(())
    }

    fn targets(&self, kind: Kind, leader: &str) -> Vec<String> {
        let others = self
            .cluster
            .masters()
            .into_iter()
            .filter(|name| name != leader);
        let first = std::iter::once(leader.to_owned());
        match kind {
            // A minority has fewer than half: of three masters the leader alone, of five the leader and one more.
            Kind::Partition => {
                let minority = (self.cluster.masters().len().saturating_sub(1) / 2).max(1);
                first.chain(others).take(minority).collect()
            }
            Kind::Rolling => others.chain(first).collect(),
            _ => first.collect(),
        }
    }

    async fn install(&mut self, kind: Kind, targets: &[String]) -> Result<()> {
        let leader = targets.first().context("a fault has a target")?;
        match kind {
            Kind::Kill => self.cluster.kill(leader).await,
            Kind::Pause => self.cluster.pause(leader),
            Kind::Partition => {
                let side: Vec<&str> = targets.iter().map(String::as_str).collect();
                self.cluster.cut(&side)
            }
            Kind::Rolling => Ok(()),
            other => anyhow::bail!("{} needs members on disks of their own", other.name()),
        }
    }

    /// Keeps the fault in force for its time; a rolling restart takes the time that it takes.
    async fn hold(&mut self, planned: Planned, targets: &[String]) -> Result<()> {
        tokio::time::sleep(planned.lasts).await;
        if planned.kind == Kind::Rolling {
            for name in targets {
                self.cluster.stop(name).await?;
                self.cluster.start_machine(name)?;
                self.cluster.wait_until_whole().await?;
            }
        }
        Ok(())
    }

    async fn heal(&mut self, kind: Kind, targets: &[String]) -> Result<()> {
        for name in targets {
            match kind {
                Kind::Kill | Kind::Rolling if !self.cluster.is_running(name) => {
                    self.cluster.start_machine(name)?;
                }
                Kind::Pause => self.cluster.resume(name)?,
                _ => {}
            }
        }
        if kind == Kind::Partition {
            self.cluster.heal()?;
        }
        Ok(())
    }
}

/// Records who leads, whenever that changes, until `stop`.
pub async fn watch_leader(probe: Probe, recorder: Arc<Recorder>, stop: CancellationToken) {
    let mut known: Option<Option<Leader>> = None;
    loop {
        let leader = probe.leader().await;
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
