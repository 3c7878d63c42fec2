//! How pods are reached: networking, discovery.

use super::{PLAIN, Row, STATUS};
use crate::strategy;
use crate::table::columns;

const NETWORKING: Row = Row {
    version: "networking.k8s.io/v1",
    ..PLAIN
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        version: "discovery.k8s.io/v1",
        resource: "endpointslices",
        kind: "EndpointSlice",
        columns: columns::ENDPOINT_SLICES,
        strategy: &strategy::EndpointSlices,
        ..PLAIN
    },
    Row {
        resource: "ingresses",
        kind: "Ingress",
        columns: columns::INGRESSES,
        strategy: &strategy::Ingresses,
        short_names: &["ing"],
        subresources: &[STATUS],
        ..NETWORKING
    },
    Row {
        resource: "ingressclasses",
        kind: "IngressClass",
        namespaced: false,
        columns: columns::INGRESS_CLASSES,
        strategy: &strategy::IngressClasses,
        ..NETWORKING
    },
    Row {
        resource: "networkpolicies",
        kind: "NetworkPolicy",
        columns: columns::NETWORK_POLICIES,
        strategy: &strategy::NetworkPolicies,
        short_names: &["netpol"],
        ..NETWORKING
    },
    Row {
        resource: "servicecidrs",
        kind: "ServiceCIDR",
        namespaced: false,
        columns: columns::SERVICE_CIDRS,
        strategy: &strategy::ServiceCidrs,
        subresources: &[STATUS],
        ..NETWORKING
    },
    Row {
        resource: "ipaddresses",
        kind: "IPAddress",
        namespaced: false,
        columns: columns::IP_ADDRESSES,
        strategy: &strategy::IpAddresses,
        short_names: &["ip"],
        ..NETWORKING
    },
];
