//! `/metrics/resource`, `/metrics/cadvisor` and `/metrics/probes`: Prometheus' text, in the names of the kubelet and of cAdvisor.

use std::fmt::Write as _;

use node_runtime::{ContainerState, ContainerStatus};
use objects::Timestamp;

use crate::context::Context;
use crate::stats::{Pod, Snapshot};

/// The type of the texts.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text in the making.
#[derive(Default)]
struct Page(String);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Begins a family; its samples follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a text does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64, at: Option<Timestamp>) {
        self.0.push_str(name);
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        if !labels.is_empty() {
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = match at {
            Some(at) => writeln!(self.0, " {value} {}", at.unix_ms()),
            None => writeln!(self.0, " {value}"),
        };
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Counters are whole numbers below 2^53, or seconds of which nobody asks the last nanosecond.
#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are doubles")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

/// What metrics-server and its like read.
pub fn resource(context: &Context) -> String {
    let snapshot = context.stats.latest();
    let mut page = Page::default();
    for family in RESOURCES {
        page.family(family.name, family.kind, family.help);
        match family.of {
            Of::Node(value) => page.sample(family.name, &[], value(&snapshot), snapshot.at),
            Of::Pod(value) => {
                for pod in snapshot.pods.values() {
                    page.sample(family.name, &pod_labels(pod), value(pod), snapshot.at);
                }
            }
            Of::Container(value) => {
                for pod in snapshot.pods.values() {
                    for (status, container) in pod.running() {
                        let labels = container_labels(pod, status);
                        page.sample(family.name, &labels, value(status, container), snapshot.at);
                    }
                }
            }
        }
    }
    let error = "resource_scrape_error";
    page.family(
        error,
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    page.sample(error, &[], f64::from(u8::from(snapshot.at.is_none())), None);
    page.0
}

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: Of,
}

/// Whose value, and which.
enum Of {
    Node(fn(&Snapshot) -> f64),
    Pod(fn(&Pod) -> f64),
    Container(fn(&ContainerStatus, &crate::stats::Container) -> f64),
}

const RESOURCES: &[Family] = &[
    Family {
        name: "container_cpu_usage_seconds_total",
        kind: "counter",
        help: "Processor time that the container used",
        of: Of::Container(|_, container| seconds(container.usage.cpu_ns)),
    },
    Family {
        name: "container_memory_working_set_bytes",
        kind: "gauge",
        help: "Working set of the container",
        of: Of::Container(|_, container| number(container.usage.memory_working_set_bytes)),
    },
    Family {
        name: "container_start_time_seconds",
        kind: "gauge",
        help: "When the container was started, in seconds since 1970",
        of: Of::Container(|status, _| started_at_s(status)),
    },
    Family {
        name: "node_cpu_usage_seconds_total",
        kind: "counter",
        help: "Processor time that the node used",
        of: Of::Node(|snapshot| seconds(snapshot.machine.cpu_ns)),
    },
    Family {
        name: "node_memory_working_set_bytes",
        kind: "gauge",
        help: "Working set of the node",
        of: Of::Node(|snapshot| number(snapshot.machine.memory.working_set)),
    },
    Family {
        name: "pod_cpu_usage_seconds_total",
        kind: "counter",
        help: "Processor time that the pod used",
        of: Of::Pod(|pod| seconds(pod.measured.usage.cpu_ns)),
    },
    Family {
        name: "pod_memory_working_set_bytes",
        kind: "gauge",
        help: "Working set of the pod",
        of: Of::Pod(|pod| number(pod.measured.usage.memory_working_set_bytes)),
    },
];

fn pod_labels(pod: &Pod) -> [(&str, &str); 2] {
    let spec = &pod.measured.status.spec;
    [("namespace", &spec.namespace), ("pod", &spec.name)]
}

fn container_labels<'a>(pod: &'a Pod, status: &'a ContainerStatus) -> [(&'a str, &'a str); 3] {
    let [namespace, name] = pod_labels(pod);
    [("container", &status.spec.name), namespace, name]
}

fn started_at_s(status: &ContainerStatus) -> f64 {
    match status.state {
        ContainerState::Running { started_at, .. } => {
            let ms = u64::try_from(started_at.as_millisecond()).unwrap_or(0);
            number(ms) / 1e3
        }
        _ => 0.0,
    }
}

/// What cAdvisor's dashboards read: each running container, and the network of each pod.
pub fn cadvisor(context: &Context) -> String {
    let snapshot = context.stats.latest();
    let mut page = Page::default();
    let version = "cadvisor_version_info";
    page.family(version, "gauge", "What measures");
    let agent = crate::node_object::KUBELET_VERSION;
    page.sample(version, &[("cadvisorVersion", agent)], 1.0, None);
    for family in CONTAINERS {
        page.family(family.name, family.kind, family.help);
        for pod in snapshot.pods.values() {
            for (status, container) in pod.running() {
                let Some(value) = (family.value)(status, container) else {
                    continue;
                };
                let spec = &pod.measured.status.spec;
                let labels = [
                    ("container", status.spec.name.as_str()),
                    ("id", &status.id),
                    ("image", &status.spec.image),
                    ("name", &status.id),
                    ("namespace", &spec.namespace),
                    ("pod", &spec.name),
                ];
                page.sample(family.name, &labels, value, snapshot.at);
            }
        }
    }
    networks(&mut page, &snapshot);
    let machine = &snapshot.machine;
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "Processors of the machine.",
            context.cpu_milli.unsigned_abs() / 1000,
        ),
        (
            "machine_memory_bytes",
            "Memory of the machine.",
            machine.memory.total,
        ),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[("boot_id", &context.boot_id)], number(value), None);
    }
    page.0
}

struct ContainerFamily {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&ContainerStatus, &crate::stats::Container) -> Option<f64>,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&ContainerStatus, &crate::stats::Container) -> Option<f64>,
) -> ContainerFamily {
    ContainerFamily {
        name,
        kind,
        help,
        value,
    }
}

const CONTAINERS: &[ContainerFamily] = &[
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time that was used.",
        |_, one| Some(seconds(one.usage.cpu_ns)),
    ),
    family(
        "container_memory_usage_bytes",
        "gauge",
        "Memory, files that could be dropped among it.",
        |_, one| Some(number(one.usage.memory_bytes)),
    ),
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Memory that cannot be dropped easily.",
        |_, one| Some(number(one.usage.memory_working_set_bytes)),
    ),
    family(
        "container_memory_rss",
        "gauge",
        "Anonymous memory.",
        |_, one| Some(number(one.usage.memory_rss_bytes)),
    ),
    family(
        "container_fs_usage_bytes",
        "gauge",
        "What was written to the root file system.",
        |_, one| Some(number(one.root.bytes)),
    ),
    family(
        "container_fs_inodes_used",
        "gauge",
        "Files that were made in the root file system.",
        |_, one| Some(number(one.root.inodes)),
    ),
    family(
        "container_processes",
        "gauge",
        "Processes and threads.",
        |_, one| Some(number(one.usage.pids)),
    ),
    family(
        "container_start_time_seconds",
        "gauge",
        "When it was started, in seconds since 1970.",
        |status, _| Some(started_at_s(status)),
    ),
    family(
        "container_spec_cpu_shares",
        "gauge",
        "Its weight.",
        |status, _| status.spec.limits.cpu_shares.map(number),
    ),
    family(
        "container_spec_cpu_quota",
        "gauge",
        "Microseconds of processor time a period.",
        |status, _| limit(status.spec.limits.cpu_quota_us),
    ),
    family(
        "container_spec_memory_limit_bytes",
        "gauge",
        "The most memory that it may use.",
        |status, _| limit(status.spec.limits.memory_bytes_max),
    ),
];

/// No limit is no sample.
fn limit(value: Option<i64>) -> Option<f64> {
    let value = u64::try_from(value?).ok().filter(|value| *value > 0)?;
    Some(number(value))
}

fn networks(page: &mut Page, snapshot: &Snapshot) {
    type Count = fn(&node_runtime::Interface) -> u64;
    let families: [(&str, &str, Count); 8] = [
        (
            "container_network_receive_bytes_total",
            "Bytes received.",
            |it| it.rx_bytes,
        ),
        (
            "container_network_receive_errors_total",
            "Packets received with errors.",
            |it| it.rx_errors,
        ),
        (
            "container_network_receive_packets_total",
            "Packets received.",
            |it| it.rx_packets,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Received packets that were dropped.",
            |it| it.rx_dropped,
        ),
        (
            "container_network_transmit_bytes_total",
            "Bytes sent.",
            |it| it.tx_bytes,
        ),
        (
            "container_network_transmit_errors_total",
            "Packets that could not be sent.",
            |it| it.tx_errors,
        ),
        (
            "container_network_transmit_packets_total",
            "Packets sent.",
            |it| it.tx_packets,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Packets that were dropped.",
            |it| it.tx_dropped,
        ),
    ];
    for (name, help, count) in families {
        page.family(name, "counter", help);
        for pod in snapshot.pods.values() {
            for interface in &pod.measured.interfaces {
                let [namespace, of] = pod_labels(pod);
                let labels = [("interface", interface.name.as_str()), namespace, of];
                page.sample(name, &labels, number(count(interface)), snapshot.at);
            }
        }
    }
}

/// How many answers of each kind each probe had.
pub fn probes(context: &Context) -> String {
    let mut page = Page::default();
    let name = "prober_probe_total";
    page.family(
        name,
        "counter",
        "Answers of the containers' liveness, readiness and startup probes",
    );
    for (probe, counts) in context.probe_counts.all() {
        for (result, count) in [("successful", counts.successful), ("failed", counts.failed)] {
            if count == 0 {
                continue;
            }
            let kind = probe.kind.to_string();
            let labels = [
                ("container", probe.container.as_str()),
                ("namespace", &probe.namespace),
                ("pod", &probe.pod),
                ("pod_uid", &probe.uid),
                ("probe_type", &kind),
                ("result", result),
            ];
            page.sample(name, &labels, number(count), None);
        }
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.family("a_total", "counter", "Some.");
        page.sample(
            "a_total",
            &[("of", "a \"b\"\\\n")],
            1.5,
            Timestamp::parse("2026-01-01T00:00:00Z"),
        );
        page.sample("a_total", &[], 2.0, None);
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total{of=\"a \\\"b\\\"\\\\\\n\"} 1.5 1767225600000\na_total 2\n";
        assert_eq!(page.0, expected);
    }
}
