//! `ctl apply`: creates what is absent and changes what differs.
//!
//! The method is kubectl's client-side apply, with its annotation, so that both may be used on one object: what the last
//! application set and this one does not is removed; what others set stays. The patch is a JSON merge patch, which replaces a
//! list as a whole; the server's defaulting completes it again.

use crate::cli::{Apply, Output};
use crate::context::Context;
use crate::manifest::{self, Document};
use crate::{output, short};
use anyhow::{Result, ensure};
use client::PatchKind;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const QUERY: &str = "fieldManager=ctl-apply&fieldValidation=Strict";

/// Applies every document; those that fail are told at the end, and the others are applied all the same.
pub async fn run(context: &Context, args: Apply) -> Result<ExitCode> {
    let documents = manifest::read(&args.files)?;
    let mut failed = 0;
    let mut results = Vec::new();
    for document in &documents {
        match apply(context, document, &args).await {
            Ok(object) => results.push(object),
            Err(error) => {
                failed += 1;
                eprintln!("error: {}: {error:#}", document.origin);
            }
        }
    }
    match args.output {
        Some(Output::Json) => output::json(
            &json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": results}),
        )?,
        Some(Output::Yaml) => results.iter().try_for_each(|object| {
            println!("---");
            output::yaml(object)
        })?,
        _ => {}
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn apply(context: &Context, document: &Document, args: &Apply) -> Result<Value> {
    let (mut wanted, assumed) = short::expand(document.object.clone());
    if !assumed.is_empty() {
        tell_assumptions(&document.origin, &wanted, &assumed)?;
    }
    let resource = context.resources().await?.of_object(&wanted)?.clone();
    let name = wanted["metadata"]["name"].as_str().unwrap_or("").to_owned();
    ensure!(
        !name.is_empty(),
        "metadata.name is missing: apply needs to know which object it is"
    );
    let namespace = wanted["metadata"]["namespace"]
        .as_str()
        .unwrap_or(&context.namespace)
        .to_owned();
    if resource.namespaced {
        wanted["metadata"]["namespace"] = json!(namespace);
    }
    let configuration = serde_json::to_string(&wanted)?;
    wanted["metadata"]["annotations"][LAST_APPLIED] = json!(configuration);

    let query = if args.dry_run {
        format!("{QUERY}&dryRun=All")
    } else {
        QUERY.to_owned()
    };
    let path = resource.object(&namespace, &name);
    let live: Value = match context.client.get(&path).await {
        Ok(live) => live,
        Err(error) if error.is_code(404) => {
            let collection = resource.collection(Some(&namespace));
            let created = context
                .client
                .post(&format!("{collection}?{query}"), &wanted)
                .await?;
            tell(&resource.named(&name), "created", args);
            return Ok(created);
        }
        Err(error) => return Err(error.into()),
    };
    let patch = three_way(&last_applied(&live), &wanted, &live);
    if only_annotation(&patch) {
        tell(&resource.named(&name), "unchanged", args);
        return Ok(live);
    }
    let changed: Value = context
        .client
        .patch(&format!("{path}?{query}"), PatchKind::Merge, &patch)
        .await?;
    let unchanged = spec_of(&changed) == spec_of(&live);
    tell(
        &resource.named(&name),
        if unchanged { "unchanged" } else { "configured" },
        args,
    );
    Ok(changed)
}

/// What the short form stands for, on standard error, so that standard output stays as for a full manifest.
fn tell_assumptions(origin: &str, object: &Value, assumed: &[String]) -> Result<()> {
    eprintln!("{origin} is a short manifest. It stands for:\n");
    output::yaml_text(object)?
        .lines()
        .for_each(|line| eprintln!("  {line}"));
    eprintln!("\nassumed:");
    assumed
        .iter()
        .for_each(|assumption| eprintln!("  - {assumption}"));
    eprintln!();
    Ok(())
}

fn tell(what: &str, how: &str, args: &Apply) {
    let dry = if args.dry_run {
        " (server dry run)"
    } else {
        ""
    };
    match args.output {
        Some(Output::Json | Output::Yaml) => {}
        Some(Output::Name) => println!("{what}"),
        _ => println!("{what} {how}{dry}"),
    }
}

fn last_applied(live: &Value) -> Value {
    let text = live["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .unwrap_or("");
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// What a person wants of an object: all but what the server keeps and the annotation of applying.
fn spec_of(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        ["resourceVersion", "generation", "managedFields"]
            .iter()
            .for_each(|field| drop(metadata.remove(*field)));
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

fn only_annotation(patch: &Value) -> bool {
    let Some(map) = patch.as_object() else {
        return false;
    };
    let annotation_only = |metadata: &Value| {
        metadata.as_object().is_some_and(|metadata| {
            metadata.iter().all(|(field, value)| {
                field == "annotations"
                    && value
                        .as_object()
                        .is_some_and(|map| map.keys().all(|key| key == LAST_APPLIED))
            })
        })
    };
    map.iter()
        .all(|(field, value)| field == "metadata" && annotation_only(value))
}

/// A merge patch that takes `live` to `wanted`, and removes what `before` had and `wanted` has not.
fn three_way(before: &Value, wanted: &Value, live: &Value) -> Value {
    let empty = Map::new();
    let (before, live) = (
        before.as_object().unwrap_or(&empty),
        live.as_object().unwrap_or(&empty),
    );
    let mut patch = Map::new();
    for (field, value) in wanted.as_object().unwrap_or(&empty) {
        let (was, is) = (
            before.get(field).unwrap_or(&Value::Null),
            live.get(field).unwrap_or(&Value::Null),
        );
        if value.is_object() && is.is_object() {
            let inner = three_way(was, value, is);
            if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                patch.insert(field.clone(), inner);
            }
        } else if value != is && !(covers(is, value) && (was == value || was.is_null())) {
            patch.insert(field.clone(), value.clone());
        }
    }
    for field in before
        .keys()
        .filter(|field| wanted.get(field.as_str()).is_none() && live.contains_key(*field))
    {
        patch.insert(field.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Whether `live` is `wanted` completed by defaults: then there is nothing to change.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live
                    .iter()
                    .zip(wanted)
                    .all(|(live, wanted)| covers(live, wanted))
        }
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(field, value)| live.get(field).is_some_and(|live| covers(live, value))),
        _ => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_what_it_once_set() {
        let before = json!({"spec": {"replicas": 3, "paused": true}});
        let wanted = json!({"spec": {"replicas": 4}});
        let live =
            json!({"spec": {"replicas": 3, "paused": true, "strategy": {"type": "Recreate"}}});
        assert_eq!(
            three_way(&before, &wanted, &live),
            json!({"spec": {"replicas": 4, "paused": null}})
        );
    }

    #[test]
    fn defaults_in_lists_are_no_difference() {
        let wanted = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        let live = json!({"spec": {"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}]}});
        assert_eq!(three_way(&wanted, &wanted, &live), json!({}));
        let newer = json!({"spec": {"containers": [{"name": "a", "image": "y"}]}});
        assert_eq!(three_way(&wanted, &newer, &live), newer);
    }

    #[test]
    fn a_field_removed_inside_a_list_is_removed() {
        let before = json!({"spec": {"containers": [{"name": "a", "env": []}]}});
        let wanted = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(three_way(&before, &wanted, &before), wanted);
    }
}
