//! `ctl snapshot schedule`: snapshots by themselves.

use super::snapshot::{mebibytes, read_passphrase, read_public_key};
use crate::cli::{Output, Schedule, Set};
use crate::context::Context;
use crate::failure::TimedOut;
use crate::output;
use anyhow::{Context as _, Result, bail};
use client::{Deadline, Error, Payload, encode_segment};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use objects::Secret;
use objects::snapshots::{
    S3Target, SnapshotPhase, SnapshotProgress, SnapshotRequested, SnapshotRun, SnapshotSchedule,
    SnapshotScheduleList, SnapshotSchedulePut, SnapshotScheduleStatus, SnapshotSeal,
    SnapshotTarget,
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const SCHEDULES: &str = "/cluster/v1/snapshots/schedules";
/// A run is looked at so often while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub async fn run(context: &Context, command: Schedule) -> Result<()> {
    match command {
        Schedule::Set(args) => set(context, &args).await,
        Schedule::Get { name, output } => {
            let status: SnapshotScheduleStatus = context.client.get(&path_of(&name)).await?;
            match output.output {
                Output::Json => output::json(&status),
                Output::Yaml => output::yaml(&status),
                _ => {
                    print(&status);
                    Ok(())
                }
            }
        }
        Schedule::List(args) => {
            let list: SnapshotScheduleList = context.client.get(SCHEDULES).await?;
            match args.output {
                Output::Json => output::json(&list),
                Output::Yaml => output::yaml(&list),
                _ => {
                    let headers = [
                        "Name", "When", "Keep", "Where", "Verify", "Next", "Last", "Result",
                    ];
                    let rows = list.schedules.iter().map(row).collect();
                    output::table(&headers.map(str::to_owned), rows);
                    Ok(())
                }
            }
        }
        Schedule::Run {
            name,
            no_wait,
            timeout,
            output,
        } => run_now(context, &name, no_wait, timeout, output.output).await,
        Schedule::Remove { name } => {
            let _done: Value = context
                .client
                .call(
                    Method::DELETE,
                    &path_of(&name),
                    Payload::Empty,
                    Deadline::default(),
                )
                .await?;
            println!("schedule {name} removed; the snapshots that it made stay");
            Ok(())
        }
    }
}

async fn set(context: &Context, args: &Set) -> Result<()> {
    let path = path_of(&args.name);
    let before = match context.client.get::<SnapshotScheduleStatus>(&path).await {
        Ok(status) => Some(status.schedule),
        Err(Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(error.into()),
    };
    let put = wanted(args, before)?;
    let status: SnapshotScheduleStatus = context
        .client
        .call(Method::PUT, &path, Payload::json(&put), Deadline::default())
        .await?;
    match args.output.output {
        Output::Json => output::json(&status),
        Output::Yaml => output::yaml(&status),
        _ => {
            let next = status
                .next
                .map_or("never".to_owned(), |next| next.to_string());
            println!(
                "schedule {} set; next {next}, to {}",
                args.name,
                status.schedule.target.place()
            );
            Ok(())
        }
    }
}

/// What was given, over what was there before.
fn wanted(args: &Set, before: Option<SnapshotSchedule>) -> Result<SnapshotSchedulePut> {
    let is_new = before.is_none();
    let target = target(args, before.as_ref().map(|before| &before.target))?;
    let mut schedule = before.unwrap_or_else(|| SnapshotSchedule {
        name: args.name.clone(),
        every_seconds: None,
        at: Vec::new(),
        keep_last: None,
        keep_days: None,
        target: target.clone(),
        verify: false,
        seal: SnapshotSeal::LeftOut,
    });
    schedule.target = target;
    if args.every.is_some() || !args.at.is_empty() {
        schedule.every_seconds = args.every.map(|every| every.as_secs());
        schedule.at.clone_from(&args.at);
    }
    if args.keep_last.is_some() || args.keep_days.is_some() {
        (schedule.keep_last, schedule.keep_days) = (args.keep_last, args.keep_days);
    }
    schedule.verify = args.verify.unwrap_or(schedule.verify);
    let mut passphrase = None;
    if let Some(file) = &args.passphrase_file {
        passphrase = Some(Secret(read_passphrase(file)?));
    } else if let Some(file) = &args.key_file {
        schedule.seal = SnapshotSeal::KeyFile {
            public_key: read_public_key(file)?,
        };
    } else if args.no_keys {
        schedule.seal = SnapshotSeal::LeftOut;
    } else if is_new {
        bail!(
            "say for whom the cluster's keys are sealed: --passphrase-file, --key-file (ctl snapshot keygen makes one), or --no-keys"
        );
    }
    Ok(SnapshotSchedulePut {
        schedule,
        passphrase,
    })
}

fn target(args: &Set, before: Option<&SnapshotTarget>) -> Result<SnapshotTarget> {
    if let Some(path) = &args.folder {
        return Ok(SnapshotTarget::Folder { path: path.clone() });
    }
    let Some(bucket) = &args.s3_bucket else {
        return before
            .cloned()
            .context("say where the snapshots go: --folder DIR, or --s3-bucket NAME");
    };
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let secret = args.s3_secret_file.as_ref().map(read).transpose()?;
    Ok(SnapshotTarget::S3(S3Target {
        bucket: bucket.clone(),
        prefix: args.s3_prefix.clone().unwrap_or_default(),
        endpoint: args.s3_endpoint.clone(),
        region: args.s3_region.clone(),
        virtual_hosted: args.s3_virtual_hosted,
        ca_pem: args.s3_ca_file.as_ref().map(read).transpose()?,
        access_key_id: args.s3_access_key.clone(),
        secret_access_key: secret.map(|secret| Secret(secret.trim().to_owned())),
    }))
}

async fn run_now(
    context: &Context,
    name: &str,
    no_wait: bool,
    limit: Duration,
    output: Output,
) -> Result<()> {
    let path = path_of(name);
    let requested: SnapshotRequested = context
        .client
        .call(
            Method::POST,
            &format!("{path}/run"),
            Payload::Empty,
            Deadline::default(),
        )
        .await?;
    if no_wait {
        println!(
            "schedule {name} runs for {}; ctl snapshot schedule get {name} tells how it goes",
            requested.due
        );
        return Ok(());
    }
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let until = Instant::now() + limit;
    let run = loop {
        let status: SnapshotScheduleStatus = context.client.get(&path).await?;
        if let Some(run) = status.last.filter(|run| run.due == requested.due) {
            break run;
        }
        bar.set_message(
            status
                .running
                .as_ref()
                .map_or("waiting".to_owned(), progress),
        );
        if Instant::now() >= until {
            bar.finish_and_clear();
            return Err(TimedOut {
                what: format!("the end of the run of {name}"),
                seconds: limit.as_secs(),
                hint: format!("it goes on; ctl snapshot schedule get {name} tells how"),
            }
            .into());
        }
        bar.tick();
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    match (&run.saved, &run.error) {
        (Some(_), _) if output == Output::Json => output::json(&run),
        (Some(saved), _) => {
            println!(
                "saved {}/{} ({} bytes, revision {}{})",
                saved.place,
                saved.name,
                saved.bytes,
                saved.revision,
                if saved.verified { ", verified" } else { "" }
            );
            Ok(())
        }
        (None, error) => bail!(
            "the run on {} failed: {}",
            run.by,
            error.as_deref().unwrap_or("it does not say why")
        ),
    }
}

fn path_of(name: &str) -> String {
    format!("{SCHEDULES}/{}", encode_segment(name))
}

fn when(schedule: &SnapshotSchedule) -> String {
    let every = schedule.every_seconds.map(|seconds| match seconds {
        _ if seconds % 86_400 == 0 => format!("every {}d", seconds / 86_400),
        _ if seconds % 3600 == 0 => format!("every {}h", seconds / 3600),
        _ if seconds % 60 == 0 => format!("every {}m", seconds / 60),
        _ => format!("every {seconds}s"),
    });
    let at = (!schedule.at.is_empty()).then(|| format!("at {} UTC", schedule.at.join(",")));
    every
        .into_iter()
        .chain(at)
        .collect::<Vec<_>>()
        .join(" and ")
}

fn keep(schedule: &SnapshotSchedule) -> String {
    match (schedule.keep_last, schedule.keep_days) {
        (Some(last), Some(days)) => format!("last {last} and {days} days"),
        (Some(last), None) => format!("last {last}"),
        (None, Some(days)) => format!("{days} days"),
        (None, None) => "last 7".to_owned(),
    }
}

fn progress(running: &SnapshotProgress) -> String {
    let phase = match running.phase {
        SnapshotPhase::Saving => "saving",
        SnapshotPhase::Verifying => "verifying",
    };
    format!("{phase} on {}, {}", running.by, mebibytes(running.bytes))
}

fn result(status: &SnapshotScheduleStatus) -> String {
    match (&status.running, &status.last) {
        (Some(running), _) => progress(running),
        (
            None,
            Some(SnapshotRun {
                error: Some(error), ..
            }),
        ) => format!("failed: {error}"),
        (None, Some(_)) => "good".to_owned(),
        (None, None) => String::new(),
    }
}

fn row(status: &SnapshotScheduleStatus) -> Vec<String> {
    let schedule = &status.schedule;
    vec![
        schedule.name.clone(),
        when(schedule),
        keep(schedule),
        schedule.target.place(),
        if schedule.verify { "yes" } else { "no" }.to_owned(),
        status.next.map(|next| next.to_string()).unwrap_or_default(),
        status
            .last
            .as_ref()
            .map(|run| run.ended.to_string())
            .unwrap_or_default(),
        result(status),
    ]
}

fn print(status: &SnapshotScheduleStatus) {
    let schedule = &status.schedule;
    let on = match &schedule.target {
        SnapshotTarget::Folder { .. } => " on the master that leads",
        SnapshotTarget::S3(_) => "",
    };
    let keys = match &schedule.seal {
        SnapshotSeal::LeftOut => "left out: no cluster can be restored from these",
        SnapshotSeal::KeyFile { .. } => "sealed for a key file",
        SnapshotSeal::Passphrase { .. } => "sealed under a passphrase",
    };
    println!("schedule      {}", schedule.name);
    println!("when          {}", when(schedule));
    println!("keeps         {}", keep(schedule));
    println!("where         {}{on}", schedule.target.place());
    println!(
        "verified      {}",
        if schedule.verify {
            "after each save"
        } else {
            "no"
        }
    );
    println!("keys          {keys}");
    if let Some(next) = status.next {
        println!("next          {next}");
    }
    if let Some(running) = &status.running {
        println!(
            "running       since {}: {}",
            running.started,
            progress(running)
        );
    }
    for (what, run) in [("last", &status.last), ("last good", &status.last_success)] {
        match run {
            Some(SnapshotRun {
                saved: Some(saved),
                ended,
                by,
                ..
            }) => println!(
                "{what:<13} {ended} on {by}: {} ({}, revision {})",
                saved.name,
                mebibytes(saved.bytes),
                saved.revision
            ),
            Some(SnapshotRun {
                error, ended, by, ..
            }) => println!(
                "{what:<13} {ended} on {by}: failed: {}",
                error.as_deref().unwrap_or_default()
            ),
            None => println!("{what:<13} none"),
        }
    }
    if status.failures > 0 {
        println!("failures      {} since the last good one", status.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Snapshot};
    use clap::Parser;

    fn given(words: &str) -> Box<Set> {
        let words = format!("ctl snapshot schedule set nightly {words}");
        match Cli::parse_from(words.split_whitespace()).command {
            Command::Snapshot(Snapshot::Schedule(Schedule::Set(args))) => args,
            _ => unreachable!("these words set a schedule"),
        }
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        let made = wanted(
            &given("--at 03:00 --folder /b --no-keys --keep-last 3"),
            None,
        )
        .expect("complete");
        assert_eq!(
            (when(&made.schedule).as_str(), keep(&made.schedule).as_str()),
            ("at 03:00 UTC", "last 3")
        );
        let changed =
            wanted(&given("--every 6h --verify"), Some(made.schedule.clone())).expect("complete");
        assert_eq!(
            when(&changed.schedule),
            "every 6h",
            "the times are one setting"
        );
        assert!(changed.schedule.verify && !made.schedule.verify);
        assert_eq!(changed.schedule.target, made.schedule.target);
        let again = wanted(&given("--verify=false"), Some(changed.schedule)).expect("complete");
        assert!(!again.schedule.verify);
    }

    #[test]
    fn what_is_missing_is_told() {
        let told = |words: &str| {
            wanted(&given(words), None)
                .expect_err("incomplete")
                .to_string()
        };
        assert!(told("--every 6h --no-keys").contains("--folder"));
        assert!(told("--every 6h --folder /b").contains("--key-file"));
    }
}
