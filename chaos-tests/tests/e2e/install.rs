//! `deploy/install.sh`, on machines without systemd: three masters and a node become a cluster, and leave no trace afterwards.

use crate::manifests::{SLEEP, deployment, documents, wait_pods};
use crate::site::{Site, bin, repository};
use crate::told::{Told, assert_words, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn real_machines_are_installed() {
    let mut site = Site::empty("install", 8);
    a_dry_run_changes_nothing(&site);
    let roots: Vec<PathBuf> = ["m1", "m2", "m3", "n1"]
        .iter()
        .map(|name| site.home().join(name))
        .collect();

    let address = site.machine("m1");
    let told = install(
        &["master", "--init", "--address", &address, "--name", "m1"],
        &roots[0],
    )
    .ok();
    assert_words(
        &told,
        &[
            "usr/local/bin/control",
            "the join token for the other machines",
            "the kubeconfig",
        ],
    );
    site.start_as_told("m1", &told);
    let data = roots[0].join("var/lib/trireme/control");
    let token = data.join("join-token");
    until("the join token", 30, || {
        if token.is_file() {
            Ok(())
        } else {
            Err(site.log("m1"))
        }
    });
    site.operated_from(&data);

    let url = site.url("m1");
    let token = token.display().to_string();
    for (name, root) in ["m2", "m3"].into_iter().zip(&roots[1..]) {
        let address = site.machine(name);
        let told = install(
            &[
                "master",
                "--join",
                &url,
                "--token-file",
                &token,
                "--address",
                &address,
                "--name",
                name,
            ],
            root,
        )
        .ok();
        site.start_as_told(name, &told);
    }
    site.wait_voters(3);
    let address = site.machine("n1");
    let node = [
        "node",
        "--server",
        &url,
        "--token-file",
        &token,
        "--address",
        &address,
        "--name",
        "n1",
    ];
    let told = install(&node, &roots[3]).ok();
    site.start_as_told("n1", &told);
    site.wait_nodes(1);
    site.import_image();
    site.apply(&documents(&[deployment("web", 2, SLEEP)]));
    wait_pods(&site, "web", 2);

    let again = install(&node, &roots[3]).ok();
    assert!(
        !again.contains("install /") && !again.contains("write "),
        "a second run changes nothing: {again}"
    );
    files_are_as_they_should_be(&roots[3]);
    nothing_is_left(&mut site, &roots[3]);
}

fn install(arguments: &[&str], root: &Path) -> Told {
    let mut command = Command::new(repository().join("deploy/install.sh"));
    command.args(arguments).arg("--root").arg(root);
    command
        .arg("--bin")
        .arg(bin("control").parent().expect("programs lie in a folder"));
    Told::of(command, b"")
}

fn a_dry_run_changes_nothing(site: &Site) {
    let root = site.home().join("dry");
    let told = install(
        &["master", "--init", "--address", "10.0.0.1", "--dry-run"],
        &root,
    )
    .ok();
    assert_words(
        &told,
        &[
            "would install",
            "usr/local/bin/control",
            "would write",
            "trireme-control.service",
        ],
    );
    assert!(!root.exists(), "nothing was made");
    for (arguments, words) in [
        (vec!["master", "--address", "10.0.0.1"], "--init"),
        (vec!["master", "--init"], "--address"),
        (
            vec!["master", "--init", "--address", "here"],
            "no IP address",
        ),
        (
            vec![
                "node",
                "--address",
                "10.0.0.1",
                "--server",
                "https://10.0.0.1:6443",
            ],
            "--token-file",
        ),
        (vec!["captain"], "master, node or uninstall"),
        (vec!["node", "--sail"], "--sail"),
    ] {
        install(&arguments, &root).one_line(&[words]);
    }
    assert!(!root.exists(), "nothing was made");
}

fn files_are_as_they_should_be(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |file: &str| {
        fs::metadata(root.join(file))
            .unwrap_or_else(|_| panic!("{file} is there"))
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("etc/trireme/token"), 0o600);
    assert_eq!(mode("etc/trireme/node.env"), 0o600);
    assert_eq!(mode("usr/local/bin/shim"), 0o755);
    assert_words(
        &fs::read_to_string(root.join("etc/systemd/system/trireme-node.service"))
            .expect("it is there"),
        &["ExecStart="],
    );
}

fn nothing_is_left(site: &mut Site, root: &Path) {
    site.end("n1", nix::sys::signal::Signal::SIGTERM);
    let mut command = site.on("n1", &repository().join("deploy/install.sh"));
    command.args(["uninstall", "--purge", "--root"]).arg(root);
    assert_words(
        &Told::of(command, b"").ok(),
        &["end the pods of this node", "with all data"],
    );
    let left = fs::read_to_string("/proc/self/mounts").expect("it can be read");
    let root_text = root.display().to_string();
    assert!(
        !left.contains(&root_text),
        "something is still mounted below {root_text}"
    );
    for gone in [
        "usr/local/bin/node",
        "etc/trireme",
        "var/lib/trireme",
        "etc/systemd/system/trireme-node.service",
    ] {
        assert!(!root.join(gone).exists(), "{gone} is still there");
    }
}
