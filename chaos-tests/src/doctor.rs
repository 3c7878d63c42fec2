//! What this machine lets the harness do: every capability is tried, none is guessed from a version or a name.

use crate::cluster::{Binaries, run_with_input};
use crate::faketime::Clock;
use crate::injector::{Calls, Effect, Injector};
use crate::kernel;
use crate::nemesis::{Group, Kind};
use crate::testbed::Disk;
use crate::tunswitch::Network;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// What a fault, or the harness, needs of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Root,
    Control,
    Etcd,
    Start,
    Tun,
    Bridge,
    Image,
    PowerLoss,
    Calls,
    Clock,
}

/// One thing that is needed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capability {
    #[serde(skip)]
    need: Need,
    /// What.
    pub name: &'static str,
    /// What it is for.
    pub needed_for: &'static str,
    /// Why it is missing.
    pub problem: Option<String>,
}

/// Whether a fault can be had.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Possible {
    /// As it is typed.
    pub fault: &'static str,
    /// The group under which it can be asked for.
    pub group: &'static str,
    /// What it does.
    pub does: &'static str,
    /// Why it cannot be had here.
    pub problem: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// What was tried.
    pub capabilities: Vec<Capability>,
    /// What follows for the faults.
    pub faults: Vec<Possible>,
}

impl Examination {
    /// Whether everything can be had.
    pub fn is_whole(&self) -> bool {
        self.capabilities
            .iter()
            .all(|capability| capability.problem.is_none())
    }
}

/// Tries everything.
pub fn examine() -> Examination {
    let capabilities: Vec<Capability> = TRIALS
        .iter()
        .map(|(need, name, needed_for, trial)| Capability {
            need: *need,
            name,
            needed_for,
            problem: trial().err().map(|error| format!("{error:#}")),
        })
        .collect();
    let faults = Kind::ALL
        .iter()
        .map(|kind| Possible {
            fault: kind.name(),
            group: kind.group().name(),
            does: kind.does(),
            problem: problem(*kind, &capabilities),
        })
        .collect();
    Examination {
        capabilities,
        faults,
    }
}

fn problem(kind: Kind, capabilities: &[Capability]) -> Option<String> {
    let own = match kind {
        Kind::PowerLoss | Kind::PowerLossMajority | Kind::PowerLossAll => Some(Need::PowerLoss),
        _ if kind.needs_injector() => Some(Need::Calls),
        _ if kind.group() == Group::Clock => Some(Need::Clock),
        _ => None,
    };
    let always = [Need::Root, Need::Start, Need::Tun, Need::Image];
    always
        .into_iter()
        .chain(own)
        .filter_map(|need| capabilities.iter().find(|known| known.need == need))
        .find_map(|known| {
            let problem = known.problem.as_ref()?;
            Some(format!("{}: {problem}", known.name))
        })
}

type Trial = (Need, &'static str, &'static str, fn() -> Result<()>);

/// The trials, in the order in which they are told.
const TRIALS: &[Trial] = &[
    (
        Need::Root,
        "root",
        "everything but check, sim and selftest",
        root,
    ),
    (Need::Control, "control", "--target control", || {
        Binaries::find().map(drop)
    }),
    (Need::Etcd, "etcd", "--target etcd", etcd),
    (
        Need::Start,
        "setpriv, nsenter and env",
        "starting members that end with the harness",
        start,
    ),
    (Need::Tun, "TUN devices in network namespaces", "run", tun),
    (
        Need::Bridge,
        "bridges, veth and nftables",
        "clusters with nodes and pods",
        bridge,
    ),
    (Need::Image, "ext4 on loop devices", "run", image),
    (
        Need::PowerLoss,
        "shutting a file system down",
        "power-loss",
        power_loss,
    ),
    (
        Need::Calls,
        "seccomp notification",
        "sync-error, sync-delay, write-error, no-space",
        calls,
    ),
    (Need::Clock, "libfaketime", "clock-rate, clock-jump", clock),
];

fn root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this is not root");
    Ok(())
}

fn etcd() -> Result<()> {
    let program = crate::testbed::ETCD;
    run_with_input(program, &["--version"], None)
        .context("install Debian's etcd-server, or name another with --target etcd=PATH")?;
    Ok(())
}

fn start() -> Result<()> {
    for program in ["setpriv", "nsenter", "env"] {
        run_with_input(program, &["--version"], None)?;
    }
    Ok(())
}

fn tun() -> Result<()> {
    let mut network = Network::create(0)?;
    network.add("d", 11).map(drop)
}

/// In a network namespace that ends with the command, so that nothing is left behind.
fn bridge() -> Result<()> {
    let veth = "ip link add veth0 type veth peer name veth1 && ip link add bridge0 type bridge";
    let nft = "nft add table inet t && nft add chain inet t c '{ type filter hook input priority 0; }' && nft add rule inet t c ip saddr 10.0.0.1 drop";
    for script in [veth, nft] {
        run_with_input("unshare", &["--net", "sh", "-c", script], None)?;
    }
    Ok(())
}

fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().context("no temporary folder can be made")
}

fn image() -> Result<()> {
    let folder = folder()?;
    disk(&folder).map(drop)
}

fn disk(folder: &tempfile::TempDir) -> Result<Disk> {
    kernel::own_mounts()?;
    Disk::create(folder.path(), "doctor")
}

fn power_loss() -> Result<()> {
    let folder = folder()?;
    let mut disk = disk(&folder)?;
    let canaries = disk.set_canaries()?;
    disk.cut_power()?;
    let loss = disk.power_on(&canaries)?;
    ensure!(loss.kept_synced, "a file that was synced was lost");
    ensure!(loss.lost_unsynced, "a file that was not synced survived");
    Ok(())
}

fn calls() -> Result<()> {
    let folder = folder()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "text").context("cannot write a file")?;
    let injector = Injector::new(folder.path(), "doctor", folder.path())?;
    injector.set(Calls::Sync, Effect::Fail(Errno::EIO));
    let synced = run(&injector.command()?, &["sync", "--data"], &file)?;
    ensure!(
        !synced.status.success() && injector.touched() > 0,
        "a call that was to fail did not: {}",
        String::from_utf8_lossy(&synced.stderr).trim()
    );
    Ok(())
}

fn clock() -> Result<()> {
    const BACK: i64 = 1_000_000;
    let folder = folder()?;
    let mut clock = Clock::new(folder.path(), "doctor")?;
    let seconds = |before: &[String]| -> Result<i64> {
        let output = run(before, &["date"], "+%s".as_ref())?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().context("date tells no seconds")
    };
    clock.jump(-BACK)?;
    let apart = seconds(&[])? - seconds(&clock.command())?;
    ensure!(
        apart.abs_diff(BACK) < 5,
        "a clock that was to be {BACK} s late is {apart} s late"
    );
    Ok(())
}

/// Runs a program below what comes before it on its command line, with one more argument.
fn run(before: &[String], program: &[&str], last: &Path) -> Result<std::process::Output> {
    let words: Vec<&str> = before
        .iter()
        .map(String::as_str)
        .chain(program.iter().copied())
        .collect();
    let (first, args) = words.split_first().context("a command has a program")?;
    Command::new(first)
        .args(args)
        .arg(last)
        .output()
        .with_context(|| format!("cannot run {}", program.join(" ")))
}
