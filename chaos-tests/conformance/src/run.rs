//! Runs checks side by side, each with a namespace of its own and under a deadline, and gathers what became of them.

use crate::context::{Context, Failure, wrong};
use client::Client;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A check that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(120);
/// Cleaning up may take this long; what is left then stays.
const CLEAN_DEADLINE: Duration = Duration::from_secs(20);

/// A check that met a cluster without an answer is asked again, so often in all.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// What a check's function gives.
pub type Checked = std::result::Result<(), Failure>;

/// One behaviour.
#[derive(Clone, Copy)]
pub struct Check {
    /// The name of Kubernetes' test.
    pub name: &'static str,
    /// What finds out.
    pub ask: for<'a> fn(&'a Context) -> LocalBoxFuture<'a, Checked>,
}

impl Check {
    /// The part of Kubernetes that the name begins with: `api-machinery` of `[sig-api-machinery] …`.
    pub fn area(&self) -> &'static str {
        let inner = self.name.strip_prefix("[sig-").unwrap_or_default();
        inner.split_once(']').map_or("other", |(area, _)| area)
    }
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The cluster behaves so.
    Passed,
    /// It does not.
    Failed,
    /// It does not serve what the behaviour is about.
    NotSupported,
}

/// A check's result.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// The name of Kubernetes' test.
    pub name: &'static str,
    /// Its part of Kubernetes.
    pub area: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it did not pass; empty when it did.
    pub why: String,
    /// How long it took.
    pub milliseconds: u64,
}

/// All results, in the order of the checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the cluster says that it is.
    pub server: String,
    /// A result a check.
    pub results: Vec<Result>,
}

/// Which checks run, and how many at a time.
pub struct Selection {
    /// The checks.
    pub checks: Vec<Check>,
    /// At most so many side by side.
    pub jobs: usize,
}

/// Runs the checks; `progress` hears of each as it ends.
pub async fn run(
    client: &Client,
    selection: &Selection,
    mut progress: impl FnMut(&Result),
) -> std::result::Result<Report, client::Error> {
    let version: serde_json::Value = client.get("/version").await?;
    let server = version["gitVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let indexed = selection.checks.iter().copied().enumerate();
    let mut ended = futures::stream::iter(indexed)
        .map(|(index, check)| async move { (index, run_one(client, check).await) })
        .buffer_unordered(selection.jobs.max(1));
    let mut results = Vec::new();
    while let Some((index, result)) = ended.next().await {
        progress(&result);
        results.push((index, result));
    }
    results.sort_by_key(|(index, _)| *index);
    let results = results.into_iter().map(|(_, result)| result).collect();
    Ok(Report { server, results })
}

async fn run_one(client: &Client, check: Check) -> Result {
    let started = Instant::now();
    let mut asked = ask(client, check).await;
    for _ in 1..TRIES {
        if !matches!(asked, Err(Failure::Unavailable(_))) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        asked = ask(client, check).await;
    }
    let (outcome, why) = match asked {
        Ok(()) => (Outcome::Passed, String::new()),
        Err(Failure::NotSupported(why)) => (Outcome::NotSupported, why),
        Err(Failure::Wrong(why)) => (Outcome::Failed, why),
        Err(Failure::Unavailable(why)) => {
            let why = format!("{TRIES} tries met a cluster that does not answer, the last: {why}");
            (Outcome::Failed, why)
        }
    };
    Result {
        name: check.name,
        area: check.area(),
        outcome,
        why,
        milliseconds: started.elapsed().as_millis() as u64,
    }
}

/// One try, with a namespace of its own that is gone afterwards.
async fn ask(client: &Client, check: Check) -> Checked {
    let context = Context::new(client.clone());
    let asked = AssertUnwindSafe((check.ask)(&context)).catch_unwind();
    let ended = tokio::time::timeout(DEADLINE, asked).await;
    let _ = tokio::time::timeout(CLEAN_DEADLINE, context.clean()).await;
    match ended {
        Ok(Ok(checked)) => checked,
        Ok(Err(_)) => wrong("the check itself panicked"),
        Err(_) => wrong(format!("no end within {} s", DEADLINE.as_secs())),
    }
}
