//! Shows on real processes that the harness can fail: our masters, built with a promise that can be broken on purpose, are run
//! with each such bug, and the run must end with the right anomaly; without the bug the same run must find nothing.
//!
//! Each run is this program's own `run`, so that what is shown is what a person would see. What needs luck is given a fault that makes
//! it sure: a vote that is not synced loses its power while votes are all that is written, and an entry that is cut off although it
//! was acknowledged is cut off where only those who never had it can notice.

use crate::check::anomaly::Class;
use crate::results::{Results, Verdict};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// The environment variable by which a master learns which promise to break.
const VARIABLE: &str = "TRIREME_PLANTED_BUG";
/// A bug may hide from one seed.
const SEEDS: u64 = 3;
/// Requests a second, where a bug asks for no more.
const RATE: u32 = 600;
/// As many as the machine gives.
const RATE_MAX: u32 = 4000;

/// A bug, the run that shows it, and as what.
pub struct Bug {
    /// As the masters know it.
    pub name: &'static str,
    workloads: &'static str,
    nemesis: &'static str,
    seconds: u32,
    rate: u32,
    classes: &'static [Class],
}

/// The bugs that real processes can show.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "read-index-off",
        workloads: "register,append",
        nemesis: "partition,pause",
        seconds: 30,
        rate: RATE,
        classes: &[
            Class::StaleRead,
            Class::GSingleRealtime,
            Class::RevisionWentBack,
        ],
    },
    Bug {
        name: "fsync-off",
        workloads: "register,set",
        nemesis: "power-loss-all,power-loss-majority",
        seconds: 30,
        rate: RATE,
        classes: &[Class::LostWrite, Class::RevisionWentBack],
    },
    Bug {
        name: "ack-before-commit",
        workloads: "register,set,append",
        nemesis: "kill,partition",
        seconds: 30,
        rate: RATE,
        classes: &[
            Class::LostWrite,
            Class::RevisionWentBack,
            Class::IncompatibleOrder,
        ],
    },
    Bug {
        name: "double-apply",
        workloads: "append,watch,admin",
        nemesis: "none",
        seconds: 20,
        rate: RATE,
        classes: &[Class::Divergent, Class::G1a, Class::Duplicate],
    },
    Bug {
        name: "watch-skips",
        workloads: "watch",
        nemesis: "none",
        seconds: 60,
        rate: RATE_MAX,
        classes: &[Class::WatchMissed],
    },
    Bug {
        name: "watch-repeats",
        workloads: "watch",
        nemesis: "none",
        seconds: 20,
        rate: RATE,
        classes: &[Class::WatchResume, Class::WatchDuplicate],
    },
    Bug {
        name: "txn-split",
        workloads: "watch",
        nemesis: "none",
        seconds: 20,
        rate: RATE,
        classes: &[Class::WatchTorn],
    },
    Bug {
        name: "revision-lower",
        workloads: "register,set,watch",
        nemesis: "kill,restart",
        seconds: 30,
        rate: RATE,
        classes: &[Class::RevisionWentBack, Class::Divergent],
    },
    Bug {
        name: "lease-wall-clock",
        workloads: "lease",
        nemesis: "clock-jump",
        seconds: 40,
        rate: RATE,
        classes: &[Class::EarlyExpiry],
    },
    Bug {
        name: "progress-early",
        workloads: "watch",
        nemesis: "none",
        seconds: 45,
        rate: RATE,
        classes: &[Class::WatchBookmark],
    },
    Bug {
        name: "vote-not-synced",
        workloads: "register",
        nemesis: "power-loss-election",
        seconds: 40,
        rate: RATE,
        classes: &[Class::TermWentBack],
    },
    Bug {
        name: "torn-committed",
        workloads: "register,set",
        nemesis: "flipped-entry",
        seconds: 45,
        rate: RATE,
        classes: &[Class::LostWrite, Class::RevisionWentBack],
    },
];

/// What became of a bug.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The bug.
    pub bug: String,
    /// The workloads of its run.
    pub workloads: String,
    /// The faults of its run.
    pub nemesis: String,
    /// As what it was found; None where it was not.
    pub found: Option<String>,
    /// Seconds of load until the first anomaly.
    pub after_s: Option<f64>,
    /// Runs that it took.
    pub runs: u64,
    /// Seconds that they took in all, checks included.
    pub took_s: f64,
    /// Whether the same run without the bug found nothing.
    pub clean: bool,
    /// Why not, or why it was not found.
    pub problem: Option<String>,
}

/// Where the programs are and where the runs go.
pub struct Plan {
    /// Masters with bugs to be chosen.
    pub planted: PathBuf,
    /// Masters without; None takes those beside this program.
    pub clean: Option<PathBuf>,
    /// The bugs; empty for all.
    pub bugs: Vec<String>,
    /// A folder.
    pub out: PathBuf,
    /// The first seed.
    pub seed: u64,
}

/// Runs every bug and its counterpart; `told` is called after each.
pub async fn run(plan: &Plan, told: &dyn Fn(&Shown)) -> Result<Vec<Shown>> {
    for name in &plan.bugs {
        ensure!(
            BUGS.iter().any(|bug| bug.name == name),
            "{name} is no bug that real processes show; there are {}",
            BUGS.iter()
                .map(|bug| bug.name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let mut shown = Vec::new();
    let mut clean: Vec<(&Bug, Result<(), String>)> = Vec::new();
    for bug in BUGS {
        if !plan.bugs.is_empty() && !plan.bugs.iter().any(|name| name == bug.name) {
            continue;
        }
        let mut one = show(plan, bug).await?;
        let same = |other: &&Bug| {
            (other.workloads, other.nemesis) == (bug.workloads, bug.nemesis)
                && (other.seconds, other.rate) == (bug.seconds, bug.rate)
        };
        let known = clean.iter().find(|(other, _)| same(other));
        let without = match known {
            Some((_, without)) => without.clone(),
            None => {
                let without = is_clean(plan, bug).await?;
                clean.push((bug, without.clone()));
                without
            }
        };
        one.clean = without.is_ok();
        one.problem = one.problem.or(without.err());
        told(&one);
        shown.push(one);
    }
    Ok(shown)
}

/// Runs a bug until it is found.
async fn show(plan: &Plan, bug: &Bug) -> Result<Shown> {
    let began = Instant::now();
    let mut shown = Shown {
        bug: bug.name.to_owned(),
        workloads: bug.workloads.to_owned(),
        nemesis: bug.nemesis.to_owned(),
        found: None,
        after_s: None,
        runs: 0,
        took_s: 0.0,
        clean: false,
        problem: None,
    };
    while shown.found.is_none() && shown.runs < SEEDS {
        let out = plan.out.join(format!("{}-{}", bug.name, shown.runs));
        let seed = plan.seed + shown.runs;
        let results = one_run(bug, &plan.planted, Some(bug.name), seed, &out).await?;
        shown.runs += 1;
        let named = results
            .findings
            .anomalies()
            .find(|(_, anomaly)| bug.classes.contains(&anomaly.class));
        shown.found = named.map(|(_, anomaly)| anomaly.class.name());
        shown.after_s = results
            .findings
            .anomalies()
            .map(|(_, anomaly)| {
                anomaly
                    .offending
                    .until_ns
                    .unwrap_or(anomaly.offending.from_ns)
            })
            .min()
            .map(|ns| ns as f64 / 1e9);
        if shown.found.is_none() {
            let reasons = results.reasons.first().cloned().unwrap_or_default();
            shown.problem = Some(format!("{}: {reasons}", results.verdict.text()));
        } else {
            shown.problem = None;
        }
    }
    shown.took_s = began.elapsed().as_secs_f64();
    Ok(shown)
}

/// Whether the run of a bug finds nothing where the bug is not.
async fn is_clean(plan: &Plan, bug: &Bug) -> Result<Result<(), String>> {
    let programs = match &plan.clean {
        Some(folder) => folder.clone(),
        None => crate::cluster::Binaries::find()?.folder().to_owned(),
    };
    let out = plan.out.join(format!("{}-clean", bug.name));
    let results = one_run(bug, &programs, None, plan.seed, &out).await?;
    Ok(match results.verdict {
        Verdict::Ok => Ok(()),
        other => {
            let reason = results.reasons.first().cloned().unwrap_or_default();
            Err(format!("without the bug: {}: {reason}", other.text()))
        }
    })
}

async fn one_run(
    bug: &Bug,
    programs: &Path,
    planted: Option<&str>,
    seed: u64,
    out: &Path,
) -> Result<Results> {
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    let mut command = Command::new(own);
    command
        .args(["run", "--target", "control", "--workload", bug.workloads])
        .args(["--nemesis", bug.nemesis])
        .args(["--time", &format!("{}s", bug.seconds)])
        .args(["--rate", &bug.rate.to_string(), "--seed", &seed.to_string()])
        .arg("--out")
        .arg(out)
        .env(crate::cluster::BINARIES_VARIABLE, programs)
        .env_remove(VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(planted) = planted {
        command.env(VARIABLE, planted);
    }
    let ended = command
        .output()
        .await
        .context("this program cannot be started again")?;
    let path = out.join("results.json");
    let Ok(text) = std::fs::read(&path) else {
        let said = String::from_utf8_lossy(&ended.stderr);
        bail!(
            "the run for {} wrote no {}: {}",
            bug.name,
            path.display(),
            said.trim()
        );
    };
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}
