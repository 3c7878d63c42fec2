//! Any etcd of version 3.4 or later, as its packages start it, without TLS.

use super::probe::Probe;
use super::target::{
    Endpoint, Files, Launch, Member, Saved, Start, Target, files_ending, once_possible,
};
use crate::cluster::run_with_input;
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use std::path::{Path, PathBuf};

/// Where Debian puts it.
pub const PROGRAM: &str = "/usr/bin/etcd";
/// Entries until etcd takes a snapshot and cuts its log: few, so that members that were away are fed by snapshots.
const SNAPSHOT_COUNT: u32 = 2000;

/// etcd.
pub struct Etcd {
    program: PathBuf,
}

impl Etcd {
    /// The program at a path.
    pub fn at(program: &Path) -> Result<Self> {
        ensure!(
            program.is_file(),
            "there is no etcd at {}; install Debian's etcd-server, or name the program: --target etcd=PATH",
            program.display()
        );
        Ok(Etcd {
            program: program.to_owned(),
        })
    }

    fn peer_url(member: &Member) -> String {
        format!("http://{}:2380", member.address)
    }
}

#[async_trait]
impl Target for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn version(&self) -> String {
        let program = self.program.display().to_string();
        match run_with_input(&program, &["--version"], None) {
            Ok(text) => text.lines().next().unwrap_or("unknown").trim().to_owned(),
            Err(error) => format!("unknown: {error:#}"),
        }
    }

    fn first_alone(&self) -> bool {
        false
    }

    fn is_ready(&mut self, _: &Member) -> Result<bool> {
        Ok(true)
    }

    fn launch(&self, member: &Member, members: &[Member], start: Start) -> Launch {
        let peers: Vec<String> = members
            .iter()
            .map(|member| format!("{}={}", member.name, Etcd::peer_url(member)))
            .collect();
        let client_url = self.endpoint(member).url;
        let state = match start {
            Start::New => "new",
            Start::Joins | Start::Again => "existing",
        };
        let mut args = Vec::new();
        let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        add("--name", member.name.clone());
        add("--data-dir", member.data.display().to_string());
        add("--listen-peer-urls", Etcd::peer_url(member));
        add("--initial-advertise-peer-urls", Etcd::peer_url(member));
        add("--listen-client-urls", client_url.clone());
        add("--advertise-client-urls", client_url);
        add("--initial-cluster", peers.join(","));
        add("--initial-cluster-state", state.to_owned());
        add("--initial-cluster-token", "chaos".to_owned());
        add("--snapshot-count", SNAPSHOT_COUNT.to_string());
        add("--logger", "zap".to_owned());
        Launch {
            program: self.program.clone(),
            args,
        }
    }

    fn endpoint(&self, member: &Member) -> Endpoint {
        Endpoint {
            name: member.name.clone(),
            url: format!("http://{}:2379", member.address),
            tls: None,
        }
    }

    fn files(&self, data: &Path) -> Result<Files> {
        Ok(Files {
            logs: files_ending(&data.join("member/wal"), &[".wal"]),
            tables: files_ending(&data.join("member/snap"), &["db"]),
        })
    }

    fn tells_votes(&self) -> bool {
        false
    }

    fn clock_problem(&self) -> Option<String> {
        Some(format!(
            "{} is a Go program, which asks the kernel for the time without libc, so that libfaketime cannot reach it",
            self.program.display()
        ))
    }

    async fn admit(&self, probe: &Probe, member: &Member) -> Result<()> {
        let url = Etcd::peer_url(member);
        once_possible(|| probe.member_add(&url))
            .await
            .with_context(|| format!("{} is not let in", member.name))
    }

    fn restore_problem(&self) -> Option<String> {
        let text = "etcd restores every member by itself and goes on from the saved revision: it hands revisions out again";
        Some(text.to_owned())
    }

    async fn save(&self, _: &Path) -> Result<Saved> {
        bail!("the harness restores no etcd")
    }

    async fn restore(&self, _: &Path, _: &Member) -> Result<()> {
        bail!("the harness restores no etcd")
    }

    async fn expel(&self, probe: &Probe, member: &Member) -> Result<()> {
        once_possible(|| probe.member_remove(&member.name))
            .await
            .with_context(|| format!("{} is not put out", member.name))
    }
}
