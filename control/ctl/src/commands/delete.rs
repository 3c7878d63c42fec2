//! `ctl delete`: deletes objects and waits until they are gone.

use crate::cli::Delete;
use crate::context::{Asked, Context, Named};
use crate::failure::TimedOut;
use crate::follow::follow;
use crate::manifest;
use crate::short;
use anyhow::{Result, ensure};
use client::encode_segment;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

pub async fn run(context: &Context, args: Delete) -> Result<()> {
    let objects = chosen(context, &args).await?;
    let mut deleted = Vec::new();
    for named in objects {
        match context.client.delete(&named.path(), &options(&args)).await {
            Ok(answer) => {
                println!("{} deleted", named.display());
                deleted.push((named, uid_of(&answer)));
            }
            Err(error) if error.is_code(404) && args.ignore_not_found => {}
            Err(error) => return Err(error.into()),
        }
    }
    if args.no_wait {
        return Ok(());
    }
    let until = Instant::now() + args.timeout;
    for (named, uid) in deleted {
        wait_gone(context, &named, &uid, until, args.timeout).await?;
    }
    Ok(())
}

fn options(args: &Delete) -> Value {
    let policy = match args.cascade.as_str() {
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        _ => "Background",
    };
    let mut options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if let Some(seconds) = args.grace_period {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    options
}

/// What is to be deleted, from the files, the names or the selector.
async fn chosen(context: &Context, args: &Delete) -> Result<Vec<Named>> {
    if !args.files.filename.is_empty() {
        ensure!(args.what.is_empty(), "give either files or types and names");
        return from_files(context, args).await;
    }
    ensure!(
        !args.what.is_empty(),
        "name what to delete, as in: ctl delete pod/web, or a file with -f"
    );
    match context.asked(&args.what).await? {
        Asked::Objects(objects) => Ok(objects),
        Asked::Collections(resources) => {
            ensure!(
                args.all || args.selector.is_some(),
                "name the objects, or choose them with -l, or say --all"
            );
            let mut objects = Vec::new();
            for resource in resources {
                let selector = encode_segment(args.selector.as_deref().unwrap_or(""));
                let path = format!(
                    "{}?labelSelector={selector}",
                    resource.collection(Some(&context.namespace))
                );
                let list: Value = context.client.get(&path).await?;
                let names = list["items"].as_array().into_iter().flatten();
                objects.extend(
                    names
                        .filter_map(|item| item["metadata"]["name"].as_str())
                        .map(|name| Named {
                            resource: resource.clone(),
                            namespace: context.namespace.clone(),
                            name: name.to_owned(),
                        }),
                );
            }
            Ok(objects)
        }
    }
}

async fn from_files(context: &Context, args: &Delete) -> Result<Vec<Named>> {
    let mut objects = Vec::new();
    for document in manifest::read(&args.files)?.into_iter().rev() {
        let (object, _) = short::expand(document.object);
        let resource = context.resources().await?.of_object(&object)?.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        ensure!(
            !name.is_empty(),
            "{}: metadata.name is missing",
            document.origin
        );
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or(&context.namespace)
            .to_owned();
        objects.push(Named {
            resource,
            namespace,
            name,
        });
    }
    Ok(objects)
}

/// The object's own uid, or that in the details of a Status.
fn uid_of(answer: &Value) -> String {
    let uid = answer["metadata"]["uid"]
        .as_str()
        .or_else(|| answer["details"]["uid"].as_str());
    uid.unwrap_or("").to_owned()
}

/// Waits until the object, or at least the one with this uid, is gone.
pub async fn wait_gone(
    context: &Context,
    named: &Named,
    uid: &str,
    until: Instant,
    timeout: Duration,
) -> Result<()> {
    let is_gone = |object: Option<&Value>| {
        let is_another = |object: &Value| !uid.is_empty() && object["metadata"]["uid"] != uid;
        object.is_none_or(is_another).then_some(())
    };
    match follow(context, named, until, is_gone).await? {
        Some(()) => Ok(()),
        None => Err(TimedOut {
            what: format!("the end of {}", named.display()),
            seconds: timeout.as_secs(),
            hint: format!(
                "`ctl describe {}` tells which finalizers hold it",
                named.display()
            ),
        }
        .into()),
    }
}
