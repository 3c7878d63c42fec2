//! Debian's etcdctl against three members, as an operator types it.

mod served;

use serde_json::Value;
use served::Served;
use served::http::get;
use served::real::Etcd;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const ANSWER_MAX: Duration = Duration::from_secs(30);

fn command(endpoints: &str, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(args)
        .kill_on_drop(true);
    command
}

/// Runs etcdctl, with this text typed into it; it must succeed. What it said, on both of its outputs.
async fn typed(endpoints: &str, args: &[&str], input: &str) -> String {
    let output = output(endpoints, args, input).await;
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "etcdctl {args:?} failed: {text}");
    text
}

async fn etcdctl(endpoints: &str, args: &[&str]) -> String {
    typed(endpoints, args, "").await
}

/// What etcdctl says of why it failed.
async fn refused(endpoints: &str, args: &[&str]) -> String {
    let output = output(endpoints, args, "").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "etcdctl {args:?} was to fail: {text}"
    );
    text
}

async fn output(endpoints: &str, args: &[&str], input: &str) -> Output {
    let mut child = command(endpoints, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl runs; install Debian's package etcd-client");
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    drop(stdin);
    let ended = tokio::time::timeout(ANSWER_MAX, child.wait_with_output()).await;
    ended
        .unwrap_or_else(|_| panic!("etcdctl {args:?} did not end"))
        .expect("it ends")
}

/// An etcdctl that goes on until it is dropped.
struct Running {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Running {
    fn start(endpoints: &str, args: &[&str]) -> Self {
        let mut child = command(endpoints, args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcdctl runs; install Debian's package etcd-client");
        let stdout = child.stdout.take().expect("it was asked for");
        Running {
            lines: BufReader::new(stdout).lines(),
            _child: child,
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(ANSWER_MAX, self.lines.next_line());
        let line = line.await.expect("it says something in time");
        line.expect("it can be read").expect("it goes on")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_read_watched_and_compacted() {
    let served = Served::three().await;
    let all = served.endpoints();
    let at = |args: &'static [&'static str]| etcdctl(&all, args);
    let mut watch = Running::start(&all, &["watch", "--prefix", "/", "--rev=1", "--prev-kv"]);
    assert_eq!(at(&["put", "/a", "1"]).await, "OK\n");
    assert_eq!(at(&["put", "/a", "2", "--prev-kv"]).await, "OK\n/a\n1\n");
    at(&["put", "/b", "3"]).await;
    assert_eq!(at(&["get", "--prefix", "/"]).await, "/a\n2\n/b\n3\n");
    assert_eq!(at(&["get", "/a", "--rev=2"]).await, "/a\n1\n");
    let last = at(&[
        "get",
        "--prefix",
        "/",
        "--order=DESCEND",
        "--limit=1",
        "--keys-only",
    ])
    .await;
    assert_eq!(last, "/b\n\n");
    let script = "mod(\"/a\") = \"3\"\n\nput /a 4\nget /b\n\nget /a\n\n";
    assert_eq!(
        typed(&all, &["txn"], script).await,
        "SUCCESS\n\nOK\n\n/b\n3\n"
    );
    assert_eq!(typed(&all, &["txn"], script).await, "FAILURE\n\n/a\n4\n");
    assert_eq!(at(&["del", "--prefix", "/"]).await, "2\n");
    let mut told = vec![];
    for _ in 0..18 {
        told.push(watch.line().await);
    }
    let expected = [
        "PUT", "/a", "1", "PUT", "/a", "1", "/a", "2", "PUT", "/b", "3", "PUT", "/a", "2", "/a",
        "4", "DELETE", "/a",
    ];
    assert_eq!(told, expected);
    at(&["compaction", "5", "--physical"]).await;
    let gone = refused(&all, &["get", "/a", "--rev=2"]).await;
    assert!(
        gone.contains("etcdserver: mvcc: required revision has been compacted"),
        "{gone}"
    );
    let gone = Running::start(&all, &["watch", "/a", "--rev=2"])
        .lines
        .next_line()
        .await;
    assert!(
        gone.as_ref()
            .is_ok_and(|line| line.as_ref().is_none_or(|line| line.contains("compact"))),
        "a watch of what is gone ends: {gone:?}"
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_locks_and_elections() {
    let served = Served::three().await;
    let all = served.endpoints();
    let granted = etcdctl(&all, &["lease", "grant", "600"]).await;
    let id = granted
        .split_whitespace()
        .nth(1)
        .expect("its id")
        .to_owned();
    etcdctl(&all, &["put", "/leased", "x", &format!("--lease={id}")]).await;
    assert!(etcdctl(&all, &["lease", "list"]).await.contains(&id));
    // Any member answers for it, by the leader's clock.
    for address in &served.addresses {
        let one = address.to_string();
        let life = etcdctl(&one, &["lease", "timetolive", &id, "--keys"]).await;
        assert!(
            life.contains("granted with TTL(600s), remaining(59") && life.contains("[/leased]"),
            "{life}"
        );
        let kept = etcdctl(&one, &["lease", "keep-alive", "--once", &id]).await;
        assert!(kept.contains("keepalived with TTL(600)"), "{kept}");
    }
    etcdctl(&all, &["lease", "revoke", &id]).await;
    assert_eq!(etcdctl(&all, &["get", "/leased"]).await, "");
    let gone = refused(&all, &["lease", "revoke", &id]).await;
    assert!(
        gone.contains("etcdserver: requested lease not found"),
        "{gone}"
    );

    assert_eq!(
        etcdctl(&all, &["lock", "mutex", "echo", "held"]).await,
        "held\n"
    );
    let mut holder = Running::start(&all, &["lock", "mutex", "--ttl=2"]);
    assert!(holder.line().await.starts_with("mutex/"));
    let mut next = Running::start(&all, &["lock", "mutex"]);
    // The holder is killed, not asked to leave: only the end of its lease frees the lock.
    drop(holder);
    assert!(next.line().await.starts_with("mutex/"));

    let mut leader = Running::start(&all, &["elect", "office", "first"]);
    assert!(leader.line().await.starts_with("office/"));
    assert_eq!(leader.line().await, "first");
    let mut listener = Running::start(&all, &["elect", "office", "--listen"]);
    assert!(listener.line().await.starts_with("office/"));
    assert_eq!(listener.line().await, "first");
    drop((leader, listener, next));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_seen_led_and_saved() {
    let served = Served::three().await;
    let all = served.endpoints();
    for key in ["/a", "/b"] {
        etcdctl(&all, &["put", key, "value"]).await;
    }
    let health = etcdctl(&all, &["endpoint", "health"]).await;
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    let status = etcdctl(&all, &["endpoint", "status", "--write-out=fields"]).await;
    assert_eq!(
        status.matches("\"Version\" : \"3.5.").count(),
        3,
        "{status}"
    );
    assert_eq!(status.matches("\"Leader\"").count(), 3, "{status}");
    let hashes = etcdctl(&all, &["endpoint", "hashkv", "--rev=3"]).await;
    let hashes: Vec<&str> = hashes
        .lines()
        .filter_map(|line| line.rsplit_once(", "))
        .map(|(_, hash)| hash)
        .collect();
    assert_eq!(hashes.len(), 3);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let members = etcdctl(&all, &["member", "list"]).await;
    for line in [
        "1, started, m1, http",
        "2, started, m2, http",
        "3, started, m3, http",
    ] {
        assert!(members.contains(line), "{members}");
    }
    let leader = served.cluster.leader().await;
    let to = (leader + 1) % 3;
    let moved = etcdctl(&all, &["move-leader", &format!("{:x}", to + 1)]).await;
    assert!(moved.contains("Leadership transferred"), "{moved}");
    assert_eq!(served.cluster.leader().await, to);
    assert_eq!(etcdctl(&all, &["alarm", "list"]).await, "");
    let defragmented = etcdctl(&all, &["defrag"]).await;
    assert_eq!(
        defragmented.matches("Finished defragmenting").count(),
        3,
        "{defragmented}"
    );

    let file = served.cluster.dir().join("saved");
    let path = file.display().to_string();
    etcdctl(
        &served.addresses[0].to_string(),
        &["snapshot", "save", &path],
    )
    .await;
    let status = etcdctl(&all, &["snapshot", "status", &path, "-w", "json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["revision"], 3, "{status}");

    let user = refused(&all, &["auth", "enable"]).await;
    assert!(
        user.contains("etcdserver: authentication is not enabled"),
        "{user}"
    );
    let removed = refused(&all, &["member", "remove", "9"]).await;
    assert!(
        removed.contains("etcdserver: member not found"),
        "{removed}"
    );
    let added = refused(
        &all,
        &[
            "member",
            "add",
            "m4",
            &format!(
                "--peer-urls=http://{}",
                served.cluster.configs[1].peer_address
            ),
        ],
    )
    .await;
    assert!(
        added.contains("etcdserver: Peer URLs already exists"),
        "{added}"
    );
    let added = etcdctl(
        &all,
        &[
            "member",
            "add",
            "m4",
            "--learner",
            "--peer-urls=http://127.0.0.1:9",
        ],
    )
    .await;
    assert!(added.contains("added to cluster"), "{added}");
    let early = refused(&all, &["member", "promote", "4"]).await;
    assert!(early.contains("in sync with leader"), "{early}");
    etcdctl(&all, &["member", "remove", "4"]).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_is_restored_from_a_snapshot() {
    let served = Served::three().await;
    let all = served.endpoints();
    let lease = etcdctl(&all, &["lease", "grant", "6000"]).await;
    let lease = lease.split_whitespace().nth(1).expect("its id").to_owned();
    etcdctl(&all, &["put", "/leased", "x", &format!("--lease={lease}")]).await;
    // More than one page of leaves, and a value of several pages.
    for number in 0..300 {
        put(&served, &format!("/many/{number:04}"), &"v".repeat(100)).await;
    }
    put(&served, "/large", &"x".repeat(200_000)).await;
    for value in ["1", "2", "3"] {
        put(&served, "/changed", value).await;
    }
    etcdctl(&all, &["del", "/many/0007"]).await;
    let changed = revision_of(&all, "/changed").await;
    etcdctl(&all, &["compaction", "--physical", &changed.to_string()]).await;
    put(&served, "/changed", "4").await;
    let file = served.cluster.dir().join("saved");
    let path = file.display().to_string();
    let one = served.addresses[1].to_string();
    etcdctl(&one, &["snapshot", "save", &path]).await;
    let status = etcdctl(&one, &["snapshot", "status", &path, "-w", "json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["revision"], changed + 2, "{status}");

    let restored = Etcd::restored(&path).await;
    let theirs = restored.address.to_string();
    let all_keys = ["get", "--prefix", "/", "-w", "json"];
    let keys = async |endpoints: &str| {
        let told: Value = serde_json::from_str(&etcdctl(endpoints, &all_keys).await).expect("JSON");
        told["kvs"].clone()
    };
    let ours = keys(&all).await;
    assert_eq!(ours.as_array().map(Vec::len), Some(302));
    assert!(
        keys(&theirs).await == ours,
        "keys, values and their numbers are the same"
    );
    // What was before the last change can be asked there too, and what was compacted not.
    let before = format!("--rev={changed}");
    assert_eq!(
        etcdctl(&theirs, &["get", "/changed", &before]).await,
        "/changed\n3\n"
    );
    let gone = format!("--rev={}", changed - 1);
    let gone = refused(&theirs, &["get", "/changed", &gone]).await;
    assert!(gone.contains("has been compacted"), "{gone}");
    let life = etcdctl(&theirs, &["lease", "timetolive", &lease, "--keys"]).await;
    assert!(
        life.contains("TTL(6000s)") && life.contains("[/leased]"),
        "{life}"
    );
    etcdctl(&theirs, &["put", "/new", "x"]).await;
    served.stop().await;
}

async fn put(served: &Served, key: &str, value: &str) {
    use mvcc::Store;
    let txn = served::members::put_txn(key, value);
    served.cluster.any().txn(txn).await.expect("a put");
}

/// The revision of a key's last change.
async fn revision_of(endpoints: &str, key: &str) -> u64 {
    let told = etcdctl(endpoints, &["get", key, "-w", "json"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    told["kvs"][0]["mod_revision"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_by_hand_mirrors_and_keep_alives() {
    let served = Served::three().await;
    let all = served.endpoints();
    etcdctl(&all, &["put", "/m/a", "1"]).await;
    let script = "value(\"/m/a\") = \"1\"\n\nput /m/b 2\n\nput /m/b 3\n\n";
    let told = typed(&all, &["txn", "-i"], script).await;
    assert!(told.contains("SUCCESS") && told.contains("OK"), "{told}");

    let other = Served::new(1).await;
    let to = other.endpoints();
    let mirror = Running::start(&all, &["make-mirror", "--prefix", "/m/", &to]);
    etcdctl(&all, &["put", "/m/c", "4"]).await;
    etcdctl(&all, &["del", "/m/a"]).await;
    let until = tokio::time::Instant::now() + ANSWER_MAX;
    loop {
        let there = etcdctl(&to, &["get", "--prefix", "/m/"]).await;
        if there == "/m/b\n2\n/m/c\n4\n" {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{there}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(mirror);
    other.stop().await;

    let granted = etcdctl(&all, &["lease", "grant", "3"]).await;
    let id = granted.split_whitespace().nth(1).expect("its id");
    let mut keeping = Running::start(&all, &["lease", "keep-alive", id]);
    for _ in 0..3 {
        let kept = keeping.line().await;
        assert!(kept.contains("keepalived with TTL(3)"), "{kept}");
    }
    drop(keeping);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_promoted_updated_and_removed() {
    let mut served = Served::new(1).await;
    let all = served.endpoints();
    let config = served.cluster.config("m2", 2);
    let peer = format!("--peer-urls=http://{}", config.peer_address);
    let added = etcdctl(&all, &["member", "add", "m2", "--learner", &peer]).await;
    assert!(added.contains("added to cluster"), "{added}");
    let member = raft_store::RaftStore::open(config).await.expect("it opens");
    served.cluster.members.push(Some(member));
    let until = tokio::time::Instant::now() + ANSWER_MAX;
    // Refused until it has caught up.
    while !output(&all, &["member", "promote", "2"], "")
        .await
        .status
        .success()
    {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    served.cluster.wait_for_voters(2).await;
    let moved = etcdctl(
        &all,
        &["member", "update", "2", "--peer-urls=http://127.0.0.1:9"],
    )
    .await;
    assert!(moved.contains("updated"), "{moved}");
    let members = etcdctl(&all, &["member", "list"]).await;
    assert!(members.contains("http://127.0.0.1:9"), "{members}");
    etcdctl(&all, &["member", "update", "2", &peer]).await;
    let removed = etcdctl(&all, &["member", "remove", "2"]).await;
    assert!(removed.contains("removed from cluster"), "{removed}");
    served.stop().await;
}

/// Writes 10,000 keys, and asks for the process's memory before and after, by HTTP in the clear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_datascale_runs_to_its_end() {
    let served = Served::new(1).await;
    let address = served.addresses[0];
    let told = etcdctl(&address.to_string(), &["check", "datascale", "--load=s"]).await;
    assert!(
        told.contains("PASS: Approximate system memory used"),
        "{told}"
    );
    let metrics = get(address, "/metrics").await.text;
    assert!(
        metrics.contains("etcd_debugging_mvcc_put_total 10000\n"),
        "{metrics}"
    );
    served.stop().await;
}
