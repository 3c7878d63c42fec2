//! The documents that clients read before anything else, and who may do what. `UPDATE_EXPECT=1` writes them anew.

mod common;

use common::cluster;
use expect_test::expect_file;
use registry::discovery::{self, AggregatedVersion};
use registry::{Caller, Registry, Target, Verb, authorize};
use serde_json::Value;
use std::fmt::Write as _;

fn told(value: &Value) -> String {
    format!("{value:#}\n")
}

#[test]
fn discovery_follows_from_the_table() {
    let registry = Registry::builtin();
    expect_file!["../testdata/discovery/aggregated_core.json"].assert_eq(&told(
        &discovery::aggregated_core(&registry, AggregatedVersion::V2),
    ));
    expect_file!["../testdata/discovery/aggregated_groups.json"].assert_eq(&told(
        &discovery::aggregated_groups(&registry, AggregatedVersion::V2Beta1),
    ));
    expect_file!["../testdata/discovery/groups.json"]
        .assert_eq(&told(&discovery::group_list(&registry)));
    let apps = discovery::resource_list(&registry, "apps", "v1").expect("is served");
    expect_file!["../testdata/discovery/apps_v1.json"].assert_eq(&told(&apps));
    assert_eq!(discovery::resource_list(&registry, "batch", "v9"), None);
    assert_eq!(discovery::group(&registry, "nothing.example"), None);
}

#[test]
fn rights_of_a_node() {
    const VERBS: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    let pipeline = cluster();
    let node = Caller {
        user: "system:node:n1".to_owned(),
        groups: vec!["system:nodes".to_owned()],
        fence: None,
    };
    let mut table = String::new();
    for row in pipeline.registry().iter() {
        let subresources = row.subresources.iter().map(|sub| Some(sub.name.clone()));
        for subresource in std::iter::once(None).chain(subresources) {
            for name in ["n1", "other"] {
                let namespace = if row.kind == "Lease" {
                    "kube-node-lease"
                } else {
                    "default"
                };
                let mut target = Target::object(row, row.namespaced.then_some(namespace), name);
                target.subresource.clone_from(&subresource);
                let may: Vec<&str> = VERBS
                    .iter()
                    .filter(|verb| authorize(&node, **verb, &target).is_ok())
                    .map(|verb| verb.as_str())
                    .collect();
                let path = subresource.as_ref().map_or(row.resource.clone(), |sub| {
                    format!("{}/{sub}", row.resource)
                });
                writeln!(table, "{path} {name}: {}", may.join(" ")).expect("writes to a text");
            }
        }
    }
    expect_file!["../testdata/node_rights.txt"].assert_eq(&table);
}
