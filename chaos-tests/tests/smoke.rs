//! Short runs against real members: load, faults, and what all checkers say of it. Needs root and what `chaos doctor` asks for;
//! it fails where something is missing.

use chaos::check::anomaly::Class;
use chaos::nemesis::Kind;
use chaos::results::{Results, RunConfig, Verdict};
use chaos::run::{self, Progress, Store};
use chaos::testbed::Choice;
use chaos::workload;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Told line by line, so that a test that hangs says where.
struct Lines;

impl Progress for Lines {
    fn part(&self, text: &str) {
        println!("{text}");
    }

    fn fault(&self, kind: &str) {
        if !kind.is_empty() {
            println!("fault: {kind}");
        }
    }

    fn at(&self, _: Duration, _: usize) {}
}

fn config(target: &Choice, seconds: u64, nemesis: &[Kind]) -> RunConfig {
    RunConfig {
        target: target.to_string(),
        workloads: workload::Kind::USUAL.to_vec(),
        nemesis: nemesis.to_vec(),
        combos: false,
        seconds,
        seed: 7,
        members: 3,
        rate: 400,
        lanes: 4,
        plant: None,
        command: "cargo nextest run -p trireme-chaos --test smoke".to_owned(),
        started: chaos::clock::now(),
        version: String::new(),
        machine: String::new(),
    }
}

async fn run(config: &RunConfig, target: &Choice, out: &Path) -> Results {
    chaos::kernel::own_mounts().expect("this needs root");
    let store = Store::Started(target.clone());
    let results = run::run(config, &store, out, &Lines)
        .await
        .expect("the run goes to its end");
    println!("{:#?}", results.reasons);
    results
}

/// About 90 seconds of the faults that a cluster must survive every day.
#[tokio::test]
async fn clients_of_broken_masters_see_what_the_store_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = Choice::parse("control").expect("a target");
    let kinds = [
        Kind::Kill,
        Kind::Pause,
        Kind::Partition,
        Kind::PowerLossMajority,
    ];
    let results = run(&config(&target, 90, &kinds), &target, folder.path()).await;
    assert_eq!(results.verdict, Verdict::Ok, "{:#?}", results.reasons);
    let ops = results.findings.ops;
    assert!(ops >= 2000, "{ops} operations show too little");
}

/// A holder of each lock sleeps until another has it, so that two believe to hold it.
#[tokio::test]
async fn two_believe_to_hold_a_lock_and_only_the_condition_keeps_them_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = Choice::parse("control").expect("a target");
    let config = RunConfig {
        workloads: vec![workload::Kind::Lock, workload::Kind::LockUnfenced],
        rate: 200,
        ..config(&target, 10, &[])
    };
    let results = run(&config, &target, folder.path()).await;
    assert_eq!(results.verdict, Verdict::Violated);
    let broken: BTreeSet<&str> = results
        .findings
        .anomalies()
        .map(|(_, anomaly)| {
            assert_eq!(anomaly.class, Class::LockBroken, "{anomaly}");
            anomaly.key.as_str()
        })
        .collect();
    let unfenced = BTreeSet::from(["lock-unfenced-0", "lock-unfenced-1"]);
    assert_eq!(broken, unfenced);
}

#[tokio::test]
async fn clients_of_broken_etcd_members_see_what_etcd_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = Choice::parse("etcd").expect("a target");
    // Debian's etcd 3.4 breaks promises of watches (a bookmark before its events) and of leases (a leader that
    // slept revokes what its successor prolonged), which this harness finds; here it is to find nothing.
    let config = |seconds, kinds: &[Kind]| RunConfig {
        workloads: vec![
            workload::Kind::Register,
            workload::Kind::Set,
            workload::Kind::Append,
            workload::Kind::Txn,
            workload::Kind::Bank,
            workload::Kind::Lock,
            workload::Kind::Admin,
        ],
        ..config(&target, seconds, kinds)
    };
    let kinds = [Kind::Kill, Kind::Partition];
    let results = run(&config(25, &kinds), &target, folder.path()).await;
    assert_eq!(results.verdict, Verdict::Ok, "{:#?}", results.reasons);
    let ops = results.findings.ops;
    assert!(ops >= 3000, "{ops} operations show too little");
    let report = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(report.contains("NOTHING FOUND"));
    let again = run::check(folder.path()).expect("a saved history can be judged again");
    assert_eq!(again.verdict, Verdict::Ok);

    // The same members, asked for less than the newest: that this is caught shows that the verdict above says something.
    let config = RunConfig {
        workloads: vec![workload::Kind::Register],
        plant: Some("stale-reads".to_owned()),
        ..config(12, &[Kind::Partition])
    };
    let results = run(&config, &target, folder.path()).await;
    assert_eq!(results.verdict, Verdict::Violated);
    let classes: Vec<Class> = results
        .findings
        .anomalies()
        .map(|(_, anomaly)| anomaly.class)
        .collect();
    assert!(classes.contains(&Class::StaleRead), "{classes:?}");
}
