//! The calls of etcd's clients, as gRPC's servers count them, and what else the services count.

use super::Telemetry;
use super::family::{counted, counter, family, gauge, gauged};
use prometheus::proto::{MetricFamily, MetricType};
use rpc::Method;
use std::sync::atomic::Ordering;

pub fn families(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let mut families = of_calls(telemetry);
    families.extend(of_checks(telemetry));
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (healthy, unhealthy) = telemetry.health();
    families.extend([
        counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes sent to etcd's clients.",
            get(&telemetry.sent_bytes),
        ),
        counter(
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes that came from etcd's clients.",
            get(&telemetry.received_bytes),
        ),
        counter(
            "etcd_debugging_mvcc_events_total",
            "Events told to watches of etcd's clients.",
            get(&telemetry.events),
        ),
        gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Streams of watches of etcd's clients.",
            telemetry.watch_streams(),
        ),
        counter(
            "etcd_server_health_success",
            "How often /health was answered well.",
            healthy,
        ),
        counter(
            "etcd_server_health_failures",
            "How often /health told trouble.",
            unhealthy,
        ),
    ]);
    families
}

fn of_calls(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let (mut started, mut handled) = (vec![], vec![]);
    for counts in telemetry.calls.all() {
        let Method { service, name, .. } = counts.method;
        let kind = kind_of(counts.method);
        let labels = [
            ("grpc_method", name),
            ("grpc_service", service),
            ("grpc_type", kind),
        ];
        started.push(counted(&labels, counts.started()));
        for (code, count) in counts.ended() {
            let [method, service, kind] = labels;
            let labels = [("grpc_code", code), method, service, kind];
            handled.push(counted(&labels, count));
        }
    }
    vec![
        family(
            "grpc_server_started_total",
            "Calls that began.",
            MetricType::COUNTER,
            started,
        ),
        family(
            "grpc_server_handled_total",
            "Calls that ended, by their code.",
            MetricType::COUNTER,
            handled,
        ),
    ]
}

fn kind_of(method: Method) -> &'static str {
    match (method.client_streams, method.server_streams) {
        (false, false) => "unary",
        (false, true) => "server_stream",
        (true, false) => "client_stream",
        (true, true) => "bidi_stream",
    }
}

/// Only of checks that were asked for.
fn of_checks(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let (mut now, mut total) = (vec![], vec![]);
    for ((kind, check), checked) in telemetry.checks() {
        let labels = [("name", check.name()), ("type", kind)];
        now.push(gauged(&labels, u64::from(checked.is_good)));
        for (status, count) in [("success", checked.good), ("error", checked.bad)] {
            let [name, kind] = labels;
            total.push(counted(&[name, ("status", status), kind], count));
        }
    }
    match now.is_empty() {
        true => vec![],
        false => vec![
            family(
                "etcd_server_healthcheck",
                "Whether a check of /livez or /readyz was good the last time: 1 if so.",
                MetricType::GAUGE,
                now,
            ),
            family(
                "etcd_server_healthchecks_total",
                "How often a check of /livez or /readyz was done.",
                MetricType::COUNTER,
                total,
            ),
        ],
    }
}
