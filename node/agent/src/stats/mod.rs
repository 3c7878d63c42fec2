//! What the node, its pods and their containers use: measured now and then, kept for whoever asks.
//!
//! Processor time is told as a rate between two measurements; that of a container that is measured for the first time, since
//! its start. Files are counted more seldom, since every file must be looked at.

mod machine;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node_runtime::volumes::{self, DiskUsage};
use node_runtime::{ContainerState, ContainerStatus, Measured, Stats};
use objects::Timestamp;

use crate::clock;
use crate::context::Context;

pub use machine::{FileSystem, Machine};

/// How often processor time and memory are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How often files are counted.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// The last measurement.
#[derive(Default)]
pub struct Store(Mutex<Arc<Snapshot>>);

impl Store {
    /// What was measured last.
    pub fn latest(&self) -> Arc<Snapshot> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn put(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

/// One measurement of everything.
#[derive(Default)]
pub struct Snapshot {
    /// When; none before the first.
    pub at: Option<Timestamp>,
    /// The machine.
    pub machine: Machine,
    /// Thousand-millionths of a processor that the machine used; none at the first measurement.
    pub cpu_nano_cores: Option<u64>,
    /// The pods, by UID.
    pub pods: BTreeMap<String, Pod>,
}

/// A pod as it was measured.
pub struct Pod {
    /// The pod with its usage.
    pub measured: Measured,
    /// Thousand-millionths of a processor, of all containers.
    pub cpu_nano_cores: Option<u64>,
    /// Its running containers, by id.
    pub containers: BTreeMap<String, Container>,
    /// Its volumes on the node's disk, by name.
    pub volumes: BTreeMap<String, DiskUsage>,
}

/// A running container as it was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Container {
    /// What it uses.
    pub usage: Stats,
    /// Thousand-millionths of a processor.
    pub cpu_nano_cores: Option<u64>,
    /// What it wrote to its root file system.
    pub root: DiskUsage,
    /// What it logged.
    pub logs: DiskUsage,
}

impl Pod {
    /// Running containers with what they use.
    pub fn running(&self) -> impl Iterator<Item = (&ContainerStatus, &Container)> {
        let containers = self.measured.status.containers.iter();
        containers.filter_map(|status| Some((status, self.containers.get(&status.id)?)))
    }

    /// What it takes of the node's disk: what containers wrote and logged, and its volumes there.
    pub fn disk(&self) -> DiskUsage {
        let containers = self.containers.values().map(|one| one.root + one.logs);
        containers.chain(self.volumes.values().copied()).sum()
    }
}

/// Measures, for ever.
pub async fn keep(context: Arc<Context>, data_dir: PathBuf) {
    let mut files = Files::default();
    loop {
        match measure(&context, data_dir.clone(), &mut files).await {
            Ok(snapshot) => context.stats.put(snapshot),
            Err(error) => tracing::warn!(%error, "cannot measure what the pods use"),
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

async fn measure(
    context: &Context,
    data_dir: PathBuf,
    files: &mut Files,
) -> anyhow::Result<Snapshot> {
    let before = context.stats.latest();
    let machine = tokio::task::spawn_blocking(move || Machine::measure(&data_dir)).await?;
    let measured = context.pods.measure().await?;
    let now = clock::now();
    files.count(context, &measured, now).await;
    let pods = measured
        .into_iter()
        .map(|pod| (pod.status.spec.uid.clone(), pod));
    let pods = pods.map(|(uid, pod)| {
        let known = before.pods.get(&uid);
        (uid, of_pod(pod, known, before.at, now, files))
    });
    Ok(Snapshot {
        at: Some(now),
        cpu_nano_cores: before
            .at
            .and_then(|at| rate(before.machine.cpu_ns, machine.cpu_ns, at, now)),
        machine,
        pods: pods.collect(),
    })
}

fn of_pod(
    measured: Measured,
    before: Option<&Pod>,
    before_at: Option<Timestamp>,
    now: Timestamp,
    files: &Files,
) -> Pod {
    let container = |status: &ContainerStatus| {
        let usage = *measured.containers.get(&status.id)?;
        let ContainerState::Running { started_at, .. } = status.state else {
            return None;
        };
        let known = before.and_then(|pod| pod.containers.get(&status.id));
        let (from_ns, from) = match (known, before_at) {
            (Some(known), Some(at)) => (known.usage.cpu_ns, at),
            _ => (0, Timestamp(started_at)),
        };
        let files = files.of.get(&status.id).copied().unwrap_or_default();
        let container = Container {
            usage,
            cpu_nano_cores: rate(from_ns, usage.cpu_ns, from, now),
            root: files.0,
            logs: files.1,
        };
        Some((status.id.clone(), container))
    };
    let containers: BTreeMap<String, Container> = measured
        .status
        .containers
        .iter()
        .filter_map(container)
        .collect();
    let (from_ns, from) = match (before, before_at) {
        (Some(known), Some(at)) => (known.measured.usage.cpu_ns, at),
        _ => (0, Timestamp(measured.status.created_at)),
    };
    Pod {
        cpu_nano_cores: rate(from_ns, measured.usage.cpu_ns, from, now),
        containers,
        volumes: files
            .volumes
            .get(&measured.status.spec.uid)
            .cloned()
            .unwrap_or_default(),
        measured,
    }
}

/// Thousand-millionths of a processor between two measurements; none where no time passed or the counter began anew.
fn rate(from_ns: u64, to_ns: u64, from: Timestamp, to: Timestamp) -> Option<u64> {
    let passed_ns = to.since(from).as_nanos();
    let used_ns = u128::from(to_ns.checked_sub(from_ns)?);
    u64::try_from((used_ns * 1_000_000_000).checked_div(passed_ns)?).ok()
}

/// What files take, as it was counted last.
#[derive(Default)]
struct Files {
    counted_at: Option<Timestamp>,
    /// Root file system and logs of containers, by id.
    of: BTreeMap<String, (DiskUsage, DiskUsage)>,
    /// Volumes, by the pod's UID and their names.
    volumes: BTreeMap<String, BTreeMap<String, DiskUsage>>,
}

impl Files {
    /// Counts all when it is time, and else what was never counted.
    async fn count(&mut self, context: &Context, pods: &[Measured], now: Timestamp) {
        let due = self
            .counted_at
            .is_none_or(|at| now.since(at) >= COUNT_EVERY);
        let known = std::mem::take(self);
        self.counted_at = if due { Some(now) } else { known.counted_at };
        for pod in pods {
            let uid = &pod.status.spec.uid;
            for container in &pod.status.containers {
                if !pod.containers.contains_key(&container.id) {
                    continue;
                }
                let counted = match known.of.get(&container.id) {
                    Some(counted) if !due => *counted,
                    _ => of_container(context, uid, container).await,
                };
                self.of.insert(container.id.clone(), counted);
            }
            let counted = match known.volumes.get(uid) {
                Some(counted) if !due => counted.clone(),
                _ => of_volumes(context, uid).await,
            };
            self.volumes.insert(uid.clone(), counted);
        }
    }
}

/// Gone meanwhile is nothing.
async fn of_container(
    context: &Context,
    uid: &str,
    container: &ContainerStatus,
) -> (DiskUsage, DiskUsage) {
    let root = context.pods.writable_layer(uid, &container.id).await;
    let folder = container
        .spec
        .log_path
        .as_deref()
        .and_then(|path| path.parent());
    let logs = match folder {
        Some(folder) => volumes::disk_usage(folder).await.unwrap_or_default(),
        None => DiskUsage::default(),
    };
    (root.unwrap_or_default(), logs)
}

async fn of_volumes(context: &Context, uid: &str) -> BTreeMap<String, DiskUsage> {
    let folder = context.pods.volumes_folder(uid);
    let mut found = BTreeMap::new();
    let Ok(own) = tokio::fs::metadata(&folder).await else {
        return found;
    };
    let Ok(mut entries) = tokio::fs::read_dir(&folder).await else {
        return found;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        // What is mounted is memory, or somebody else's disk.
        let here = entry.metadata().await.is_ok_and(|it| it.dev() == own.dev());
        if here && let Ok(usage) = volumes::disk_usage(&entry.path()).await {
            found.insert(entry.file_name().to_string_lossy().into_owned(), usage);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time_and_a_counter_that_goes_up() {
        let at = |text: &str| Timestamp::parse(text).expect("a time");
        let (early, late) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:10Z"));
        assert_eq!(
            rate(5_000_000_000, 10_000_000_000, early, late),
            Some(500_000_000)
        );
        assert_eq!(rate(0, 1, early, early), None);
        assert_eq!(rate(2, 1, early, late), None);
    }
}
