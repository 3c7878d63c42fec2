//! What of pods and containers is on disk, so that a new agent finds it: `pod.json`, `c/ID/container.json`, and the shim's
//! `c/ID/status`.

use std::fs;
use std::path::Path;

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::types::{ContainerId, ContainerSpec, ContainerState, Exit, PodSpec};

/// `pod.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PodRecord {
    pub spec: PodSpec,
    pub created_at: jiff::Timestamp,
    /// Of the machine's boot in which the pod's shim was started.
    pub boot_id: String,
}

/// `container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub id: ContainerId,
    pub spec: ContainerSpec,
    pub image_id: String,
    pub image_digest: String,
    pub layers: Vec<String>,
    pub created_at: jiff::Timestamp,
}

/// The id of this boot.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_string())
        .unwrap_or_default()
}

pub(super) fn read_pod(folder: &Path) -> Result<Option<PodRecord>> {
    files::read_json(&folder.join("pod.json"))
}

pub(super) fn write_pod(folder: &Path, record: &PodRecord) -> Result<()> {
    files::write_record(&folder.join("pod.json"), record)
}

pub(super) fn write_container(folder: &Path, record: &ContainerRecord) -> Result<()> {
    files::write_record(&folder.join("container.json"), record)
}

/// The containers of a pod's folder; a folder without a record is what a crash left of a start, and is told by name.
pub(super) fn read_containers(folder: &Path) -> Result<(Vec<ContainerRecord>, Vec<String>)> {
    let (mut records, mut broken) = (vec![], vec![]);
    for name in names(&folder.join("c"))? {
        match files::read_json(&folder.join("c").join(&name).join("container.json")) {
            Ok(Some(record)) => records.push(record),
            Ok(None) | Err(_) => broken.push(name),
        }
    }
    Ok((records, broken))
}

/// Names in a folder; none if it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    let names =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    names
        .collect::<Result<_, _>>()
        .map_err(Error::io("list", folder))
}

/// The shim's last word on a container, if it had one.
pub(super) fn read_status(container_folder: &Path) -> Option<rpc::shim::Container> {
    let bytes = fs::read(container_folder.join("status")).ok()?;
    rpc::shim::Container::decode(bytes.as_slice()).ok()
}

/// A container's state as its shim tells it.
pub(super) fn state(container: &rpc::shim::Container) -> ContainerState {
    let started_at = timestamp(container.started_at_ns);
    if container.state() != rpc::shim::State::Exited {
        return ContainerState::Running {
            pid: container.pid,
            started_at,
        };
    }
    let reason = match (container.oom_killed, container.exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    ContainerState::Exited(Exit {
        code: container.exit_code,
        signal: container.signal,
        oom_killed: container.oom_killed,
        started_at,
        finished_at: timestamp(container.finished_at_ns),
        reason,
        message: String::new(),
    })
}

/// The state of a container whose shim is gone without its last word.
pub(super) fn lost(status: Option<&rpc::shim::Container>, now: jiff::Timestamp) -> Exit {
    Exit {
        code: 137,
        signal: 9,
        oom_killed: false,
        started_at: status.map_or(now, |status| timestamp(status.started_at_ns)),
        finished_at: now,
        reason: "ContainerStatusUnknown",
        message: "The container could not be located when the node's agent looked for it: its shim was gone".into(),
    }
}

fn timestamp(ns: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
