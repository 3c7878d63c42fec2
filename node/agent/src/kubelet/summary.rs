//! `GET /stats/summary`: what node and pods use, as the kubelet's Summary API writes it (k8s.io/kubelet stats/v1alpha1).

use jiff::Timestamp as Moment;
use node_runtime::volumes::DiskUsage;
use node_runtime::{ContainerState, ContainerStatus, Interface, Stats};
use objects::Timestamp;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::stats::{Container, FileSystem, Pod, Snapshot};

/// The document; `brief` leaves out all but processor and memory.
pub fn document(context: &Context, brief: bool) -> Value {
    let snapshot = context.stats.latest();
    let now = snapshot.at.unwrap_or(Timestamp(Moment::UNIX_EPOCH));
    let pods: Vec<Value> = snapshot
        .pods
        .values()
        .map(|pod| of_pod(pod, &snapshot.machine.disk, now, brief))
        .collect();
    json!({ "node": of_node(context, &snapshot, now, brief), "pods": pods })
}

fn of_node(context: &Context, snapshot: &Snapshot, now: Timestamp, brief: bool) -> Value {
    let machine = &snapshot.machine;
    let mut node = json!({
        "nodeName": context.node,
        "startTime": Timestamp::from_unix(i64::try_from(machine.booted_at_s).unwrap_or(0)),
        "cpu": cpu(now, machine.cpu_ns, snapshot.cpu_nano_cores),
        "memory": {
            "time": now,
            "availableBytes": machine.memory.available(),
            "usageBytes": machine.memory.used,
            "workingSetBytes": machine.memory.working_set,
            "rssBytes": machine.memory.rss,
        },
    });
    if brief {
        return node;
    }
    let disk = file_system(&machine.disk, now, None);
    node["network"] = network(&machine.interfaces, now);
    node["fs"] = disk.clone();
    // Images and containers lie on the same file system as everything else.
    node["runtime"] = json!({ "imageFs": disk, "containerFs": disk });
    node["rlimit"] =
        json!({ "time": now, "maxpid": machine.processes_max, "curproc": machine.processes });
    node
}

fn of_pod(pod: &Pod, disk: &FileSystem, now: Timestamp, brief: bool) -> Value {
    let status = &pod.measured.status;
    let containers: Vec<Value> = pod
        .running()
        .map(|(status, container)| of_container(status, container, disk, now, brief))
        .collect();
    let mut told = json!({
        "podRef": { "name": status.spec.name, "namespace": status.spec.namespace, "uid": status.spec.uid },
        "startTime": Timestamp(status.created_at),
        "containers": containers,
        "cpu": cpu(now, pod.measured.usage.cpu_ns, pod.cpu_nano_cores),
        "memory": memory(&pod.measured.usage, status.spec.limits.memory_bytes_max, now),
        "process_stats": { "process_count": pod.measured.usage.pids },
    });
    if brief {
        return told;
    }
    if !pod.measured.interfaces.is_empty() {
        told["network"] = network(&pod.measured.interfaces, now);
    }
    let volume = |(name, usage): (&String, &DiskUsage)| {
        let mut volume = file_system(disk, now, Some(*usage));
        volume["name"] = json!(name);
        volume
    };
    told["volume"] = pod.volumes.iter().map(volume).collect();
    told["ephemeral-storage"] = file_system(disk, now, Some(pod.disk()));
    told
}

fn of_container(
    status: &ContainerStatus,
    container: &Container,
    disk: &FileSystem,
    now: Timestamp,
    brief: bool,
) -> Value {
    let mut told = json!({
        "name": status.spec.name,
        "cpu": cpu(now, container.usage.cpu_ns, container.cpu_nano_cores),
        "memory": memory(&container.usage, status.spec.limits.memory_bytes_max, now),
    });
    if let ContainerState::Running { started_at, .. } = status.state {
        told["startTime"] = json!(Timestamp(started_at));
    }
    if !brief {
        told["rootfs"] = file_system(disk, now, Some(container.root));
        told["logs"] = file_system(disk, now, Some(container.logs));
    }
    told
}

fn cpu(now: Timestamp, ns: u64, nano_cores: Option<u64>) -> Value {
    let mut cpu = json!({ "time": now, "usageCoreNanoSeconds": ns });
    if let Some(nano_cores) = nano_cores {
        cpu["usageNanoCores"] = json!(nano_cores);
    }
    cpu
}

fn memory(usage: &Stats, limit: Option<i64>, now: Timestamp) -> Value {
    let mut memory = json!({
        "time": now,
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.memory_working_set_bytes,
        "rssBytes": usage.memory_rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    let limit = limit.and_then(|limit| u64::try_from(limit).ok());
    if let Some(limit) = limit.filter(|limit| *limit > 0) {
        memory["availableBytes"] = json!(limit.saturating_sub(usage.memory_working_set_bytes));
    }
    memory
}

/// A file system as a whole, or what one user takes of it.
fn file_system(disk: &FileSystem, now: Timestamp, of: Option<DiskUsage>) -> Value {
    let used = of.unwrap_or(DiskUsage {
        bytes: disk.used,
        inodes: disk.inodes.saturating_sub(disk.inodes_free),
    });
    json!({
        "time": now,
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": used.bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": used.inodes,
    })
}

/// The first interface stands for all, as the kubelet has it.
fn network(interfaces: &[Interface], now: Timestamp) -> Value {
    let of = |interface: &Interface| {
        let mut told = Map::new();
        told.insert("name".to_owned(), json!(interface.name));
        for (name, value) in [
            ("rxBytes", interface.rx_bytes),
            ("rxErrors", interface.rx_errors),
            ("txBytes", interface.tx_bytes),
            ("txErrors", interface.tx_errors),
        ] {
            told.insert(name.to_owned(), json!(value));
        }
        told
    };
    let first = interfaces.iter().find(|interface| interface.name == "eth0");
    let mut told = first.or(interfaces.first()).map(of).unwrap_or_default();
    told.insert("time".to_owned(), json!(now));
    told.insert(
        "interfaces".to_owned(),
        interfaces
            .iter()
            .map(|one| Value::Object(of(one)))
            .collect(),
    );
    Value::Object(told)
}
