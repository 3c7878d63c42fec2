//! The real kubectl of each version against this crate: SPDY up to 1.29, WebSocket from 1.30.
//! What kubectl does is k8s.io/client-go `remotecommand`; the versions' differences are in `support`.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Seen, Server, noise, one_of_each_protocol, speaks_websocket};
use kubectls::Kubectl;
use streams::Size;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const MEGABYTES_10: usize = 10 * 1024 * 1024;

fn upgrade_of(kubectl: &Kubectl) -> Seen {
    let protocol = if speaks_websocket(kubectl) {
        "websocket"
    } else {
        "SPDY/3.1"
    };
    Seen::Upgrade(protocol.into())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test]
async fn output_errors_and_exit_code_arrive_apart() {
    let mut server = Server::start().await;
    for kubectl in kubectls::all() {
        let version = kubectl.minor;
        let script = "echo to out; echo to err >&2; exit 42";
        let run = server
            .run(&kubectl, &["exec", "p1", "--", "sh", "-c", script], b"")
            .await;
        assert_eq!(
            text(&run.stdout),
            "to out\n",
            "{version}: {}",
            text(&run.stderr)
        );
        assert_eq!(
            text(&run.stderr),
            "to err\ncommand terminated with exit code 42\n",
            "{version}"
        );
        assert_eq!(run.status.code(), Some(42), "{version}");
        assert_eq!(server.next_seen().await, upgrade_of(&kubectl));
        assert_eq!(server.next_seen().await, Seen::Finished(Ok(())));
    }
}

#[tokio::test]
async fn input_is_piped_and_ends() {
    let server = Server::start().await;
    for kubectl in kubectls::all() {
        let version = kubectl.minor;
        let arguments = ["exec", "-i", "p1", "--", "sh", "-c", "tr a-z A-Z; echo end"];
        let run = server.run(&kubectl, &arguments, b"hello\n").await;
        assert_eq!(text(&run.stdout), "HELLO\nend\n", "{version}");
        assert_eq!(text(&run.stderr), "", "{version}");
        assert!(run.status.success(), "{version}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_start_says_why() {
    let server = Server::start().await;
    for kubectl in kubectls::all() {
        let version = kubectl.minor;
        let run = server
            .run(&kubectl, &["exec", "p1", "--", "no-such-command"], b"")
            .await;
        assert!(
            text(&run.stderr).contains("cannot run \"no-such-command\""),
            "{version}: {}",
            text(&run.stderr)
        );
        assert_eq!(run.status.code(), Some(1), "{version}");
    }
}

#[tokio::test]
async fn ten_megabytes_each_way_stay_intact() {
    let server = Server::start().await;
    let sent = noise(MEGABYTES_10);
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let run = server
            .run(&kubectl, &["exec", "-i", "p1", "--", "cat"], &sent)
            .await;
        assert!(run.status.success(), "{version}: {}", text(&run.stderr));
        assert!(run.stdout == *sent, "{version}: bytes differ");
    }
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_hold_the_end_up() {
    let server = Server::start().await;
    let sent = noise(MEGABYTES_10);
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let arguments = [
            "exec",
            "-i",
            "p1",
            "--",
            "sh",
            "-c",
            "exec 0<&-; sleep 1; echo done",
        ];
        let run = server.run(&kubectl, &arguments, &sent).await;
        assert_eq!(text(&run.stdout), "done\n", "{version}");
        assert!(run.status.success(), "{version}");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let server = Server::start().await;
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let mut child = server
            .kubectl(
                &kubectl,
                &["exec", "p1", "--", "head", "-c", "3000000", "/dev/zero"],
            )
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        sleep(Duration::from_secs(2)).await;
        let mut bytes = Vec::new();
        let mut stdout = child.stdout.take().expect("piped");
        stdout
            .read_to_end(&mut bytes)
            .await
            .expect("kubectl writes");
        assert_eq!(bytes.len(), 3_000_000, "{version}");
        assert!(child.wait().await.expect("kubectl ends").success());
    }
}

#[tokio::test]
async fn the_command_learns_that_kubectl_was_killed() {
    let mut server = Server::start().await;
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let mut child = server
            .kubectl(
                &kubectl,
                &["exec", "-i", "p1", "--", "sh", "-c", "echo up; sleep 60"],
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut up = [0; 3];
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut up).await.expect("the command runs");
        assert_eq!(server.next_seen().await, upgrade_of(&kubectl));
        child.kill().await.expect("kubectl runs");
        assert_eq!(server.next_seen().await, Seen::Gone, "{version}");
    }
}

/// `script` gives kubectl a terminal; `stty` in it changes that terminal's size while kubectl runs.
#[tokio::test]
async fn terminal_sizes_arrive() {
    let mut server = Server::start().await;
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let exec = format!(
            "stty cols 101 rows 31; (sleep 1; stty cols 102 rows 32 </dev/tty; sleep 1) & \
             {} --server http://{} exec -it p1 -- sleep 3",
            kubectl.program.display(),
            server.address(),
        );
        let mut child = tokio::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &exec, "/dev/null"])
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("script (bsdutils) is installed");
        let mut stdin = child.stdin.take().expect("piped");
        assert_eq!(server.next_seen().await, upgrade_of(&kubectl));
        for (width, height) in [(101, 31), (102, 32)] {
            let size = Size { width, height };
            assert_eq!(server.next_seen().await, Seen::Resize(size), "{version}");
        }
        assert_eq!(server.next_seen().await, Seen::Finished(Ok(())));
        stdin.shutdown().await.expect("script reads");
        drop(stdin);
        let status = timeout(Duration::from_secs(10), child.wait()).await;
        assert!(status.expect("script ends").expect("script runs").success());
    }
}

#[tokio::test]
async fn files_are_copied_both_ways() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let sent = noise(3_000_000);
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("from"), &sent).expect("a file");
    for kubectl in one_of_each_protocol() {
        let version = kubectl.minor;
        let (there, back) = (path(&format!("there-{version}")), path("back"));
        for (from, to) in [
            (path("from"), format!("p1:{there}")),
            (format!("p1:{there}"), back.clone()),
        ] {
            let run = server.run(&kubectl, &["cp", &from, &to], b"").await;
            assert!(run.status.success(), "{version}: {}", text(&run.stderr));
        }
        assert!(std::fs::read(&back).expect("copied") == *sent, "{version}");
    }
}

/// 1.29 brought the switch, which later versions need no more and earlier ones do not know.
#[tokio::test]
async fn the_websocket_switch_of_1_29_works() {
    let mut server = Server::start().await;
    let all = kubectls::all();
    let knowing = all.iter().find(|kubectl| kubectl.minor >= 29);
    let kubectl = knowing.unwrap_or(&all[0]);
    let run = server
        .kubectl(kubectl, &["exec", "p1", "--", "echo", "hi"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true")
        .output()
        .await
        .expect("kubectl runs");
    assert_eq!(text(&run.stdout), "hi\n");
    let upgrade = match knowing {
        Some(_) => Seen::Upgrade("websocket".into()),
        None => upgrade_of(kubectl),
    };
    assert_eq!(server.next_seen().await, upgrade);
}
