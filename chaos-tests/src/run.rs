//! One run: members, load and faults together; then the checkers and the report.

use crate::check::wgl::Limits;
use crate::history::{self, Record, Recorder};
use crate::nemesis::{self, Group, Nemesis};
use crate::report;
use crate::results::{self, Results, RunConfig};
use crate::testbed::{Choice, Endpoint, Options, Probe, Testbed};
use crate::workload::{self, Load};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Load without faults at the beginning of a run.
const WARM_UP: Duration = Duration::from_secs(2);

/// What is shown while a run goes on.
pub trait Progress: Sync {
    /// A new part begins.
    fn part(&self, text: &str);
    /// A fault begins; empty when it is over.
    fn fault(&self, kind: &str);
    /// How far the run is.
    fn at(&self, elapsed: Duration, events: usize);
}

/// What is put to the test.
#[derive(Clone, Debug)]
pub enum Store {
    /// Members that the harness starts, breaks and removes.
    Started(Choice),
    /// Members that somebody else runs; the harness only asks them.
    Running(Vec<Endpoint>),
}

/// Runs, judges, writes the folder `out`; the results.
pub async fn run(
    config: &RunConfig,
    store: &Store,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Results> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write_json(&out.join("config.json"), config)?;
    let mut bed = match store {
        Store::Running(_) => {
            ensure!(
                config.nemesis.is_empty(),
                "members that the harness did not start cannot be broken; ask for no faults (--nemesis none)"
            );
            None
        }
        Store::Started(choice) => {
            progress.part(&format!("starting {} members of {choice}", config.members));
            let options = options(config, choice, out)?;
            Some(
                Testbed::start(options)
                    .await
                    .context("the members did not start")?,
            )
        }
    };
    let endpoints = match (store, &bed) {
        (Store::Running(endpoints), _) => endpoints.clone(),
        (Store::Started(_), bed) => bed.as_ref().map_or_else(Vec::new, Testbed::endpoints),
    };
    let recorder = Arc::new(Recorder::new(Some(&out.join("history.jsonl")))?);
    progress.part("load and faults");
    let problem = load_and_faults(config, bed.as_mut(), endpoints, &recorder, progress).await;
    drop(bed);
    let records = recorder.finish()?;
    let problem = problem.err().map(|error| format!("{error:#}"));
    let note = out.join("harness-problem.txt");
    match &problem {
        Some(problem) => std::fs::write(&note, problem).context("cannot write to the folder")?,
        None => drop(std::fs::remove_file(&note)),
    }
    progress.part("checking");
    conclude(config, &records, problem, out)
}

fn options(config: &RunConfig, choice: &Choice, out: &Path) -> Result<Options> {
    let mut kinds = config.nemesis.iter();
    Ok(Options {
        members: config.members,
        logs: Some(out.join("logs")),
        seed: config.seed,
        with_injector: kinds.any(|kind| kind.needs_injector()),
        with_clock: config
            .nemesis
            .iter()
            .any(|kind| kind.group() == Group::Clock),
        ..Options::of(choice.clone())?
    })
}

/// Judges the history of a folder again.
pub fn check(out: &Path) -> Result<Results> {
    let path = out.join("config.json");
    let text = std::fs::read(&path).with_context(|| {
        format!(
            "cannot read {}; is this the folder of a run?",
            path.display()
        )
    })?;
    let config: RunConfig =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let records = history::read(&out.join("history.jsonl"))?;
    let problem = std::fs::read_to_string(out.join("harness-problem.txt")).ok();
    conclude(&config, &records, problem, out)
}

fn conclude(
    config: &RunConfig,
    records: &[Record],
    problem: Option<String>,
    out: &Path,
) -> Result<Results> {
    let (results, timeline) = results::judge(config, records, problem, Limits::default())?;
    write_json(&out.join("results.json"), &results)?;
    let html = report::html(config, &results, &timeline);
    let path = out.join("report.html");
    std::fs::write(&path, html).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(results)
}

async fn load_and_faults(
    config: &RunConfig,
    mut bed: Option<&mut Testbed>,
    endpoints: Vec<Endpoint>,
    recorder: &Arc<Recorder>,
    progress: &dyn Progress,
) -> Result<()> {
    let probe = Probe::new(&endpoints)?;
    let stop = CancellationToken::new();
    let stop_watching = CancellationToken::new();
    // However this ends, what was spawned ends with it.
    let _ends_load = stop.clone().drop_guard();
    let _ends_watching = stop_watching.clone().drop_guard();
    let load = load(config, endpoints);
    let prefix = load.prefix.clone();
    let load = tokio::spawn(workload::run(load, recorder.clone(), stop.clone()));
    let leaders = tokio::spawn(nemesis::watch_leader(
        probe,
        recorder.clone(),
        stop_watching.clone(),
    ));
    let began = Instant::now();
    let until = began + Duration::from_secs(config.seconds);
    let faults = async {
        tokio::time::sleep(WARM_UP).await;
        let mut last = 0;
        if let Some(bed) = bed.as_deref_mut() {
            let mut nemesis = Nemesis {
                bed,
                recorder: recorder.clone(),
                progress: &|kind| progress.fault(kind),
            };
            let planned = nemesis::schedule(config.seed, &config.nemesis);
            if config.combos {
                let combined = nemesis::combined(planned, &config.nemesis);
                last = nemesis.run(combined, until).await?;
            } else {
                last = nemesis.run(planned, until).await?;
            }
        }
        tokio::time::sleep_until(until.into()).await;
        anyhow::Ok(last)
    };
    let show = async {
        loop {
            progress.at(began.elapsed(), recorder.len());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let broken = tokio::select! {
        broken = faults => broken,
        () = show => Ok(0),
    };
    stop.cancel();
    let unread = load.await.context("the load panicked")?;
    let is_to_restore = config.nemesis.contains(&nemesis::Kind::Restore);
    let restored = match (&broken, bed) {
        (Ok(last), Some(bed)) if is_to_restore => {
            let kind = nemesis::Kind::Restore.name();
            progress.fault(kind);
            nemesis::restore(bed, recorder, last + 1, prefix, config.seed).await
        }
        _ => Ok(()),
    };
    stop_watching.cancel();
    leaders.await.context("the watch on the leader panicked")?;
    broken?;
    ensure!(
        unread.is_empty(),
        "after all faults were healed these had no last word: {}",
        unread.join(", ")
    );
    restored
}

fn load(config: &RunConfig, endpoints: Vec<Endpoint>) -> Load {
    let run: String = config
        .started
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    Load {
        kinds: config.workloads.clone(),
        endpoints,
        prefix: format!("/chaos/{run}-{}/", config.seed),
        rate: config.rate,
        lanes: config.lanes,
        seed: config.seed,
        stale_reads: config.plant.as_deref() == Some("stale-reads"),
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).context("results are plain data")?;
    text.push(b'\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
