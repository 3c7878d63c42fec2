//! A cluster of three masters behind a balancer, and scripts that run against it.

use crate::Balancer;
use anyhow::{Context, Result, bail, ensure};
use chaos::cluster::{Cluster, Options};
use client::{Client, Config, Kubeconfig};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const API_PORT: u16 = 6443;
/// A script that takes longer has failed.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(180);

/// A node that takes longer to be ready has failed.
const NODE_DEADLINE: Duration = Duration::from_secs(60);

/// The image that a node of the rig has: busybox.
pub const IMAGE: &str = "trireme.local/busybox:1";

/// The cluster; it ends with this value.
pub struct Rig {
    /// The masters.
    pub cluster: Cluster,
    balancer: Balancer,
    folder: tempfile::TempDir,
}

impl Rig {
    /// Starts three masters and waits until all vote.
    pub async fn start() -> Result<Self> {
        let cluster = Cluster::start(Options::masters(3)?).await?;
        let addresses: Result<Vec<SocketAddr>> = cluster
            .masters()
            .iter()
            .map(|name| Ok(SocketAddr::from((cluster.address(name)?, API_PORT))))
            .collect();
        let balancer = Balancer::start(addresses?).await?;
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let rig = Rig {
            cluster,
            balancer,
            folder,
        };
        let text = Kubeconfig::for_config("balanced", &rig.config()?).to_text();
        std::fs::write(rig.kubeconfig(), text).context("the kubeconfig cannot be written")?;
        Ok(rig)
    }

    /// The administrator's settings, by the balancer's address.
    pub fn config(&self) -> Result<Config> {
        let config = Config::load(Some(&self.cluster.kubeconfig()), None)?;
        Ok(Config {
            servers: vec![format!("https://{}", self.balancer.address())],
            ..config
        })
    }

    /// The kubeconfig by the balancer's address.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A client that knows all masters.
    pub fn client(&self) -> Result<Client> {
        self.cluster.client()
    }

    /// Adds a node with the tests' image, and waits until it is ready.
    pub async fn add_node(&mut self, name: &str) -> Result<()> {
        self.cluster.add_node(name)?;
        let client = self.client()?;
        let path = format!("/api/v1/nodes/{name}");
        let end = Instant::now() + NODE_DEADLINE;
        while !is_ready(client.get(&path).await.unwrap_or_default()) {
            ensure!(Instant::now() < end, "{name} does not become ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let archive = self.folder.path().join("image.tar");
        let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/make-image");
        run(Command::new(make).arg(&archive).arg(IMAGE)).await?;
        let mut import = Command::new(self.cluster.binaries().path("ctl"));
        import.args(["image", "import"]).arg(&archive);
        run(import.env("KUBECONFIG", self.kubeconfig())).await
    }

    /// Kills the leader, waits until another leads, and starts it again.
    pub async fn lose_the_leader(&mut self) -> Result<()> {
        let leader = self.cluster.wait_for_leader().await?.name;
        self.cluster.kill(&leader).await?;
        self.cluster.wait_for_leader().await?;
        self.cluster.start_machine(&leader)
    }

    /// A script of `scripts/`, by an interpreter.
    pub fn script(&self, interpreter: PathBuf, name: &str) -> Script {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("scripts")
            .join(name);
        let mut command = Command::new(interpreter);
        command
            .arg(path)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Script(command)
    }
}

fn is_ready(node: Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

async fn run(command: &mut Command) -> Result<()> {
    let ended = tokio::time::timeout(SCRIPT_DEADLINE, command.output());
    let ended = ended
        .await
        .with_context(|| format!("{command:?} did not end"))?;
    let ended = ended.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        ended.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

/// A script that is about to run.
pub struct Script(Command);

impl Script {
    /// With arguments and variables.
    pub fn with(mut self, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        self.0.args(arguments).envs(variables.iter().copied());
        self
    }

    /// Runs it to its end, which must be a success; gives what it printed.
    pub async fn succeed(mut self) -> Result<String> {
        let running = self.0.output();
        let ended = tokio::time::timeout(SCRIPT_DEADLINE, running)
            .await
            .with_context(|| format!("{:?} did not end", self.0))??;
        let (out, err) = (
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr),
        );
        if !ended.status.success() {
            bail!("{:?} failed: {out}{err}", self.0);
        }
        Ok(out.into_owned())
    }

    /// Runs it until the value is dropped; what it says goes to a file.
    pub fn start(mut self, log: &std::path::Path) -> Result<Child> {
        let log = std::fs::File::create(log).context("the log cannot be made")?;
        self.0
            .stdout(log.try_clone().context("a file can be shared")?)
            .stderr(log);
        self.0
            .spawn()
            .with_context(|| format!("cannot run {:?}", self.0))
    }
}
