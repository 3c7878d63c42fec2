//! `ctl rollout`: a Deployment on its way from one revision to the next. Texts and rules: kubectl's.

use crate::cli::{Output, Rollout};
use crate::context::{Context, Named};
use crate::failure::TimedOut;
use crate::follow::follow;
use crate::output;
use crate::selector;
use anyhow::{Result, bail, ensure};
use client::{PatchKind, encode_segment};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

pub async fn run(context: &Context, command: Rollout) -> Result<()> {
    match command {
        Rollout::Status { what, timeout } => {
            for named in deployments(context, &what).await? {
                status(context, &named, timeout).await?;
            }
        }
        Rollout::History { what, output } => {
            for named in deployments(context, &what).await? {
                history(context, &named, output.output).await?;
            }
        }
        Rollout::Undo { what, to_revision } => {
            for named in deployments(context, &what).await? {
                undo(context, &named, to_revision).await?;
            }
        }
        Rollout::Restart { what } => {
            let now = jiff::Timestamp::from_second(unix_seconds()?)?.to_string();
            let patch =
                json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
            change(context, &what, &patch, "restarted").await?;
        }
        Rollout::Pause { what } => {
            change(context, &what, &json!({"spec": {"paused": true}}), "paused").await?
        }
        Rollout::Resume { what } => {
            change(
                context,
                &what,
                &json!({"spec": {"paused": null}}),
                "resumed",
            )
            .await?
        }
    }
    Ok(())
}

async fn deployments(context: &Context, what: &[String]) -> Result<Vec<Named>> {
    let objects = context.named_objects(what).await?;
    for named in &objects {
        ensure!(
            named.resource.kind == "Deployment",
            "{} has no rollouts: only Deployments have",
            named.display()
        );
    }
    Ok(objects)
}

async fn change(context: &Context, what: &[String], patch: &Value, done: &str) -> Result<()> {
    for named in deployments(context, what).await? {
        let _changed: Value = context
            .client
            .patch(&named.path(), PatchKind::Merge, patch)
            .await?;
        println!("{} {done}", named.display());
    }
    Ok(())
}

async fn status(context: &Context, named: &Named, timeout: Duration) -> Result<()> {
    let mut told = String::new();
    let ended = follow(context, named, Instant::now() + timeout, |deployment| {
        let Some(deployment) = deployment else {
            return Some(Progress::Gone);
        };
        match progress(deployment) {
            Progress::Waiting(text) => {
                if text != told {
                    println!(
                        "Waiting for deployment {:?} rollout to finish: {text}...",
                        named.name
                    );
                    told = text;
                }
                None
            }
            end => Some(end),
        }
    });
    match ended.await? {
        Some(Progress::Done) => {
            println!("deployment {:?} successfully rolled out", named.name);
            Ok(())
        }
        Some(Progress::Failed) => {
            bail!("deployment {:?} exceeded its progress deadline", named.name)
        }
        Some(Progress::Gone) => bail!("there is no {} (any more)", named.display()),
        Some(Progress::Waiting(_)) | None => Err(TimedOut {
            what: format!("the rollout of {}", named.display()),
            seconds: timeout.as_secs(),
            hint: format!("`ctl explain {}` tells what holds it", named.display()),
        }
        .into()),
    }
}

enum Progress {
    Gone,
    Done,
    Failed,
    Waiting(String),
}

/// How far a rollout is: kubectl's `DeploymentStatusViewer`.
fn progress(deployment: &Value) -> Progress {
    let number = |path: &str| {
        deployment
            .pointer(path)
            .and_then(Value::as_i64)
            .unwrap_or(0)
    };
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Progress::Waiting("deployment spec update to be observed".to_owned());
    }
    let conditions = deployment["status"]["conditions"].as_array();
    let progressing = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Progressing");
    if progressing.is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
        return Progress::Failed;
    }
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let (updated, total, available) = (
        number("/status/updatedReplicas"),
        number("/status/replicas"),
        number("/status/availableReplicas"),
    );
    if updated < wanted {
        return Progress::Waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ));
    }
    if total > updated {
        return Progress::Waiting(format!(
            "{} old replicas are pending termination",
            total - updated
        ));
    }
    if available < updated {
        return Progress::Waiting(format!(
            "{available} of {updated} updated replicas are available"
        ));
    }
    Progress::Done
}

/// The Deployment and its ReplicaSets with their revisions, oldest first.
async fn revisions(context: &Context, named: &Named) -> Result<(Value, Vec<(i64, Value)>)> {
    let deployment: Value = context.client.get(&named.path()).await?;
    let sets = context.resources().await?.one("replicasets.apps")?.clone();
    let selector = encode_segment(&selector::of_object(&deployment).unwrap_or_default());
    let path = format!(
        "{}?labelSelector={selector}",
        sets.collection(Some(&named.namespace))
    );
    let list: Value = context.client.get(&path).await?;
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &&Value| {
        set["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|owner| &owner["uid"] == uid)
    };
    let mut sets: Vec<(i64, Value)> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(owned)
        .filter_map(|set| {
            Some((
                set["metadata"]["annotations"][REVISION]
                    .as_str()?
                    .parse()
                    .ok()?,
                set.clone(),
            ))
        })
        .collect();
    sets.sort_by_key(|(revision, _)| *revision);
    Ok((deployment, sets))
}

async fn history(context: &Context, named: &Named, how: Output) -> Result<()> {
    let (_, sets) = revisions(context, named).await?;
    let cause = |set: &Value| {
        set["metadata"]["annotations"][CHANGE_CAUSE]
            .as_str()
            .unwrap_or("<none>")
            .to_owned()
    };
    let images = |set: &Value| {
        let containers = set["spec"]["template"]["spec"]["containers"].as_array();
        containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["image"].as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    if how == Output::Json {
        let rows: Vec<Value> = sets
            .iter()
            .map(|(revision, set)| json!({"revision": revision, "changeCause": cause(set), "template": set["spec"]["template"]}))
            .collect();
        return output::json(&rows);
    }
    println!("{}", named.display());
    let rows = sets
        .iter()
        .map(|(revision, set)| vec![revision.to_string(), cause(set), images(set)])
        .collect();
    output::table(
        &["Revision", "Change-Cause", "Images"].map(str::to_owned),
        rows,
    );
    Ok(())
}

/// Puts the template of an earlier revision back.
async fn undo(context: &Context, named: &Named, to: Option<i64>) -> Result<()> {
    let (deployment, sets) = revisions(context, named).await?;
    ensure!(
        deployment["spec"]["paused"] != true,
        "{} is paused: resume it first",
        named.display()
    );
    let chosen = match to {
        Some(wanted) => sets.iter().find(|(revision, _)| *revision == wanted),
        None => sets.iter().rev().nth(1),
    };
    let Some((_, set)) = chosen else {
        let known: Vec<String> = sets
            .iter()
            .map(|(revision, _)| revision.to_string())
            .collect();
        bail!(
            "there is no such revision of {} to go back to; there is {}",
            named.display(),
            known.join(", ")
        );
    };
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": deployment["metadata"]["uid"]},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]);
    let _changed: Value = context
        .client
        .patch(&named.path(), PatchKind::Json, &patch)
        .await?;
    println!("{} rolled back", named.display());
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a restart is told by its time, and this is the shell"
)]
fn unix_seconds() -> Result<i64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_secs().try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_done_when_all_is_new_and_available() {
        let mut deployment = json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2},
        });
        assert!(
            matches!(progress(&deployment), Progress::Waiting(text) if text.contains("1 old replicas"))
        );
        deployment["status"]["replicas"] = json!(2);
        assert!(matches!(progress(&deployment), Progress::Done));
        deployment["metadata"]["generation"] = json!(3);
        assert!(
            matches!(progress(&deployment), Progress::Waiting(text) if text.contains("observed"))
        );
    }
}
