//! What the program says when it cannot run: one line, with what to do next. Needs root, as the program does.

use std::process::{Command, Output};

fn node(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_node"))
        .args(args)
        .output()
        .expect("the program starts")
}

fn refusal(args: &[&str]) -> String {
    let output = node(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_node_that_never_joined_says_what_it_needs() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a path in UTF-8");
    let run = [
        "run",
        "--data-dir",
        data,
        "--name",
        "n1",
        "--address",
        "127.0.0.1",
        "--kubelet-port",
        "0",
    ];
    let told = refusal(&run);
    assert!(
        told.contains("--token-file") && told.lines().count() == 1,
        "{told}"
    );
    let bad = [
        "run",
        "--data-dir",
        data,
        "--name",
        "N 1",
        "--address",
        "127.0.0.1",
    ];
    assert!(refusal(&bad).contains("is no node name"));
}

#[test]
fn a_taken_port_is_named() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().to_str().expect("a path in UTF-8");
    let told = refusal(&[
        "run",
        "--data-dir",
        data,
        "--name",
        "n1",
        "--address",
        "127.0.0.1",
        "--kubelet-port",
        &port,
    ]);
    assert!(
        told.contains(&format!("cannot listen on 0.0.0.0:{port}"))
            && told.contains("--kubelet-port"),
        "{told}"
    );
}

#[test]
fn cleaning_up_nothing_is_fine_and_the_version_is_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("absent");
    assert!(
        node(&[
            "cleanup",
            "--data-dir",
            data.to_str().expect("a path in UTF-8")
        ])
        .status
        .success()
    );
    assert!(!data.exists(), "cleanup made a folder");
    assert!(String::from_utf8_lossy(&node(&["version"]).stdout).starts_with("v1.35.0-trireme"));
}
