//! `ctl status`: who leads, how far each master is and how it works, what of the past is kept, when it was saved, what is wrong and
//! what to do about it.

mod advice;

use super::history;
use crate::cli::{Output, Status};
use crate::context::Context;
use crate::output;
use anyhow::Result;
use objects::cluster::{ClusterStatus, MemberFigures, MemberStatus};
use objects::past::HistoryStatus;
use objects::snapshots::{SavedSnapshot, SnapshotList};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::Duration;

/// What is printed for machines.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    #[serde(flatten)]
    status: ClusterStatus,
    /// None when no majority answers.
    history: Option<HistoryStatus>,
    /// The last that a schedule saved; None when there is none, or no majority answers.
    last_snapshot: Option<SavedSnapshot>,
    /// What to know and to do next, for people.
    advice: Vec<String>,
}

pub async fn run(context: &Context, args: Status) -> Result<()> {
    if !args.watch {
        return print(ask(context).await?, args.output.output, false);
    }
    loop {
        let whole = ask(context).await;
        let output = args.output.output;
        if output == Output::Table && std::io::stdout().is_terminal() {
            // Clears the screen, from its first line on.
            print!("\x1b[H\x1b[2J");
        }
        match whole {
            Ok(whole) => print(whole, output, true)?,
            // The worst hour is when it must go on.
            Err(error) => eprintln!("{error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(args.every)).await;
    }
}

async fn ask(context: &Context) -> Result<Whole> {
    let status: ClusterStatus = context.client.get("/cluster/v1/status").await?;
    let (history, snapshots) = match &status.leader {
        // Without a leader nobody can say what is newest.
        None => (None, None),
        Some(_) => (
            context.client.get("/cluster/v1/history").await.ok(),
            context
                .client
                .get::<SnapshotList>("/cluster/v1/snapshots")
                .await
                .ok(),
        ),
    };
    let advice = advice::lines(&status);
    Ok(Whole {
        status,
        history,
        last_snapshot: snapshots.and_then(|list| list.snapshots.into_iter().next()),
        advice,
    })
}

/// With `many`, for machines one on a line.
fn print(whole: Whole, output: Output, many: bool) -> Result<()> {
    match output {
        Output::Json if many => {
            println!("{}", serde_json::to_string(&whole)?);
            return Ok(());
        }
        Output::Json => return output::json(&whole),
        Output::Yaml => {
            if many {
                println!("---");
            }
            return output::yaml(&whole);
        }
        _ => {}
    }
    let Whole {
        status,
        history,
        last_snapshot,
        advice,
    } = whole;
    print_leader(&status);
    let headers = [
        "Name", "Role", "Healthy", "Log", "Applied", "Revision", "Data", "API", "Problem",
    ];
    output::table(
        &headers.map(str::to_owned),
        status.members.iter().map(place).collect(),
    );
    println!();
    let headers = [
        "Name",
        "Fsync p50/p99",
        "Commit p50/p99",
        "Pending",
        "Failed",
        "Leader Changes",
        "Slow Applies",
        "Watches",
        "Behind",
        "In Use",
        "Room Until",
    ];
    let told = status.members.iter().filter_map(|member| {
        let figures = member.figures.as_ref()?;
        Some(work(&member.member.name, figures))
    });
    output::table(&headers.map(str::to_owned), told.collect());
    println!();
    match history {
        Some(told) => println!("{}", history::summary(&told)),
        None => println!("what of the past is kept cannot be told without a majority"),
    }
    if let Some(SavedSnapshot {
        saved,
        schedule,
        verified,
        place,
        ..
    }) = last_snapshot
    {
        let verified = if verified { "verified" } else { "not verified" };
        println!("last snapshot {saved}, {verified}, by the schedule {schedule} in {place}");
    }
    for line in advice {
        println!("{line}");
    }
    Ok(())
}

fn print_leader(status: &ClusterStatus) {
    let leader = status
        .members
        .iter()
        .find(|member| Some(member.member.id) == status.leader);
    let leads = leader.map_or(
        "nobody: writes are refused until a majority is back".to_owned(),
        |leader| format!("{} since term {}", leader.member.name, status.term),
    );
    println!(
        "cluster {}, led by {}",
        status.cluster_id,
        output::strong(&leads)
    );
}

fn place(status: &MemberStatus) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let role = match (status.leader, status.member.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    };
    vec![
        status.member.name.clone(),
        role.to_owned(),
        if status.healthy { "yes" } else { "no" }.to_owned(),
        number(status.last_log_index),
        number(status.applied_index),
        number(status.revision),
        status.db_size_bytes.map_or("-".to_owned(), output::bytes),
        status.member.api_url.clone(),
        status.problem.clone().unwrap_or_default(),
    ]
}

fn work(name: &str, figures: &MemberFigures) -> Vec<String> {
    let MemberFigures {
        fsync_p50_us,
        fsync_p99_us,
        commit_p50_us,
        commit_p99_us,
        ..
    } = figures;
    vec![
        name.to_owned(),
        latencies(*fsync_p50_us, *fsync_p99_us),
        latencies(*commit_p50_us, *commit_p99_us),
        figures.proposals_pending.to_string(),
        figures.proposals_failed.to_string(),
        figures.leader_changes.to_string(),
        figures.slow_applies.to_string(),
        figures.watchers.to_string(),
        figures.slow_watchers.to_string(),
        output::bytes(figures.db_live_bytes),
        output::bytes(figures.db_bytes_max),
    ]
}

/// `0.7/2.3 ms`
fn latencies(p50_us: Option<u64>, p99_us: Option<u64>) -> String {
    match p50_us.zip(p99_us) {
        Some((p50, p99)) => format!("{:.2}/{:.2} ms", p50 as f64 / 1e3, p99 as f64 / 1e3),
        None => "-".to_owned(),
    }
}
