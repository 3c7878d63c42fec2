//! How long pods, containers and commands in them take, and the memory of a shim; as root on a quiet machine:
//! `TRIREME_SHIM=TARGET/release/shim cargo bench -p trireme-node-runtime`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use node_runtime::{ContainerSpec, PodSpec};
use support::*;

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at =
        |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms", at(50), at(99))
}

fn main() {
    on_node(async |node| {
        let (mut starts, mut pods, mut removals, mut execs) = (vec![], vec![], vec![], vec![]);
        for number in 0..30 {
            let uid = format!("m{number}");
            let begun = Instant::now();
            node.pods
                .create(PodSpec {
                    uid: uid.clone(),
                    hostname: Some("m".into()),
                    ..PodSpec::default()
                })
                .await
                .expect("creates");
            pods.push(begun.elapsed());
            node.pods.remove(&uid).await.expect("removes");
        }
        for number in 0..60 {
            let begun = Instant::now();
            let (id, exit) = run(
                &node,
                ContainerSpec {
                    log_path: None,
                    ..script(&node, &number.to_string(), "exit 0")
                },
            )
            .await;
            starts.push(begun.elapsed());
            assert_eq!(exit.code, 0);
            let begun = Instant::now();
            node.pods.remove_container(POD, &id).await.expect("removes");
            removals.push(begun.elapsed());
        }
        let id = node
            .pods
            .start_container(POD, script(&node, "a", "sleep 600"))
            .await
            .expect("starts");
        for _ in 0..60 {
            let begun = Instant::now();
            assert_eq!(exec(&node, &id, "exit 0").await.0, 0);
            execs.push(begun.elapsed());
        }
        let folder = node.dir.path().join("run/pods").join(POD);
        let pid = std::fs::read_to_string(folder.join("shim.pid")).expect("reads");
        // A shim gives memory back a second after such work.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let memory =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.trim())).expect("reads");
        println!("pod created: {}", quantiles(pods));
        println!(
            "container started, run and told ended: {}",
            quantiles(starts)
        );
        println!("container removed: {}", quantiles(removals));
        println!("exec'd, run and told ended: {}", quantiles(execs));
        for line in memory.lines().filter(|line| {
            [
                "Rss:",
                "Pss:",
                "Anonymous:",
                "Shared_Clean:",
                "Private_Dirty:",
            ]
            .iter()
            .any(|key| line.starts_with(key))
        }) {
            println!("shim {line}");
        }
    });
}
