//! One run: cluster, load and faults together; then the checkers and the report.

use crate::check::wgl::Limits;
use crate::cluster::{Binaries, Cluster, Options};
use crate::history::{self, Record, Recorder};
use crate::nemesis;
use crate::nemesis::masters::{self, Nemesis};
use crate::report;
use crate::results::{self, Results, RunConfig};
use crate::workload::{self, Workload};
use anyhow::{Context, Result};
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

/// Runs, judges, writes the folder `out`; the results.
pub async fn run(
    config: &RunConfig,
    binaries: Binaries,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Results> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write_json(&out.join("config.json"), config)?;
    progress.part(&format!("starting {} masters", config.masters));
    let mut cluster = Cluster::start(Options {
        binaries,
        masters: config.masters,
        logs: Some(out.join("logs")),
    })
    .await
    .context("the cluster did not start")?;
    let recorder = Arc::new(Recorder::new(Some(&out.join("history.jsonl")))?);
    progress.part("load and faults");
    let problem = load_and_faults(config, &mut cluster, &recorder, progress).await;
    drop(cluster);
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
    cluster: &mut Cluster,
    recorder: &Arc<Recorder>,
    progress: &dyn Progress,
) -> Result<()> {
    let probe = cluster.probe()?;
    let stop = CancellationToken::new();
    let stop_watching = CancellationToken::new();
    let workload = Workload {
        clients: probe.clients().to_vec(),
        rate: config.rate,
        lanes: config.lanes,
        seed: config.seed,
        stale_reads: config.plant.as_deref() == Some("stale-reads"),
    };
    // However this ends, what was spawned ends with it.
    let _ends_load = stop.clone().drop_guard();
    let _ends_watching = stop_watching.clone().drop_guard();
    let load = tokio::spawn(workload::run(workload, recorder.clone(), stop.clone()));
    let leaders = tokio::spawn(masters::watch_leader(
        probe,
        recorder.clone(),
        stop_watching.clone(),
    ));
    let began = Instant::now();
    let until = began + Duration::from_secs(config.seconds);
    let faults = async {
        tokio::time::sleep(WARM_UP).await;
        let mut nemesis = Nemesis {
            cluster,
            recorder: recorder.clone(),
            progress: &|kind| progress.fault(kind),
        };
        let planned = nemesis::schedule(config.seed, &config.nemesis);
        nemesis.run(planned, until).await?;
        tokio::time::sleep_until(until.into()).await;
        anyhow::Ok(())
    };
    let show = async {
        loop {
            progress.at(began.elapsed(), recorder.len());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let broken = tokio::select! {
        broken = faults => broken,
        () = show => Ok(()),
    };
    stop.cancel();
    let unread = load.await.context("the load panicked")?;
    stop_watching.cancel();
    leaders.await.context("the watch on the leader panicked")?;
    broken?;
    anyhow::ensure!(
        unread.is_empty(),
        "after all faults were healed these keys could not be read: {}",
        unread.join(", ")
    );
    Ok(())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).context("results are plain data")?;
    text.push(b'\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
