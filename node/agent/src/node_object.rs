//! The node's own object: what it says of itself. Pure; `register` sends it.

use std::collections::BTreeSet;

use lifecycle::eviction::Pressure;
use objects::{Quantity, Timestamp};
use serde_json::{Map, Value, json};

use crate::machine::Machine;

/// What the kubelet of this API version calls itself.
pub const KUBELET_VERSION: &str = concat!("v1.35.0-trireme.", env!("CARGO_PKG_VERSION"));
const RUNTIME_VERSION: &str = "libcontainer://0.7.0";

/// Everything that the node's object says.
#[derive(Clone, Debug)]
pub struct About {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Port of its kubelet API.
    pub kubelet_port: u16,
    /// Pods that it takes.
    pub max_pods: u32,
    /// Labels beside the usual ones.
    pub labels: Vec<(String, String)>,
    /// What is left for pods.
    pub allocatable: Amounts,
    /// The machine.
    pub machine: Machine,
}

/// Amounts of what a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a processor.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the node's disk.
    pub disk_bytes: i64,
}

impl Amounts {
    /// All that a machine has.
    pub fn of(machine: &Machine) -> Self {
        Amounts {
            cpu_milli: i64::from(machine.cpus) * 1000,
            memory_bytes: machine.memory_bytes,
            disk_bytes: i64::try_from(machine.disk_bytes).unwrap_or(i64::MAX),
        }
    }

    /// What is left without `other`.
    #[must_use]
    pub fn without(self, other: Amounts) -> Self {
        Amounts {
            cpu_milli: (self.cpu_milli - other.cpu_milli).max(0),
            memory_bytes: (self.memory_bytes - other.memory_bytes).max(0),
            disk_bytes: (self.disk_bytes - other.disk_bytes).max(0),
        }
    }

    /// Reads `cpu=500m,memory=1Gi,ephemeral-storage=1Gi`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut amounts = Amounts::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = || {
                format!(
                    "{part:?} is not RESOURCE=AMOUNT with cpu, memory or ephemeral-storage, as in cpu=500m,memory=1Gi"
                )
            };
            let (name, amount) = part.split_once('=').ok_or_else(wrong)?;
            let amount = Quantity::parse(amount).map_err(|_| wrong())?;
            match name {
                "cpu" => amounts.cpu_milli = amount.milli(),
                "memory" => amounts.memory_bytes = amount.units(),
                "ephemeral-storage" => amounts.disk_bytes = amount.units(),
                _ => return Err(wrong()),
            }
        }
        Ok(amounts)
    }
}

/// Whether the node runs pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why it does not; none when it does.
    pub not_ready: Option<String>,
    /// What it is short of.
    pub pressures: BTreeSet<Pressure>,
    /// Its images: their names, and bytes.
    pub images: Vec<(Vec<String>, u64)>,
}

/// The object without a status.
pub fn object(about: &About) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": about.name, "labels": labels(about) },
        "spec": {},
    })
}

/// The merge patch that gives an existing object our labels.
pub fn labels_patch(about: &About) -> Value {
    json!({ "metadata": { "labels": labels(about) } })
}

fn labels(about: &About) -> Map<String, Value> {
    let architecture = &about.machine.architecture;
    let usual = [
        ("kubernetes.io/hostname", about.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ];
    let usual = usual
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)));
    usual
        .chain(
            about
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), json!(value))),
        )
        .collect()
}

/// The status, all but its times.
pub fn status(about: &About, images: &[(Vec<String>, u64)]) -> Value {
    let machine = &about.machine;
    let bytes = |bytes: i64| Quantity::from_bytes(bytes / 1024 * 1024).to_string();
    let resources = |amounts: &Amounts| {
        json!({
            "cpu": Quantity::from_milli(amounts.cpu_milli).to_string(),
            "memory": bytes(amounts.memory_bytes),
            "ephemeral-storage": bytes(amounts.disk_bytes),
            "pods": about.max_pods.to_string(),
        })
    };
    let image = |(names, bytes): &(Vec<String>, u64)| json!({ "names": names, "sizeBytes": bytes });
    json!({
        "addresses": [{ "type": "InternalIP", "address": about.address }, { "type": "Hostname", "address": about.name }],
        "capacity": resources(&Amounts::of(machine)),
        "allocatable": resources(&about.allocatable),
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": about.kubelet_port } },
        "nodeInfo": {
            "architecture": machine.architecture,
            "operatingSystem": "linux",
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": RUNTIME_VERSION,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
        },
    })
}

/// The conditions; `since` tells when each came to be as it is.
pub fn conditions(
    health: &Health,
    now: Timestamp,
    since: impl Fn(&str, &str) -> Timestamp,
) -> Value {
    let ready = match &health.not_ready {
        None => (
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Some(why) => ("Ready", false, "KubeletNotReady", why.clone()),
    };
    let pressure = |kind, short: bool, yes, no, what: &str| {
        let (reason, words) = if short {
            (yes, "insufficient")
        } else {
            (no, "sufficient")
        };
        (
            kind,
            short,
            reason,
            format!("kubelet has {words} {what} available"),
        )
    };
    let all = [
        pressure(
            "MemoryPressure",
            health.pressures.contains(&Pressure::Memory),
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory",
        ),
        pressure(
            "DiskPressure",
            health.pressures.contains(&Pressure::Disk),
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            "disk space",
        ),
        pressure(
            "PIDPressure",
            health.pressures.contains(&Pressure::Pids),
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "PID",
        ),
        ready,
    ];
    let condition = |(kind, met, reason, message): (&str, bool, &str, String)| {
        let status = if met { "True" } else { "False" };
        json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": since(kind, status) })
    };
    Value::Array(all.into_iter().map(condition).collect())
}
