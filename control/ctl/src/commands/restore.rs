//! `ctl restore`: writes objects back as they were, through the server's normal write path.
//!
//! An object that exists is updated: it keeps its uid, and the server refuses what may not change. One that is gone is created
//! anew, without what only a server sets and without owners that are gone: the garbage collector would take it away again. A
//! namespace is restored with what lay in it and no controller owns, since controllers make theirs anew; what came to be since
//! stays.

use crate::cli::Restore;
use crate::context::{Context, Named};
use crate::resources::Resource;
use crate::{fields, past};
use anyhow::{Context as _, Result, bail};
use objects::past::Moment;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What no restore of a namespace brings back: it was true only then.
const PASSING: [&str; 3] = ["events", "leases", "endpointslices"];
/// What others need comes first.
const FIRST: [&str; 4] = ["serviceaccounts", "configmaps", "secrets", "services"];
const SERVER_SET: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Restores all that was named; those that fail are told at the end, and the others are restored all the same.
pub async fn run(context: &Context, args: Restore) -> Result<ExitCode> {
    let named = context.named_objects(&args.what).await?;
    let moment = past::moment(context, &args.at).await?;
    let mut failed = 0;
    for named in named {
        let is_namespace = named.resource.plural == "namespaces" && named.resource.group.is_empty();
        for named in with_content(context, named, is_namespace, &moment).await? {
            if let Err(error) = restore(context, &named, &moment, args.dry_run).await {
                failed += 1;
                eprintln!("error: {}: {error:#}", named.display());
            }
        }
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The object; for a namespace also what lay in it.
async fn with_content(
    context: &Context,
    named: Named,
    is_namespace: bool,
    moment: &Moment,
) -> Result<Vec<Named>> {
    if !is_namespace {
        return Ok(vec![named]);
    }
    let mut resources: Vec<&Resource> = context
        .resources()
        .await?
        .listable()
        .filter(|resource| resource.namespaced && !PASSING.contains(&resource.plural.as_str()))
        .collect();
    let rank = |resource: &Resource| FIRST.iter().position(|first| *first == resource.plural);
    resources.sort_by_key(|resource| rank(resource).unwrap_or(FIRST.len()));
    let namespace = named.name.clone();
    let mut all = vec![named];
    for resource in resources {
        let base = format!("{}?limit=500", resource.collection(Some(&namespace)));
        let version = past::exact(moment.revision);
        let items = past::pages(context, &base, &version, "application/json").await?;
        let own = items.iter().filter(|item| !is_controlled(item));
        all.extend(own.map(|item| past::named(resource, item)));
    }
    Ok(all)
}

fn is_controlled(item: &Value) -> bool {
    let owners = item["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .any(|owner| owner["controller"] == true)
}

async fn restore(context: &Context, named: &Named, moment: &Moment, dry_run: bool) -> Result<()> {
    let Some(old) = past::object_at(context, named, moment.revision).await? else {
        return Err(past::absent(named, moment).into());
    };
    let query = match dry_run {
        true => "?fieldManager=ctl-restore&dryRun=All",
        false => "?fieldManager=ctl-restore",
    };
    let what = match now(context, named).await? {
        Some(now) => update(context, named, old, &now, query).await?,
        None => match create(context, named, old.clone(), query).await? {
            Some(what) => what,
            None => {
                let now = now(context, named).await?;
                let now = now.context("it came and went again while it was restored")?;
                update(context, named, old, &now, query).await?
            }
        },
    };
    let dry = if dry_run { " (dry run)" } else { "" };
    println!(
        "{} {what} as of {}{dry}",
        named.display(),
        past::describe(moment)
    );
    Ok(())
}

async fn now(context: &Context, named: &Named) -> Result<Option<Value>> {
    match context.client.get(&named.path()).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_code(404) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn update(
    context: &Context,
    named: &Named,
    mut old: Value,
    now: &Value,
    query: &str,
) -> Result<&'static str> {
    if !now["metadata"]["deletionTimestamp"].is_null() {
        bail!("it is being deleted; restore it when it is gone");
    }
    // Who changes it meanwhile is not overwritten: the server answers with a conflict.
    for field in ["uid", "resourceVersion"] {
        old["metadata"][field] = now["metadata"][field].clone();
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        remove(&mut old["metadata"], field);
    }
    let path = format!("{}{query}", named.path());
    let restored: Value = context.client.put(&path, &old).await?;
    let changes = fields::changes(now, &restored);
    if changes.is_empty() {
        return Ok("is unchanged: it is");
    }
    for change in &changes {
        println!("    {}", fields::line(change));
    }
    Ok("restored")
}

/// None where a controller was faster, as with each namespace's service account.
async fn create(
    context: &Context,
    named: &Named,
    mut old: Value,
    query: &str,
) -> Result<Option<&'static str>> {
    for field in SERVER_SET {
        remove(&mut old["metadata"], field);
    }
    remove(&mut old, "status");
    if named.resource.plural == "pods" {
        // The scheduler decides anew: the node may be gone, or full.
        remove(&mut old["spec"], "nodeName");
    }
    keep_living_owners(context, named, &mut old).await?;
    let collection = named.resource.collection(Some(&named.namespace));
    let path = format!("{collection}{query}");
    let created: Value = match context.client.post(&path, &old).await {
        Err(error) if error.is_code(409) => return Ok(None),
        created => created.context("it is gone and could not be created again")?,
    };
    let uid = created["metadata"]["uid"].as_str().unwrap_or("");
    println!("    created again with the new uid {uid}");
    Ok(Some("restored"))
}

/// Leaves out the owners that are gone.
async fn keep_living_owners(context: &Context, named: &Named, old: &mut Value) -> Result<()> {
    let owners = old["metadata"]["ownerReferences"].take();
    let mut living = Vec::new();
    for owner in owners.as_array().into_iter().flatten() {
        let name = owner["name"].as_str().unwrap_or("");
        let object = json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"]});
        let resource = context.resources().await?.of_object(&object)?;
        let found = context
            .client
            .get::<Value>(&resource.object(&named.namespace, name))
            .await;
        match found {
            Ok(found) if found["metadata"]["uid"] == owner["uid"] => living.push(owner.clone()),
            Ok(_) => println!("    without its owner {name}, which is another one now"),
            Err(error) if error.is_code(404) => {
                println!("    without its owner {name}, which is gone");
            }
            Err(error) => return Err(error.into()),
        }
    }
    match living.is_empty() {
        true => remove(&mut old["metadata"], "ownerReferences"),
        false => old["metadata"]["ownerReferences"] = Value::Array(living),
    }
    Ok(())
}

fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(field);
    }
}
