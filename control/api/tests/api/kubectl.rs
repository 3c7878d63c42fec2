//! The real kubectl, every version that is installed: the promise is that it cannot tell the difference.
//!
//! Found on PATH and where the Google Cloud SDK puts them; at least one must exist.

use crate::rig::Rig;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const SDK: &str = "/usr/lib/google-cloud-sdk/bin";
const VERSIONS: std::ops::RangeInclusive<u32> = 27..=40;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.25
        ports: [{containerPort: 80}]
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: p1, labels: {app: p}}
spec:
  containers: [{name: p1, image: busybox}]
";

/// One kubectl with a home of its own.
pub struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
    namespace: String,
}

/// Every kubectl of the machine, the oldest first; those of one version once.
pub fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain([PathBuf::from(SDK)])
        .collect();
    let find = |name: &str| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|it| it.exists())
    };
    let mut found: Vec<PathBuf> = VERSIONS
        .filter_map(|minor| find(&format!("kubectl.1.{minor}")))
        .collect();
    if found.is_empty() {
        found.extend(find("kubectl"));
    }
    assert!(
        !found.is_empty(),
        "no kubectl on PATH or in {SDK}: install one to run this test"
    );
    found
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
            namespace: namespace.to_owned(),
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, line: &str, input: &str) -> Output {
        let mut child = self.command(line).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("taken");
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
        output
            .unwrap_or_else(|_| panic!("{}: kubectl {line} hangs", self.program.display()))
            .expect("ran")
    }

    /// Runs a command line that must succeed; shows what it printed.
    pub async fn ok(&self, line: &str) -> String {
        self.ok_with(line, "").await
    }

    pub async fn ok_with(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: kubectl {line}\n{shown}{complaint}",
            self.program.display()
        );
        shown
    }

    /// Runs a command line that must fail; shows its complaint.
    pub async fn fails_with(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(
            !output.status.success(),
            "{}: kubectl {line} succeeded\n{shown}",
            self.program.display()
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The command line must print `expected` somewhere.
    async fn shows(&self, line: &str, expected: &str) {
        self.shows_with(line, "", expected).await;
    }

    async fn shows_with(&self, line: &str, input: &str, expected: &str) {
        let shown = self.ok_with(line, input).await;
        assert!(
            shown.contains(expected),
            "{}: kubectl {line}\nwanted {expected:?} in\n{shown}",
            self.program.display()
        );
    }
}

/// What is done every day: make, see, change, remove.
async fn daily(kubectl: &Kubectl) {
    kubectl
        .ok(&format!("create namespace {}", kubectl.namespace))
        .await;
    kubectl
        .shows_with("apply -f -", DEPLOYMENT, "deployment.apps/web created")
        .await;
    kubectl
        .shows_with("apply -f -", DEPLOYMENT, "deployment.apps/web unchanged")
        .await;
    let changed = DEPLOYMENT.replace("nginx:1.25", "nginx:1.26");
    kubectl
        .shows_with("apply -f -", &changed, "deployment.apps/web configured")
        .await;
    kubectl
        .shows("get deployment web -o yaml", "image: nginx:1.26")
        .await;
    let wide = kubectl.ok("get deployments -o wide").await;
    assert!(
        wide.starts_with("NAME") && wide.contains("READY") && wide.contains("nginx:1.26"),
        "{wide}"
    );
    kubectl
        .shows(
            "scale deployment web --replicas=4",
            "deployment.apps/web scaled",
        )
        .await;
    kubectl
        .shows("get deployment web -o jsonpath={.spec.replicas}", "4")
        .await;
    kubectl
        .shows(
            "create deployment d2 --image=nginx --replicas=2",
            "deployment.apps/d2 created",
        )
        .await;
    kubectl
        .shows_with("create -f -", POD, "pod/p1 created")
        .await;
    kubectl
        .shows("label pod p1 tier=front", "pod/p1 labeled")
        .await;
    kubectl
        .shows("get pods -l tier=front -o name", "pod/p1")
        .await;
    kubectl
        .shows("delete deployment d2", "deployment.apps \"d2\" deleted")
        .await;
    kubectl
        .shows(
            "delete pod p1 --force --grace-period=0",
            "pod \"p1\" force deleted",
        )
        .await;
}

/// What is done less often.
async fn rest(kubectl: &Kubectl) {
    kubectl
        .shows("get --raw /readyz?verbose", "[+]ping ok")
        .await;
    kubectl.shows("api-resources", "deployments").await;
    kubectl.shows("api-versions", "apps/v1").await;
    kubectl.shows("describe deployment web", "nginx:1.26").await;
    kubectl.shows("get all", "deployment.apps/web").await;
    kubectl
        .shows(
            "create configmap c1 --from-literal=a=b",
            "configmap/c1 created",
        )
        .await;
    kubectl
        .shows("annotate configmap c1 note=x", "configmap/c1 annotated")
        .await;
    kubectl
        .shows(
            "create configmap c2 --from-literal=a=b --dry-run=server",
            "created (server dry run)",
        )
        .await;
    kubectl
        .shows(
            "patch configmap c1 --type=merge -p {\"data\":{\"z\":\"1\"}}",
            "patched",
        )
        .await;
    kubectl
        .shows("get configmap c1 -o json", "\"z\": \"1\"")
        .await;
    kubectl
        .shows("set image deployment/web nginx=nginx:1.27", "image updated")
        .await;
    kubectl
        .shows("rollout pause deployment web", "paused")
        .await;
    kubectl
        .shows("expose deployment web --port=80", "service/web exposed")
        .await;
    kubectl.shows("get services", "web").await;
    kubectl
        .shows("delete configmap c1", "configmap \"c1\" deleted")
        .await;
    let absent = kubectl.fails_with("get pod nope", "").await;
    assert_eq!(
        absent,
        "Error from server (NotFound): pods \"nope\" not found\n"
    );
    let typo = kubectl
        .fails_with("create -f -", &POD.replace("containers:", "containerz:"))
        .await;
    assert!(typo.contains("containerz"), "{typo}");
    let invalid = kubectl
        .fails_with(
            "apply -f -",
            &DEPLOYMENT.replace("replicas: 2", "replicas: -1"),
        )
        .await;
    assert!(
        invalid.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{invalid}"
    );
    let broken = kubectl.fails_with("apply -f -", "kind: [").await;
    assert!(!broken.is_empty());
    watch(kubectl).await;
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
async fn every_version_does_its_daily_work() {
    let rig = Rig::start().await;
    let programs = programs();
    let last = programs.len() - 1;
    let stories = programs.iter().enumerate().map(|(index, program)| {
        let kubectl = Kubectl::new(program, &rig, &format!("v{index}"));
        async move {
            daily(&kubectl).await;
            if index == 0 || index == last {
                rest(&kubectl).await;
            }
        }
    });
    futures::future::join_all(stories).await;
}
