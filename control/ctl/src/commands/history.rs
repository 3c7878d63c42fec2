//! `ctl history`: who changed which fields of an object when; without an object, what of the past is kept, and setting that.

use crate::cli::{History, Output};
use crate::context::{Context, Named};
use crate::{fields, output, past};
use anyhow::{Result, ensure};
use client::encode_segment;
use objects::past::{HistoryKeep, HistoryStatus, ObjectHistory, ObjectVersion};
use serde::Serialize;

pub async fn run(context: &Context, args: History) -> Result<()> {
    if args.keep.is_some() || args.keep_bytes.is_some() || args.what.is_empty() {
        ensure!(
            args.what.is_empty(),
            "--keep and --keep-bytes are for the whole cluster: leave the object out"
        );
        return kept(context, &args).await;
    }
    let mut all = Vec::new();
    for named in context.named_objects(&args.what).await? {
        let steps = steps(context, &named, args.limit).await?;
        match args.output.output {
            Output::Json | Output::Yaml => all.extend(steps),
            _ => steps.iter().for_each(print),
        }
    }
    match args.output.output {
        Output::Json => output::json(&all),
        Output::Yaml => output::yaml(&all),
        _ => Ok(()),
    }
}

/// Sets how much is kept, if that was said, and tells what is.
async fn kept(context: &Context, args: &History) -> Result<()> {
    let path = "/cluster/v1/history";
    let keep = HistoryKeep {
        seconds: args.keep.map(|keep| keep.as_secs()),
        bytes: args.keep_bytes,
    };
    let status: HistoryStatus = if keep == HistoryKeep::default() {
        context.client.get(path).await?
    } else {
        context.client.put(path, &keep).await?
    };
    match args.output.output {
        Output::Json => return output::json(&status),
        Output::Yaml => return output::yaml(&status),
        _ => {}
    }
    println!("{}", summary(&status));
    Ok(())
}

/// What is kept, in a line.
pub fn summary(status: &HistoryStatus) -> String {
    let mut bounds = Vec::new();
    bounds.extend(status.keep.seconds.map(output::duration));
    bounds.extend(status.keep.bytes.map(output::bytes));
    format!(
        "history from {} to {}, {}; kept for {}",
        past::describe(&status.oldest),
        past::describe(&status.newest),
        output::bytes(status.bytes),
        bounds.join(" or up to ")
    )
}

/// One change of an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    object: String,
    revision: u64,
    time: Option<String>,
    user: String,
    manager: String,
    action: String,
    /// `created`, `changed`, `deleted`, or `kept` for a version whose own change is forgotten.
    what: &'static str,
    changes: Vec<fields::Change>,
}

/// The changes of an object, the newest first, at most so many.
async fn steps(context: &Context, named: &Named, limit: usize) -> Result<Vec<Step>> {
    let mut versions: Vec<ObjectVersion> = Vec::new();
    let mut more = true;
    // One version more than is shown: the oldest one is shown as a change of the one before it.
    while more && versions.len() <= limit {
        let page = page(context, named, &versions, limit).await?;
        more = page.more && !page.versions.is_empty();
        versions.extend(page.versions);
    }
    let before = versions.iter().skip(1).map(Some).chain([None]);
    let steps = versions.iter().zip(before).take(limit);
    Ok(steps
        .map(|(version, before)| step(named, version, before))
        .collect())
}

async fn page(
    context: &Context,
    named: &Named,
    known: &[ObjectVersion],
    limit: usize,
) -> Result<ObjectHistory> {
    let resource = &named.resource;
    let mut query = format!(
        "group={}&resource={}&name={}&limit={}",
        encode_segment(&resource.group),
        encode_segment(&resource.plural),
        encode_segment(&named.name),
        limit.saturating_add(1).saturating_sub(known.len())
    );
    if resource.namespaced {
        query.push_str(&format!("&namespace={}", encode_segment(&named.namespace)));
    }
    if let Some(last) = known.last() {
        query.push_str(&format!("&before={}", last.revision));
    }
    let path = format!("/cluster/v1/history/object?{query}");
    Ok(context.client.get(&path).await?)
}

fn step(named: &Named, version: &ObjectVersion, before: Option<&ObjectVersion>) -> Step {
    let old = before.and_then(|before| before.object.as_ref());
    let (what, changes) = match (&version.object, old) {
        (None, _) => ("deleted", vec![]),
        (Some(new), Some(old)) => ("changed", fields::changes(old, new)),
        (Some(_), None) if version.created => ("created", vec![]),
        (Some(_), None) => ("kept", vec![]),
    };
    Step {
        object: named.display(),
        revision: version.revision,
        time: version.time.clone(),
        user: version.user.clone(),
        manager: version.manager.clone(),
        action: version.action.clone(),
        what,
        changes,
    }
}

fn print(step: &Step) {
    let time = step.time.as_deref().unwrap_or("just now");
    let mut line = format!("{time}  revision {}  {}", step.revision, step.what);
    if !step.user.is_empty() {
        line.push_str(&format!(" by {}", step.user));
    }
    if !step.manager.is_empty() {
        line.push_str(&format!(" through {}", step.manager));
    }
    if !step.action.is_empty() {
        line.push_str(&format!(" ({})", step.action));
    }
    println!("{}", output::strong(&line));
    for change in &step.changes {
        println!("    {}", fields::line(change));
    }
}
