//! Checks the arrows between crates that DESIGN.md draws, as Cargo resolves them for building (tests may reach further).

use anyhow::bail;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::collections::{BTreeMap, VecDeque};

/// What a crate of ours may depend on directly, among the crates of ours. Names without `trireme-`.
struct Rule {
    name: &'static str,
    pure: bool,
    may_use: &'static [&'static str],
}

#[rustfmt::skip]
const RULES: &[Rule] = &[
    pure("objects", &[]),
    pure("mvcc", &["objects"]),
    pure("cel", &[]),
    pure("registry", &["objects", "mvcc", "cel"]),
    pure("descriptions", &[]),
    pure("reconcile", &["objects"]),
    pure("schedule", &["objects"]),
    pure("lifecycle", &["objects"]),
    shell("rpc", &["objects"]),
    shell("trust", &[]),
    shell("client", &["objects", "trust"]),
    shell("raft-store", &["objects", "rpc", "mvcc"]),
    shell("etcd", &["objects", "rpc", "mvcc", "raft-store"]),
    shell("etcd-store", &["objects", "rpc", "mvcc"]),
    shell("runtime", &["objects", "mvcc", "registry", "reconcile", "schedule"]),
    pure("dashboard", &[]),
    shell("api", &["objects", "trust", "mvcc", "registry", "dashboard"]),
    shell("server", &["objects", "rpc", "trust", "client", "mvcc", "raft-store", "etcd", "etcd-store", "registry", "descriptions", "reconcile", "schedule", "runtime", "api"]),
    shell("ctl", &["objects", "rpc", "client"]),
    shell("node-runtime", NODE_PARTS),
    shell("network", NODE_PARTS),
    shell("streams", NODE_PARTS),
    shell("shim", NODE_PARTS),
    shell("agent", NODE_PARTS),
    shell("sim", &["objects", "rpc", "mvcc", "raft-store"]),
    shell("fuzz", &["objects", "mvcc", "cel", "registry", "api", "dashboard", "streams"]),
    shell("clients", &["objects", "client", "chaos"]),
    shell("conformance", &["objects", "client", "chaos"]),
    shell("chaos", &["sim", "objects", "rpc", "client", "mvcc", "raft-store", "etcd", "registry", "reconcile", "schedule", "runtime", "api", "lifecycle"]),
];

const NODE_PARTS: &[&str] = &[
    "objects",
    "rpc",
    "trust",
    "client",
    "lifecycle",
    "node-runtime",
    "network",
    "streams",
];

/// Libraries that ask the kernel, the clock or the network: no pure crate may reach them.
const IMPURE: &[&str] = &["tokio", "tonic", "rocksdb", "hyper", "mio"];

const PREFIX: &str = "trireme-";

const fn pure(name: &'static str, may_use: &'static [&'static str]) -> Rule {
    Rule {
        name,
        pure: true,
        may_use,
    }
}

const fn shell(name: &'static str, may_use: &'static [&'static str]) -> Rule {
    Rule {
        name,
        pure: false,
        may_use,
    }
}

/// The feature with which the store's promises can be broken on purpose.
const PLANTED: &str = "planted-bugs";

/// Prints every broken arrow with what to do about it, and fails if there is one.
pub fn check() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .other_options(["--locked".to_owned()])
        .exec()?;
    let graph = Graph::new(&metadata);
    let mut broken = Vec::new();
    for id in &metadata.workspace_members {
        let Some(name) = graph.names[id].strip_prefix(PREFIX) else {
            continue; // xtask.
        };
        match RULES.iter().find(|rule| rule.name == name) {
            Some(rule) => check_crate(&graph, id, rule, &mut broken),
            None => broken.push(format!(
                "{PREFIX}{name} has no row in deploy/xtask/src/layers.rs: add one that says what it may use"
            )),
        }
    }
    broken.extend(planted(&metadata));
    for line in &broken {
        eprintln!("layers: {line}");
    }
    if !broken.is_empty() {
        bail!("{} arrows of the layout are broken", broken.len());
    }
    println!("layers: {} crates keep to the layout", RULES.len());
    Ok(())
}

/// Crates of which a usual build has the bugs that can be planted: a feature that is on by default, or that a dependency asks for, would
/// bring them into a release.
fn planted(metadata: &Metadata) -> Vec<String> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let has = |node: &&cargo_metadata::Node| {
        node.features
            .iter()
            .any(|feature| feature.as_str() == PLANTED)
    };
    let told = nodes.filter(has).map(|node| {
        format!(
            "{} is built with {PLANTED}, which no release may have: only the command line may ask for it",
            node.id
        )
    });
    told.collect()
}

fn check_crate(graph: &Graph<'_>, id: &PackageId, rule: &Rule, broken: &mut Vec<String>) {
    for used in graph.uses(id) {
        let Some(used) = graph.names[used].strip_prefix(PREFIX) else {
            continue;
        };
        if !rule.may_use.contains(&used) {
            broken.push(format!(
                "{} must not use {used}: it may use {:?}. Move the shared part into one of these, or pass it in as an argument or trait",
                rule.name, rule.may_use
            ));
        }
    }
    if rule.pure
        && let Some(path) = graph.path_to_impure(id)
    {
        broken.push(format!(
            "{} is pure but reaches {}: drop that dependency or the feature that brings it (cargo tree -p {PREFIX}{} -e normal -i {})",
            rule.name,
            path.join(" -> "),
            rule.name,
            path.last().copied().unwrap_or_default()
        ));
    }
}

/// Who uses whom when building, features resolved.
struct Graph<'a> {
    names: BTreeMap<&'a PackageId, &'a str>,
    edges: BTreeMap<&'a PackageId, Vec<&'a PackageId>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let names = metadata
            .packages
            .iter()
            .map(|package| (&package.id, package.name.as_str()))
            .collect();
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let edges = nodes.map(|node| {
            let normal = node.deps.iter().filter(|dependency| {
                let kinds = &dependency.dep_kinds;
                kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            });
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        });
        Graph {
            names,
            edges: edges.collect(),
        }
    }

    fn uses(&self, id: &PackageId) -> impl Iterator<Item = &'a PackageId> + '_ {
        self.edges.get(id).into_iter().flatten().copied()
    }

    /// The shortest chain of names to an impure library.
    fn path_to_impure(&self, from: &'a PackageId) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&PackageId, &PackageId> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            if IMPURE.contains(&self.names[id]) {
                let mut path = vec![self.names[id]];
                let mut at = id;
                while let Some(before) = came_from.get(at) {
                    path.push(self.names[before]);
                    at = before;
                }
                path.reverse();
                return Some(path);
            }
            for used in self.uses(id) {
                if used != from && !came_from.contains_key(used) {
                    came_from.insert(used, id);
                    queue.push_back(used);
                }
            }
        }
        None
    }
}
