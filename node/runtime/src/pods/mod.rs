//! The node's pods and their containers.
//!
//! ```text
//! create ─▶ start_container ─▶ Running ─▶ Exited ─▶ remove_container
//!              (by the pod's shim)   │        ▲
//!                                    └ agent restarts: found on disk, the shim tells the rest
//! remove: kill all, unmount, remove cgroups, end the shim, remove the folder
//! ```
//! Every operation is idempotent: making what exists and removing what is gone succeed. Nothing here decides about restarts:
//! that is the agent's. The caller makes the network namespace before and removes it after.

mod container;
mod create;
mod disk;
mod exec;
mod measure;
mod remove;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, watch as watch_channel};

use crate::cgroup::Cgroups;
use crate::error::{Error, Result};
use crate::image::{Images, blocking};
use crate::logs::{self, LogOptions};
use crate::shim::Connection;
use crate::types::{
    ContainerId, ContainerState, ContainerStatus, Event, Exit, Limits, PodSpec, PodStatus,
};
use crate::volumes::DiskUsage;
use crate::{mounts, seal};

pub use exec::{Captured, ExecOptions};

/// Events that a slow subscriber may be behind by; then it is told that it lagged and must list.
const EVENTS_MAX: usize = 1024;
/// A shim answers at once.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Where and how pods are run.
#[derive(Clone, Debug)]
pub struct PodsConfig {
    /// Folder; made if it is not there. Its path must not hold commas, colons and backslashes.
    pub root: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Name of the branch of the cgroup tree; several agents of one machine need different ones.
    pub cgroup_root: String,
}

impl PodsConfig {
    /// Defaults: the shim beside the running program, the cgroup root `trireme`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|path| Some(path.parent()?.join("shim")));
        Self {
            root: root.into(),
            shim: beside.unwrap_or_else(|| "shim".into()),
            cgroup_root: "trireme".into(),
        }
    }
}

/// The node's pods. Cheap to clone.
#[derive(Clone)]
pub struct Pods {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    shim: PathBuf,
    images: Images,
    cgroups: Cgroups,
    machine: crate::spec::Machine,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    events: broadcast::Sender<Event>,
}

/// A pod in memory; its folder has the same and survives the agent.
struct Pod {
    record: disk::PodRecord,
    folder: PathBuf,
    cgroup_path: String,
    /// One change of the pod at a time.
    changing: tokio::sync::Mutex<()>,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    containers: Mutex<BTreeMap<ContainerId, ContainerEntry>>,
    /// Counts changes of containers' states, for those who wait.
    version: watch_channel::Sender<u64>,
    /// Set when the pod goes: its watcher ends.
    removed: watch_channel::Sender<bool>,
}

#[derive(Clone)]
struct ContainerEntry {
    record: disk::ContainerRecord,
    state: ContainerState,
}

impl Pods {
    /// Opens the node's pods: those on disk are found again, with their containers as their shims or their last records
    /// tell. Needs root.
    pub async fn open(config: PodsConfig, images: Images) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Config("running containers needs root".into()));
        }
        let cgroups = Cgroups::detect(&config.cgroup_root)?;
        let (root, shim) = (config.root.clone(), config.shim.clone());
        let shim = blocking(move || {
            crate::files::make_dirs(&root.join("pods"))?;
            seal::seal(&shim, &root.join("bin"))
        })
        .await?;
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let inner = Inner {
            root: config.root,
            shim,
            images,
            cgroups,
            machine: crate::machine::detect(),
            pods: Mutex::default(),
            events,
        };
        let pods = Self {
            inner: Arc::new(inner),
        };
        pods.recover().await?;
        Ok(pods)
    }

    /// Every pod and its containers, by UID.
    pub fn list(&self) -> Vec<PodStatus> {
        let pods: Vec<Arc<Pod>> = self.lock().values().cloned().collect();
        pods.iter().map(|pod| pod.status()).collect()
    }

    /// One pod; None if it is not on this node.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        self.lock().get(uid).cloned().map(|pod| pod.status())
    }

    /// The folder in which a pod's volumes belong.
    pub fn volumes_folder(&self, uid: &str) -> PathBuf {
        self.inner.root.join("pods").join(uid).join("volumes")
    }

    /// The ends of containers from now on. One that lags must call `list`.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// The images that containers are made from.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Waits for a container's end.
    pub async fn wait(&self, uid: &str, container: &str) -> Result<Exit> {
        let pod = self.pod(uid)?;
        let mut version = pod.version.subscribe();
        loop {
            version.borrow_and_update();
            if let ContainerState::Exited(exit) = pod.entry(container)?.state {
                return Ok(exit);
            }
            if version.changed().await.is_err() {
                return Err(Error::NoPod(uid.into()));
            }
        }
    }

    /// Reads a container's log; with `follow`, until its end.
    pub fn logs(
        &self,
        uid: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let entry = self.pod(uid)?.entry(container)?;
        let missing = || {
            Error::Config(format!(
                "container {:?} keeps no log",
                entry.record.spec.name
            ))
        };
        let path = entry.record.spec.log_path.clone().ok_or_else(missing)?;
        let (pods, uid, container) = (self.clone(), uid.to_string(), container.to_string());
        // An error means that the container is gone, which ends its log too.
        Ok(logs::read(path, options, async move {
            drop(pods.wait(&uid, &container).await)
        }))
    }

    /// What a container has written to its root file system.
    pub async fn writable_layer(&self, uid: &str, container: &str) -> Result<DiskUsage> {
        crate::volumes::disk_usage(&self.pod(uid)?.container_folder(container).join("upper")).await
    }

    /// Changes the limits of a running container and of its pod in place, and the container's `labels` with them.
    pub async fn resize(
        &self,
        uid: &str,
        container: &str,
        limits: Limits,
        pod_limits: Limits,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let pod = self.pod(uid)?;
        let _change = pod.changing.lock().await;
        let mut record = pod.entry(container)?.record;
        record.spec.limits = limits;
        record.spec.labels = labels;
        let (path, folder) = (
            pod.container_cgroup(container),
            pod.container_folder(container),
        );
        let (cgroups, pod_path, kept) = (
            self.inner.cgroups.clone(),
            pod.cgroup_path.clone(),
            record.clone(),
        );
        blocking(move || {
            // A larger container needs a larger pod around it first; a smaller pod holds only once its containers are smaller.
            let early = cgroups.set(&pod_path, &pod_limits);
            cgroups.set(&path, &limits)?;
            if early.is_err() {
                cgroups.set(&pod_path, &pod_limits)?;
            }
            disk::write_container(&folder, &kept)
        })
        .await?;
        if let Some(entry) = pod.lock().get_mut(container) {
            entry.record = record;
        }
        Ok(())
    }

    /// Takes down what `open` put up outside of pods: the shim's sealed mount and the cgroup root if it is empty.
    /// For tests and for a node that leaves its cluster; pods must be removed before.
    pub async fn dismantle(&self) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || {
            for qos in [
                crate::types::Qos::Guaranteed,
                crate::types::Qos::Burstable,
                crate::types::Qos::BestEffort,
            ] {
                let path = inner.cgroups.pod_path(qos, "");
                inner.cgroups.remove_if_empty(path.trim_end_matches("/pod"));
            }
            inner.cgroups.remove_if_empty("");
            seal::unseal(&inner.root.join("bin"))
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.inner
            .pods
            .lock()
            .expect("no holder of this lock panics")
    }

    fn pod(&self, uid: &str) -> Result<Arc<Pod>> {
        self.lock()
            .get(uid)
            .cloned()
            .ok_or_else(|| Error::NoPod(uid.into()))
    }
}

impl Pod {
    fn new(record: disk::PodRecord, folder: PathBuf, cgroup_path: String) -> Arc<Self> {
        Arc::new(Self {
            record,
            folder,
            cgroup_path,
            changing: tokio::sync::Mutex::default(),
            connection: tokio::sync::Mutex::default(),
            containers: Mutex::default(),
            version: watch_channel::channel(0).0,
            removed: watch_channel::channel(false).0,
        })
    }

    fn spec(&self) -> &PodSpec {
        &self.record.spec
    }

    fn status(&self) -> PodStatus {
        let mut containers: Vec<ContainerStatus> =
            self.lock().values().map(ContainerEntry::status).collect();
        containers.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        PodStatus {
            spec: self.spec().clone(),
            created_at: self.record.created_at,
            containers,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, ContainerEntry>> {
        self.containers
            .lock()
            .expect("no holder of this lock panics")
    }

    fn entry(&self, container: &str) -> Result<ContainerEntry> {
        let missing = || Error::NoContainer {
            pod: self.spec().uid.clone(),
            container: container.into(),
        };
        self.lock().get(container).cloned().ok_or_else(missing)
    }

    fn container_cgroup(&self, container: &str) -> String {
        format!("{}/{container}", self.cgroup_path)
    }

    fn container_folder(&self, container: &str) -> PathBuf {
        self.folder.join("c").join(container)
    }

    fn shim_error(&self, message: impl ToString) -> Error {
        Error::Shim {
            pod: self.spec().uid.clone(),
            message: message.to_string(),
        }
    }

    /// Unmounts what a container's root file system is made of.
    fn unmount_container(&self, container: &str) -> Result<()> {
        mounts::unmount_all(&self.container_folder(container).join("rootfs"))
    }
}

impl ContainerEntry {
    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.record.id.clone(),
            spec: self.record.spec.clone(),
            image_id: self.record.image_id.clone(),
            image_digest: self.record.image_digest.clone(),
            created_at: self.record.created_at,
            state: self.state.clone(),
        }
    }
}
