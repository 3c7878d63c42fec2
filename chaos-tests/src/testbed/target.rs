//! What a store must tell of itself to be broken: how a member is started, how it is reached, which files it keeps, how it is let
//! in and put out. Everything else is asked through the etcd v3 API, which every target speaks.

use super::probe::Probe;
use anyhow::Result;
use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A change of members is possible within this, after a fault.
const CHANGE_DEADLINE: Duration = Duration::from_secs(20);
/// How etcd, and ours with its words, refuses one that comes too early.
const REFUSALS: [&str; 2] = [
    "etcdserver: unhealthy cluster",
    "etcdserver: re-configuration failed due to not enough started members",
];

/// A member, as its target sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// m1, m2, …
    pub name: String,
    /// Its address in the testbed's network.
    pub address: Ipv4Addr,
    /// Where its data lies.
    pub data: PathBuf,
}

/// How a member begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the cluster; the first member may begin before the others.
    New,
    /// With an empty folder, in a cluster that lives.
    Joins,
    /// With its data.
    Again,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What a client needs to be believed and to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMaterial {
    /// The authorities' certificates, PEM.
    pub ca: Vec<u8>,
    /// The client's certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM.
    pub key: Vec<u8>,
}

/// Where a member serves clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The member.
    pub name: String,
    /// `http://…:2379` or `https://…:2379`.
    pub url: String,
    /// What TLS needs; None where the URL is http.
    pub tls: Option<TlsMaterial>,
}

/// A state that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The revision of the state.
    pub revision: u64,
    /// How large it is.
    pub bytes: u64,
}

/// Files of a stopped member, for damage; oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// What is appended to: the write-ahead log.
    pub logs: Vec<PathBuf>,
    /// Everything else that holds data.
    pub tables: Vec<PathBuf>,
}

/// A store under test.
#[async_trait]
pub trait Target: Send + Sync {
    /// In a word.
    fn name(&self) -> &'static str;

    /// The version that the program tells.
    fn version(&self) -> String;

    /// Starts the first member alone and the others when it serves; else all at once.
    fn first_alone(&self) -> bool;

    /// Called when the first member was started, until it returns true: keeps what clients and joining members need.
    fn is_ready(&mut self, first: &Member) -> Result<bool>;

    /// How a member is started. `members` are all that belong to the cluster, this one too.
    fn launch(&self, member: &Member, members: &[Member], start: Start) -> Launch;

    /// Where a member serves clients.
    fn endpoint(&self, member: &Member) -> Endpoint;

    /// The files of a stopped member.
    fn files(&self, data: &Path) -> Result<Files>;

    /// Whether a member tells a term as soon as it has voted in it, not only when it has applied an entry of it.
    fn tells_votes(&self) -> bool;

    /// Why this program's clock cannot be faked, if it cannot.
    fn clock_problem(&self) -> Option<String>;

    /// Makes a member known to the others before it is started with [`Start::Joins`].
    async fn admit(&self, probe: &Probe, member: &Member) -> Result<()>;

    /// Tells the others that a member is no more. It need not run.
    async fn expel(&self, probe: &Probe, member: &Member) -> Result<()>;

    /// Why the whole cluster cannot be restored from a snapshot by the harness, if it cannot.
    fn restore_problem(&self) -> Option<String>;

    /// Saves the state of members that serve, as an administrator does.
    async fn save(&self, to: &Path) -> Result<Saved>;

    /// Makes a new cluster of what was saved: fills the empty data folder of its first member.
    async fn restore(&self, from: &Path, first: &Member) -> Result<()>;
}

/// The files below a folder whose name ends in one of `endings`, oldest name first.
pub(super) fn files_ending(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Makes a change of members, again while it is refused because too few of them are connected: etcd refuses it until all have been
/// for five seconds, ours while the leader does not reach a quorum. A refusal is no unknown outcome, so that asking again is safe.
pub(super) async fn once_possible<F>(change: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let until = Instant::now() + CHANGE_DEADLINE;
    loop {
        let Err(error) = change().await else {
            return Ok(());
        };
        let text = format!("{error:#}");
        let is_early = REFUSALS.iter().any(|refusal| text.contains(refusal));
        if !is_early || Instant::now() > until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
