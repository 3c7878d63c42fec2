//! A cluster of three masters behind a balancer, and scripts that run against it.

use crate::Balancer;
use anyhow::{Context, Result, bail};
use chaos::cluster::{Cluster, Options};
use client::{Client, Config, Kubeconfig};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const API_PORT: u16 = 6443;
/// A script that takes longer has failed.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(180);

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
