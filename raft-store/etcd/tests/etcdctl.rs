//! Debian's etcdctl against three members, as an operator types it.

mod served;

use served::Served;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;

/// Runs etcdctl; it must succeed.
async fn etcdctl(endpoints: &str, args: &[&str]) -> String {
    let output = try_etcdctl(endpoints, args).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "etcdctl {args:?} failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

async fn try_etcdctl(endpoints: &str, args: &[&str]) -> Output {
    let run = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(args)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(Duration::from_secs(30), run)
        .await
        .unwrap_or_else(|_| panic!("etcdctl {args:?} did not end"))
        .expect("etcdctl runs; install Debian's package etcd-client")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_read_watched_and_compacted() {
    let served = Served::three().await;
    let all = served.endpoints();
    let put = etcdctl(&all, &["put", "/a", "1"]).await;
    assert_eq!(put, "OK\n");
    assert_eq!(
        etcdctl(&all, &["put", "/a", "2", "--prev-kv"]).await,
        "OK\n/a\n1\n"
    );
    etcdctl(&all, &["put", "/b", "3"]).await;
    assert_eq!(
        etcdctl(&all, &["get", "--prefix", "/"]).await,
        "/a\n2\n/b\n3\n"
    );
    assert_eq!(etcdctl(&all, &["get", "/a", "--rev=2"]).await, "/a\n1\n");
    assert_eq!(
        etcdctl(
            &all,
            &[
                "get",
                "--prefix",
                "/",
                "--order=DESCEND",
                "--limit=1",
                "--keys-only"
            ]
        )
        .await,
        "/b\n\n"
    );
    assert_eq!(etcdctl(&all, &["del", "--prefix", "/"]).await, "2\n");
    etcdctl(&all, &["compaction", "4", "--physical"]).await;
    let gone = try_etcdctl(&all, &["get", "/a", "--rev=2"]).await;
    let text = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(
        text.contains("etcdserver: mvcc: required revision has been compacted"),
        "{text}"
    );
    let status = etcdctl(&all, &["endpoint", "status", "--write-out=table"]).await;
    assert!(status.contains("true"), "{status}");
    let health = try_etcdctl(&all, &["endpoint", "health"]).await;
    let text = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
    assert_eq!(text.matches("is healthy").count(), 3, "{text}");
    served.stop().await;
}
