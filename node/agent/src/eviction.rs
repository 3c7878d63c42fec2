//! Looks whether the node runs short, tells it, gives up what nobody uses, and ends pods as `lifecycle::eviction` decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::eviction::{
    Candidate, Config, ContainerUsage, Eviction, Memory, Pressure, Reading, Signal, decide,
    exceeds_local_limits,
};
use lifecycle::{Desired, Ended};
use tokio::sync::watch;

use crate::clock;
use crate::context::Context;
use crate::events::Subject;
use crate::images::Collector;
use crate::stats::{Machine, Snapshot};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the next look waits for a pod that must go.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// Keeps the node from running short, for ever.
pub async fn keep(
    context: Arc<Context>,
    config: Config,
    data_dir: PathBuf,
    collector: Arc<Collector>,
    pressures: watch::Sender<BTreeSet<Pressure>>,
) {
    let mut memory = Memory::default();
    loop {
        let folder = data_dir.clone();
        let machine = tokio::task::spawn_blocking(move || Machine::measure(&folder))
            .await
            .unwrap_or_default();
        let candidates = candidates(&context);
        let now = clock::now();
        let readings = readings(&machine);
        let mut decision = decide(&config, &readings, &candidates, &mut memory, now);
        tell(&pressures, &decision.pressures);
        if decision.reclaims_disk && collector.collect_all(&context).await > 0 {
            // What was given up may be enough.
            decision.evict = None;
        }
        let over = candidates.iter().filter_map(exceeds_local_limits);
        let ends: Vec<Eviction> = decision.evict.into_iter().chain(over).collect();
        for end in &ends {
            evict(&context, &candidates, end);
        }
        let wait = ends.iter().map(|end| gone(&context, &end.uid));
        // One that hangs does not keep the node from looking on.
        let _ = tokio::time::timeout(END_TIME_MAX, futures::future::join_all(wait)).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn tell(pressures: &watch::Sender<BTreeSet<Pressure>>, now: &BTreeSet<Pressure>) {
    let changed = pressures.send_if_modified(|told| {
        let changed = told != now;
        told.clone_from(now);
        changed
    });
    if changed && !now.is_empty() {
        tracing::warn!(pressures = ?now, "the node runs short; new pods are kept away, and pods may be evicted");
    }
}

fn readings(machine: &Machine) -> BTreeMap<Signal, Reading> {
    let reading = |available, capacity| Reading {
        available,
        capacity,
    };
    let disk = &machine.disk;
    let bytes = reading(disk.available, disk.capacity);
    let inodes = reading(disk.inodes_free, disk.inodes);
    let memory = &machine.memory;
    let all = [
        (
            Signal::MemoryAvailable,
            reading(memory.available(), memory.total),
        ),
        (Signal::NodefsAvailable, bytes),
        (Signal::NodefsInodesFree, inodes),
        (Signal::ImagefsAvailable, bytes),
        (Signal::ImagefsInodesFree, inodes),
        (
            Signal::PidAvailable,
            reading(
                machine.processes_max.saturating_sub(machine.processes),
                machine.processes_max,
            ),
        ),
    ];
    // A file system that counts no inodes never runs out of them; what could not be read is no sign of anything.
    all.into_iter()
        .filter(|(_, reading)| reading.capacity > 0)
        .collect()
}

fn candidates(context: &Context) -> Vec<Candidate> {
    let snapshot = context.stats.latest();
    let known = context.known.all();
    known
        .into_iter()
        .map(|pod| candidate(&snapshot, pod))
        .collect()
}

fn candidate(snapshot: &Snapshot, pod: Arc<Desired>) -> Candidate {
    let Some(measured) = snapshot.pods.get(&pod.uid) else {
        return Candidate {
            pod,
            containers: vec![],
            volumes: vec![],
            inodes: 0,
            pids: 0,
        };
    };
    let containers = measured
        .running()
        .map(|(status, container)| ContainerUsage {
            name: status.spec.name.clone(),
            memory_bytes: container.usage.memory_working_set_bytes,
            disk_bytes: (container.root + container.logs).bytes,
        });
    let volumes = measured.volumes.iter();
    Candidate {
        containers: containers.collect(),
        volumes: volumes
            .map(|(name, usage)| (name.clone(), usage.bytes))
            .collect(),
        inodes: measured.disk().inodes,
        pids: measured.measured.usage.pids,
        pod,
    }
}

fn evict(context: &Context, candidates: &[Candidate], end: &Eviction) {
    let Some(candidate) = candidates.iter().find(|it| it.pod.uid == end.uid) else {
        return;
    };
    let pod = &candidate.pod;
    if pod.is_deleting() || pod.has_ended() || context.known.ended(&end.uid).is_some() {
        return;
    }
    let subject = Subject {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    context
        .events
        .warning(&subject, None, "Evicted", end.message.clone());
    tracing::warn!(pod = %pod.label(), why = %end.message, "evicting the pod");
    let ended = Ended {
        reason: "Evicted",
        message: end.message.clone(),
        grace_s: end.grace_s,
    };
    context.known.end(&end.uid, ended);
}

/// Waits until nothing of the pod runs any more.
async fn gone(context: &Context, uid: &str) {
    while context.pods.get(uid).is_some() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
