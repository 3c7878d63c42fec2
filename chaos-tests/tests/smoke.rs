//! A short run against real masters: every fault once, all that clients saw linearizable. Needs root, nft, and the programs
//! (beside this test's folder, or in $TRIREME_BIN); it fails where one is missing.

use chaos::check::anomaly::Class;
use chaos::cluster::Binaries;
use chaos::nemesis::Kind;
use chaos::results::{Results, RunConfig, Verdict};
use chaos::run::{self, Progress};
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

async fn run_for(seconds: u64, nemesis: Vec<Kind>, plant: Option<&str>, out: &Path) -> Results {
    let binaries = Binaries::find().expect("the programs are built");
    let config = RunConfig {
        nemesis,
        seconds,
        seed: 7,
        masters: 3,
        rate: 300,
        lanes: 4,
        plant: plant.map(str::to_owned),
        command: "cargo test -p trireme-chaos --test smoke".to_owned(),
        started: String::new(),
        version: binaries.version(),
        machine: String::new(),
    };
    run::run(&config, binaries, out, &Lines)
        .await
        .expect("the run goes to its end")
}

#[tokio::test]
async fn masters_fail_and_clients_see_one_register_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let kinds = vec![Kind::Kill, Kind::Pause, Kind::Partition];
    let results = run_for(26, kinds, None, folder.path()).await;
    println!("{results:#?}");
    assert_eq!(results.verdict, Verdict::Ok, "{:#?}", results.reasons);
    let ops = results.findings.ops;
    assert!(ops >= 1000, "{ops} operations show too little");
    let report = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(report.contains("NOTHING FOUND"));
    let again = run::check(folder.path()).expect("a saved history can be judged again");
    assert_eq!(again.verdict, Verdict::Ok);

    // The same masters, asked for less than the newest: that this is caught shows that the verdict above says something.
    let results = run_for(
        12,
        vec![Kind::Partition],
        Some("stale-reads"),
        folder.path(),
    )
    .await;
    assert_eq!(results.verdict, Verdict::Violated);
    let found = &results.findings;
    let classes: Vec<Class> = found
        .anomalies()
        .map(|(_, anomaly)| anomaly.class)
        .collect();
    assert!(classes.contains(&Class::StaleRead), "{classes:?}");
}
