//! The documents that clients read before anything else, and who may do what. `UPDATE_EXPECT=1` writes them anew.

mod common;

use common::cluster;
use expect_test::expect_file;
use futures::executor::block_on;
use registry::aggregation::ApiServices;
use registry::discovery::{self, AggregatedVersion};
use registry::{Caller, Registry, Target, Verb};
use serde_json::{Value, json};
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
        &discovery::aggregated_groups(
            &registry,
            &ApiServices::default(),
            AggregatedVersion::V2Beta1,
        ),
    ));
    expect_file!["../testdata/discovery/groups.json"].assert_eq(&told(&discovery::group_list(
        &registry,
        &ApiServices::default(),
    )));
    let apps = discovery::resource_list(&registry, "apps", "v1").expect("is served");
    expect_file!["../testdata/discovery/apps_v1.json"].assert_eq(&told(&apps));
    assert_eq!(discovery::resource_list(&registry, "batch", "v9"), None);
    assert_eq!(
        discovery::group(&registry, &ApiServices::default(), "nothing.example"),
        None
    );
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
        ..Caller::default()
    };
    // Two pods, one on the node; each names a secret and a config map of its own name.
    for (pod, on) in [("n1", "n1"), ("other", "n2")] {
        let volumes = json!([
            {"name": "s", "secret": {"secretName": pod}},
            {"name": "c", "configMap": {"name": pod}},
        ]);
        let pod = json!({
            "metadata": {"name": pod},
            "spec": {"nodeName": on, "volumes": volumes, "serviceAccountName": pod,
                "containers": [{"name": "c", "image": "i"}]},
        });
        let account = json!({"metadata": {"name": pod["metadata"]["name"]}});
        common::create(&pipeline, "serviceaccounts", account);
        common::create(&pipeline, "pods", pod);
    }
    block_on(pipeline.access().read_all(&**pipeline.store())).expect("the store reads");
    let access = pipeline.access();
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
                    .filter(|verb| access.authorize(&node, **verb, &target).is_ok())
                    .map(|verb| verb.as_str())
                    .collect();
                let path = subresource.as_ref().map_or(row.resource.clone(), |sub| {
                    format!("{}/{sub}", row.resource)
                });
                if may.is_empty() {
                    continue;
                }
                writeln!(table, "{path} {name}: {}", may.join(" ")).expect("writes to a text");
            }
        }
    }
    expect_file!["../testdata/node_rights.txt"].assert_eq(&table);
}
