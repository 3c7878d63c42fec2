//! The real kubectl, every version that is installed: the promise is that it cannot tell the difference.
//!
//! `kubectls` says where they are looked for; at least one must exist.

use crate::rig::Rig;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kubectl");

/// One kubectl with a home of its own.
pub struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Kubectl {
    pub fn new(program: &Path, rig: &Rig, namespace: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(home.path().join(name), text).expect("written");
        };
        write("ca.pem", &rig.pki.ca_pem());
        write("cert.pem", &rig.admin.chain_pem);
        write("key.pem", &rig.admin.key_pem);
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
             clusters: [{{name: t, cluster: {{server: 'https://{}', certificate-authority: ca.pem}}}}]\n\
             users: [{{name: t, user: {{client-certificate: cert.pem, client-key: key.pem}}}}]\n\
             contexts: [{{name: t, context: {{cluster: t, user: t, namespace: {namespace}}}}}]\n",
            rig.address
        );
        write("config", &config);
        Kubectl {
            program: program.to_owned(),
            home,
        }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--cache-dir")
            .arg(self.home.path().join("cache"))
            .args(line.split_whitespace())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .current_dir(TESTDATA)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn output(&self, line: &str) -> Output {
        let child = self.command(line).spawn().expect("kubectl starts");
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
        output
            .unwrap_or_else(|_| panic!("{}: kubectl {line} hangs", self.program.display()))
            .expect("ran")
    }

    /// Runs a command line that must succeed; shows what it printed.
    pub async fn ok(&self, line: &str) -> String {
        let output = self.output(line).await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let program = self.program.display();
        assert!(
            output.status.success(),
            "{program}: kubectl {line}\n{shown}{complaint}"
        );
        shown
    }

    /// Plays a script; tells every step that went otherwise.
    pub async fn play(&self, script: &str) -> Vec<String> {
        let path = format!("{TESTDATA}/{script}");
        let text = std::fs::read_to_string(&path).expect("a script");
        let mut wrong = Vec::new();
        for step in steps(&text) {
            let output = self.output(step.line).await;
            let shown = [output.stdout, output.stderr].concat();
            let shown = String::from_utf8_lossy(&shown);
            let succeeded = output.status.success() == step.succeeds;
            if !succeeded || !step.expected.iter().all(|line| shown.contains(line)) {
                wrong.push(format!(
                    "{}: kubectl {}\nwanted {:?} in\n{shown}",
                    self.program.display(),
                    step.line,
                    step.expected,
                ));
            }
        }
        wrong
    }
}

/// A command line and what must be in its output.
struct Step<'a> {
    line: &'a str,
    succeeds: bool,
    expected: Vec<&'a str>,
}

fn steps(script: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for text in script.lines() {
        if let Some(expected) = text.strip_prefix("  ") {
            steps
                .last_mut()
                .expect("a command first")
                .expected
                .push(expected);
        } else if let Some((mark @ ("$" | "!"), line)) = text.split_once(' ') {
            let expected = Vec::new();
            steps.push(Step {
                line,
                succeeds: mark == "$",
                expected,
            });
        }
    }
    steps
}

/// `get -w` prints what is there, then each change.
async fn watch(kubectl: &Kubectl) {
    let mut child = kubectl
        .command("get configmaps -w")
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut wait_for = async |expected: &str| loop {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("get -w never showed {expected}"));
        let line = line.expect("readable").expect("the watch goes on");
        if line.starts_with(expected) {
            return;
        }
    };
    // The first list may be empty: the watch is known to run when it shows something.
    kubectl.ok("create configmap w0 --from-literal=a=b").await;
    wait_for("w0").await;
    kubectl.ok("create configmap w1 --from-literal=a=b").await;
    wait_for("w1").await;
    child.kill().await.expect("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_does_its_work() {
    let rig = Rig::start().await;
    let programs = kubectls::all();
    let last = programs.len() - 1;
    let stories = programs.iter().enumerate().map(|(index, program)| {
        let namespace = format!("v{index}");
        let kubectl = Kubectl::new(&program.program, &rig, &namespace);
        async move {
            kubectl.ok(&format!("create namespace {namespace}")).await;
            let mut wrong = kubectl.play("daily.txt").await;
            wrong.extend(kubectl.play("apply.txt").await);
            if index == 0 || index == last {
                wrong.extend(kubectl.play("rest.txt").await);
                wrong.extend(kubectl.play("kinds.txt").await);
                watch(&kubectl).await;
            }
            wrong
        }
    });
    let wrong = futures::future::join_all(stories).await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
