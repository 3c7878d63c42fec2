//! The two sides: three processes each, started and ended here, with their CPU time.

use crate::load::{Load, Seen};
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const START_MAX: Duration = Duration::from_secs(30);
const MEMBERS: usize = 3;
/// The unit of CPU time in /proc, on every Linux that we run on.
const TICKS_A_SECOND: u64 = 100;

/// Three processes that run until this is dropped.
pub struct Side {
    /// Where clients ask.
    pub endpoints: Vec<String>,
    /// Which version.
    pub version: String,
    /// Whether clients can be within its processes.
    pub takes_clients: bool,
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    /// Ours end when it closes.
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
}

impl Side {
    /// Three members of ours, in this program's own executable.
    pub async fn trireme(dir: &Path) -> Result<Side> {
        let (peers, clients) = (free_addresses()?, free_addresses()?);
        let mut processes = Vec::new();
        for place in 0..MEMBERS {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("member").arg("--dir");
            command.arg(dir.join(format!("trireme{place}")));
            command.args(["--id", &(place + 1).to_string()]);
            command.args(["--peer", &peers[place].to_string()]);
            command.args(["--client", &clients[place].to_string()]);
            if place == 0 {
                let others: Vec<String> = peers[1..].iter().map(SocketAddr::to_string).collect();
                command.args(["--begin-with", &others.join(",")]);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = Process::start(command)?;
            process.wait_for_line("serving").await?;
            processes.push(process);
        }
        for process in &mut processes {
            process.wait_for_line("complete").await?;
        }
        Ok(Side {
            endpoints: urls(&clients),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            takes_clients: true,
            processes,
        })
    }

    /// Three members of etcd with its default settings.
    pub async fn etcd(dir: &Path) -> Result<Side> {
        let (peers, clients) = (free_addresses()?, free_addresses()?);
        let (peer_urls, endpoints) = (urls(&peers), urls(&clients));
        let cluster: Vec<String> = (0..MEMBERS)
            .map(|place| format!("e{place}={}", peer_urls[place]))
            .collect();
        let mut processes = Vec::new();
        for place in 0..MEMBERS {
            let mut command = Command::new("etcd");
            command.arg("--data-dir");
            command.arg(dir.join(format!("etcd{place}")));
            command.args(["--name", &format!("e{place}")]);
            command.args(["--initial-cluster", &cluster.join(",")]);
            for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                command.args([flag, &peer_urls[place]]);
            }
            for flag in ["--listen-client-urls", "--advertise-client-urls"] {
                command.args([flag, &endpoints[place]]);
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            processes.push(Process::start(command)?);
        }
        wait_for_health(&endpoints).await?;
        Ok(Side {
            endpoints,
            version: etcd_version().await?,
            takes_clients: false,
            processes,
        })
    }

    /// A round with the clients spread over the processes of the members.
    pub async fn run_within(&mut self, load: &Load) -> Result<Seen> {
        let (mut first, members) = (0, self.processes.len());
        for (place, process) in self.processes.iter_mut().enumerate() {
            let clients = load.clients / members + usize::from(place < load.clients % members);
            let round = Load {
                first,
                clients,
                ..*load
            };
            first += clients;
            let line = serde_json::to_string(&round)? + "\n";
            let stdin = process.stdin.as_mut().context("the input is closed")?;
            stdin.write_all(line.as_bytes()).await?;
        }
        let mut all = Seen::default();
        for process in &mut self.processes {
            let lines = process.stdout.as_mut().context("the output is not read")?;
            let line = lines.next_line().await?.context("a member ended")?;
            let seen: Seen = serde_json::from_str(&line)?;
            all.micros.extend(seen.micros);
            all.failed += seen.failed;
        }
        Ok(all)
    }

    /// CPU time of all members since they were started.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }
}

impl Process {
    fn start(mut command: Command) -> Result<Process> {
        let program = command.as_std().get_program().to_owned();
        let mut child = command.kill_on_drop(true).spawn().with_context(|| {
            format!(
                "{} cannot be started; for etcd install Debian's etcd-server",
                program.display()
            )
        })?;
        Ok(Process {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(|out| BufReader::new(out).lines()),
            child,
        })
    }

    async fn wait_for_line(&mut self, wanted: &str) -> Result<()> {
        let lines = self.stdout.as_mut().context("the output is not read")?;
        let found = tokio::time::timeout(START_MAX, async {
            while let Some(line) = lines.next_line().await? {
                if line == wanted {
                    return Ok(());
                }
            }
            bail!("a member ended before it said {wanted:?}")
        });
        found
            .await
            .with_context(|| format!("a member did not say {wanted:?} within {START_MAX:?}"))?
    }

    fn cpu(&self) -> Result<Duration> {
        let pid = self.child.id().context("a member ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold spaces.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |place: usize| -> Result<u64> {
            Ok(fields.get(place).context("a short stat line")?.parse()?)
        };
        let ticks = ticks(11)? + ticks(12)?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
    }
}

async fn wait_for_health(endpoints: &[String]) -> Result<()> {
    let began = Instant::now();
    let all = endpoints.join(",");
    loop {
        let health = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &all, "endpoint", "health"])
            .output()
            .await
            .context("etcdctl cannot be started; install Debian's etcd-client")?;
        if health.status.success() {
            return Ok(());
        }
        if began.elapsed() > START_MAX {
            bail!(
                "etcd did not become healthy within {START_MAX:?}: {}",
                String::from_utf8_lossy(&health.stderr)
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn etcd_version() -> Result<String> {
    let output = Command::new("etcd").arg("--version").output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.unwrap_or("of unknown version").to_owned())
}

fn urls(addresses: &[SocketAddr]) -> Vec<String> {
    addresses
        .iter()
        .map(|address| format!("http://{address}"))
        .collect()
}

/// Ports that were free a moment ago.
fn free_addresses() -> Result<Vec<SocketAddr>> {
    let listeners: Vec<TcpListener> = (0..MEMBERS)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()?;
    let addresses: std::io::Result<Vec<_>> =
        listeners.iter().map(TcpListener::local_addr).collect();
    Ok(addresses?)
}
