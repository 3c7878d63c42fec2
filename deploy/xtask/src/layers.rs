//! Checks the arrows between crates that DESIGN.md draws, as Cargo resolves them for building (tests may reach further).

use anyhow::bail;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a crate of ours may depend on directly, among the crates of ours.
struct Rule {
    name: &'static str,
    pure: bool,
    may_use: &'static [&'static str],
}

const PURE: bool = true;
const SHELL: bool = false;

/// One row a crate. The binaries that join halves (`server`, `chaos-tests`) list what they join.
const RULES: &[Rule] = &[
    rule("trireme-objects", PURE, &[]),
    rule("trireme-rpc", SHELL, &["trireme-objects"]),
    rule("trireme-client", SHELL, &["trireme-objects"]),
    rule("trireme-mvcc", PURE, &["trireme-objects"]),
    rule("trireme-registry", PURE, &["trireme-objects", "trireme-mvcc"]),
    rule("trireme-reconcile", PURE, &["trireme-objects"]),
    rule("trireme-schedule", PURE, &["trireme-objects"]),
    rule("trireme-lifecycle", PURE, &["trireme-objects"]),
    rule("trireme-raft-store", SHELL, &["trireme-objects", "trireme-rpc", "trireme-mvcc"]),
    rule(
        "trireme-runtime",
        SHELL,
        &["trireme-objects", "trireme-mvcc", "trireme-registry", "trireme-reconcile", "trireme-schedule"],
    ),
    rule(
        "trireme-api",
        SHELL,
        &["trireme-objects", "trireme-mvcc", "trireme-registry", "trireme-reconcile", "trireme-schedule"],
    ),
    rule(
        "trireme-server",
        SHELL,
        &[
            "trireme-objects",
            "trireme-rpc",
            "trireme-client",
            "trireme-mvcc",
            "trireme-raft-store",
            "trireme-registry",
            "trireme-reconcile",
            "trireme-schedule",
            "trireme-runtime",
            "trireme-api",
        ],
    ),
    rule("trireme-ctl", SHELL, &["trireme-objects", "trireme-rpc", "trireme-client"]),
    rule("trireme-node-runtime", SHELL, NODE),
    rule("trireme-network", SHELL, NODE),
    rule("trireme-streams", SHELL, NODE),
    rule("trireme-shim", SHELL, NODE),
    rule("trireme-agent", SHELL, NODE),
];

const NODE: &[&str] = &[
    "trireme-objects",
    "trireme-rpc",
    "trireme-client",
    "trireme-lifecycle",
    "trireme-node-runtime",
    "trireme-network",
    "trireme-streams",
    "trireme-shim",
];
