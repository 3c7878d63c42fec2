//! What goes between this member and each other one; a member is named by its id in hexadecimal, as in etcd.

use super::family::{Labels, counted, distributed, family, gauged};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use raft_store::{Figures, PeerFigures, RaftStore};

pub fn families(store: &RaftStore, figures: &Figures) -> Vec<MetricFamily> {
    let own = store.identity().member_id;
    let each = |label: &str, sample: &dyn Fn(Labels<'_>, &PeerFigures) -> Metric| {
        let peers = figures.peers.iter();
        let samples = peers.map(|(id, peer)| sample(&[(label, &format!("{id:x}"))], peer));
        samples.collect::<Vec<Metric>>()
    };
    let known = store
        .members()
        .into_iter()
        .filter(|member| member.id != own);
    let known = known.map(|member| {
        let (local, remote) = (format!("{own:x}"), format!("{:x}", member.id));
        gauged(&[("Local", &local), ("Remote", &remote)], 1)
    });
    let families = [
        (
            "etcd_network_known_peers",
            "The other members: 1 for each.",
            MetricType::GAUGE,
            known.collect(),
        ),
        (
            "etcd_network_peer_sent_bytes_total",
            "Bytes sent to the member.",
            MetricType::COUNTER,
            each("To", &|labels, peer| counted(labels, peer.sent_bytes)),
        ),
        (
            "etcd_network_peer_received_bytes_total",
            "Bytes that came from the member.",
            MetricType::COUNTER,
            each("From", &|labels, peer| counted(labels, peer.received_bytes)),
        ),
        (
            "etcd_network_peer_sent_failures_total",
            "Calls that the member did not answer, or not in time.",
            MetricType::COUNTER,
            each("To", &|labels, peer| counted(labels, peer.failed_calls)),
        ),
        (
            "etcd_network_peer_round_trip_time_seconds",
            "How long the member took to answer heartbeats.",
            MetricType::HISTOGRAM,
            each("To", &|labels, peer| distributed(labels, &peer.round_trips)),
        ),
    ];
    // A member that is alone has none.
    let families = families
        .into_iter()
        .filter(|(.., samples)| !samples.is_empty());
    families
        .map(|(name, help, kind, samples)| family(name, help, kind, samples))
        .collect()
}
