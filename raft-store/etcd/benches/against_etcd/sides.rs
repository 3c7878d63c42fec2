//! The two sides: three processes each, started, killed and ended here, and what the kernel tells of them.

use crate::http2;
use crate::load::{Load, Seen};
use crate::member::Ask;
use crate::wire::{self, RANGE, STATUS, StatusResponse};
use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub const MEMBERS: usize = 3;
const START_MAX: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_millis(5);
const TRY_MAX: Duration = Duration::from_secs(2);
/// The unit of CPU time in /proc, on every Linux that we run on.
const TICKS_A_SECOND: u64 = 100;

/// Three processes that run until this is dropped.
pub struct Side {
    pub kind: Kind,
    /// Where clients ask.
    pub endpoints: Vec<SocketAddr>,
    dir: PathBuf,
    peers: Vec<SocketAddr>,
    processes: Vec<Process>,
}

/// Whose processes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Three members of ours, in this program's own executable.
    Trireme,
    /// Three members of etcd with its default settings.
    Etcd,
}

struct Process {
    child: Child,
    /// Ours end when it closes.
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
}

impl Side {
    /// Starts a side without data below `dir`.
    pub async fn start(kind: Kind, dir: &Path) -> Result<Side> {
        let mut side = Side {
            kind,
            endpoints: free_addresses()?,
            dir: dir.to_owned(),
            peers: free_addresses()?,
            processes: vec![],
        };
        for place in 0..MEMBERS {
            let process = Process::start(side.command(place, true)?)?;
            side.processes.push(process);
            if kind == Kind::Trireme {
                side.processes[place].wait_for_line("serving").await?;
            }
        }
        if kind == Kind::Trireme {
            side.processes[0].wait_for_line("complete").await?;
        }
        side.wait_until_serving().await?;
        Ok(side)
    }

    fn command(&self, place: usize, is_new: bool) -> Result<Command> {
        match self.kind {
            Kind::Trireme => self.our_command(place, is_new),
            Kind::Etcd => Ok(self.etcd_command(place)),
        }
    }

    fn our_command(&self, place: usize, is_new: bool) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("member").arg("--dir");
        command.arg(self.dir.join(format!("trireme{place}")));
        command.args(["--id", &(place + 1).to_string()]);
        command.args(["--peer", &self.peers[place].to_string()]);
        command.args(["--client", &self.endpoints[place].to_string()]);
        if place == 0 && is_new {
            let others: Vec<String> = self.peers[1..].iter().map(SocketAddr::to_string).collect();
            command.args(["--begin-with", &others.join(",")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }

    fn etcd_command(&self, place: usize) -> Command {
        let (peers, endpoints) = (urls(&self.peers), urls(&self.endpoints));
        let cluster: Vec<String> = (0..MEMBERS)
            .map(|place| format!("e{place}={}", peers[place]))
            .collect();
        let mut command = Command::new("etcd");
        command.arg("--data-dir");
        command.arg(self.dir.join(format!("etcd{place}")));
        command.args(["--name", &format!("e{place}")]);
        command.args(["--initial-cluster", &cluster.join(",")]);
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([flag, &peers[place]]);
        }
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([flag, &endpoints[place]]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Waits until every member answers a linearizable read.
    pub async fn wait_until_serving(&self) -> Result<()> {
        let began = Instant::now();
        for endpoint in self.endpoints.iter().copied() {
            while let Err(err) = unary(endpoint, RANGE, wire::get("/".into())).await {
                ensure!(
                    began.elapsed() < START_MAX,
                    "{endpoint} did not serve within {START_MAX:?}: {err:#}"
                );
                tokio::time::sleep(TRY_EVERY).await;
            }
        }
        Ok(())
    }

    /// Which of the members leads, and in which term.
    pub async fn leader(&self) -> Result<(usize, u64)> {
        let mut ids = Vec::new();
        let mut leader = None;
        for endpoint in self.endpoints.iter().copied() {
            let answer = unary(endpoint, STATUS, vec![]).await?;
            let status: StatusResponse = wire::read(&answer)?;
            let header = status.header.context("a status has a header")?;
            ids.push(header.member_id);
            leader = Some((status.leader, header.raft_term));
        }
        let (leader, term) = leader.context("a side has members")?;
        let place = ids.iter().position(|id| *id == leader);
        Ok((place.context("no member leads")?, term))
    }

    /// Kills a member as a crash would.
    pub async fn kill(&mut self, place: usize) -> Result<()> {
        self.processes[place].child.kill().await?;
        Ok(())
    }

    /// Starts a member that was killed.
    pub fn start_again(&mut self, place: usize) -> Result<()> {
        self.processes[place] = Process::start(self.command(place, false)?)?;
        Ok(())
    }

    /// Asks one of our members something.
    pub async fn ask<T: DeserializeOwned>(&mut self, place: usize, ask: &Ask) -> Result<T> {
        self.processes[place].tell(ask).await?;
        self.processes[place].hear().await
    }

    /// A round with the clients spread over the processes of our members.
    pub async fn run_within(&mut self, load: &Load) -> Result<Seen> {
        let mut first = 0;
        for (place, process) in self.processes.iter_mut().enumerate() {
            let clients = load.clients / MEMBERS + usize::from(place < load.clients % MEMBERS);
            let round = Load {
                first,
                clients,
                ..*load
            };
            first += clients;
            process.tell(&Ask::Load(round)).await?;
        }
        let mut all = Seen::default();
        for process in &mut self.processes {
            let seen: Seen = process.hear().await?;
            all.micros.extend(seen.micros);
            all.failed += seen.failed;
        }
        Ok(all)
    }

    /// CPU time of all members since they were started.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Bytes that the members caused to be written to disk since they were started.
    pub fn written(&self) -> Result<u64> {
        self.processes.iter().map(Process::written).sum()
    }

    /// Resident memory of each member, in bytes.
    pub fn resident(&self) -> Result<Vec<u64>> {
        self.processes.iter().map(Process::resident).collect()
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

    async fn tell(&mut self, ask: &Ask) -> Result<()> {
        let line = serde_json::to_string(ask)? + "\n";
        let stdin = self.stdin.as_mut().context("the input is closed")?;
        Ok(stdin.write_all(line.as_bytes()).await?)
    }

    /// The next answer; other lines, of before it, are passed over.
    async fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let lines = self.stdout.as_mut().context("the output is not read")?;
        while let Some(line) = lines.next_line().await? {
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
        bail!("a member ended")
    }

    fn proc(&self, file: &str) -> Result<String> {
        let pid = self.child.id().context("a member ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{pid}/{file}"))?)
    }

    fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
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

    fn written(&self) -> Result<u64> {
        number_after(&self.proc("io")?, "write_bytes:")
    }

    fn resident(&self) -> Result<u64> {
        Ok(1024 * number_after(&self.proc("status")?, "VmRSS:")?)
    }
}

fn number_after(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("the kernel tells no {name}"))?;
    let number = line.split_whitespace().next().unwrap_or_default();
    Ok(number.parse()?)
}

/// A call to one member.
pub async fn unary(endpoint: SocketAddr, path: &'static str, message: Vec<u8>) -> Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || http2::unary(endpoint, path, &message, TRY_MAX)).await?
}

/// Which etcd is compared with.
pub async fn etcd_version() -> Result<String> {
    let output = Command::new("etcd")
        .arg("--version")
        .output()
        .await
        .context("etcd cannot be started; install Debian's etcd-server")?;
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
