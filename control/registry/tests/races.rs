//! Writers on threads over one store: nothing is lost, no address is given twice, a pod is bound once.

mod common;

use common::{cluster, create, target};
use futures::executor::block_on;
use mvcc::LeaderState;
use objects::{Reason, Term};
use registry::{Caller, Patch, PatchKind, WriteOptions};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::thread;

const WRITERS: usize = 4;
const WRITES: usize = 12;

#[test]
fn unconditional_patches_are_all_kept() {
    let pipeline = cluster();
    create(
        &pipeline,
        "configmaps",
        json!({"metadata": {"name": "shared"}}),
    );
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let pipeline = pipeline.clone();
            scope.spawn(move || {
                for write in 0..WRITES {
                    let value = json!({"data": {format!("{writer}-{write}"): "x"}});
                    let patch = Patch {
                        kind: PatchKind::Merge,
                        value,
                    };
                    let target = target(&pipeline, "configmaps", Some("shared"));
                    let options = WriteOptions::default();
                    block_on(pipeline.patch(&Caller::master(), &target, &patch, &options))
                        .expect("a patch without precondition is never refused");
                }
            });
        }
    });
    let json = block_on(pipeline.get(&target(&pipeline, "configmaps", Some("shared")), None));
    let object: Value = serde_json::from_slice(&json.expect("it is there")).expect("is JSON");
    assert_eq!(
        object["data"].as_object().expect("a map").len(),
        WRITERS * WRITES
    );
}

#[test]
fn no_address_is_given_twice() {
    let pipeline = cluster();
    let addresses: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let pipeline = pipeline.clone();
                scope.spawn(move || {
                    let service = |write: usize| {
                        json!({
                            "metadata": {"name": format!("s{writer}-{write}")},
                            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
                        })
                    };
                    let created =
                        (0..WRITES).map(|write| create(&pipeline, "services", service(write)));
                    created
                        .map(|service| {
                            format!(
                                "{} {}",
                                service["spec"]["clusterIP"],
                                service["spec"]["ports"][0]["nodePort"]
                            )
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("no panic"))
            .collect()
    });
    for part in [0, 1] {
        let distinct: BTreeSet<&str> = addresses
            .iter()
            .filter_map(|pair| pair.split(' ').nth(part))
            .collect();
        assert_eq!(distinct.len(), WRITERS * WRITES);
    }
}

#[test]
fn a_pod_is_bound_once() {
    let pipeline = cluster();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    create(&pipeline, "pods", pod);
    let answers: Vec<bool> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let pipeline = pipeline.clone();
                scope.spawn(move || {
                    let target = target(&pipeline, "pods", Some("p")).subresource("binding");
                    let binding = json!({"target": {"kind": "Node", "name": format!("n{writer}")}});
                    let options = WriteOptions::default();
                    match block_on(pipeline.create(&Caller::master(), &target, binding, &options)) {
                        Ok(_) => true,
                        Err(status) => {
                            assert!(status.is(Reason::Conflict), "{status}");
                            false
                        }
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .collect()
    });
    assert_eq!(answers.iter().filter(|bound| **bound).count(), 1);
}

#[test]
fn a_controller_of_an_older_term_writes_nothing() {
    let (pipeline, store) = common::cluster_and_store();
    let target = target(&pipeline, "configmaps", None);
    let write = |term: u64, name: &str| {
        let body = json!({"metadata": {"name": name}});
        let caller = Caller::controller("test", Term(term));
        block_on(pipeline.create(&caller, &target, body, &WriteOptions::default()))
    };
    write(1, "first").expect("the term lasts");
    store.set_leader(LeaderState {
        term: Term(2),
        is_leader: true,
        has_leader: true,
    });
    assert_eq!(write(1, "late").expect_err("the term is over").code, 409);
    write(2, "second").expect("the new term lasts");
}

#[test]
fn a_quota_gives_out_what_it_has_and_no_more() {
    const HARD: usize = 20;
    let pipeline = cluster();
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": HARD.to_string()}}});
    create(&pipeline, "resourcequotas", quota);
    let status = target(&pipeline, "resourcequotas", Some("q")).subresource("status");
    let patch = Patch {
        kind: PatchKind::Merge,
        value: json!({"status": {"hard": {"configmaps": HARD.to_string()}, "used": {"configmaps": "0"}}}),
    };
    let options = WriteOptions::default();
    block_on(pipeline.patch(&Caller::master(), &status, &patch, &options)).expect("it is told");
    let created: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let pipeline = pipeline.clone();
                scope.spawn(move || {
                    let target = target(&pipeline, "configmaps", None);
                    let write = |write: usize| {
                        let body = json!({"metadata": {"name": format!("c{writer}-{write}")}});
                        let options = WriteOptions::default();
                        match block_on(pipeline.create(&Caller::master(), &target, body, &options))
                        {
                            Ok(_) => true,
                            Err(status) => {
                                assert!(status.message.contains("exceeded quota: q"), "{status}");
                                false
                            }
                        }
                    };
                    (0..WRITES).filter(|index| write(*index)).count()
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .sum()
    });
    assert_eq!(created, HARD);
    let json = block_on(pipeline.get(&target(&pipeline, "resourcequotas", Some("q")), None));
    let quota: Value = serde_json::from_slice(&json.expect("it is there")).expect("is JSON");
    assert_eq!(quota["status"]["used"]["configmaps"], HARD.to_string());
}
