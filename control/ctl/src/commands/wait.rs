//! `ctl wait`: until objects have a condition, or are gone.

use super::delete::wait_gone;
use crate::cli::Wait;
use crate::context::{Asked, Context, Named};
use crate::failure::TimedOut;
use crate::follow::follow;
use anyhow::{Result, bail, ensure};
use client::encode_segment;
use serde_json::Value;
use tokio::time::Instant;

pub async fn run(context: &Context, args: Wait) -> Result<()> {
    let until = Instant::now() + args.timeout;
    let objects = chosen(context, &args).await?;
    ensure!(
        !objects.is_empty(),
        "there is no {} to wait for",
        args.what.join(" ")
    );
    for named in objects {
        if args.condition == "delete" {
            wait_gone(context, &named, "", until, args.timeout).await?;
        } else {
            wait_condition(context, &named, &args, until).await?;
        }
        println!("{} condition met", named.display());
    }
    Ok(())
}

async fn chosen(context: &Context, args: &Wait) -> Result<Vec<Named>> {
    let resources = match context.asked(&args.what).await? {
        Asked::Objects(objects) => return Ok(objects),
        Asked::Collections(resources) => resources,
    };
    ensure!(
        args.all || args.selector.is_some(),
        "name the objects, or choose them with -l, or say --all"
    );
    let mut objects = Vec::new();
    for resource in resources {
        let selector = encode_segment(args.selector.as_deref().unwrap_or(""));
        let list: Value = context
            .client
            .get(&format!(
                "{}?labelSelector={selector}",
                resource.collection(Some(&context.namespace))
            ))
            .await?;
        let names = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["metadata"]["name"].as_str());
        objects.extend(names.map(|name| Named {
            resource: resource.clone(),
            namespace: context.namespace.clone(),
            name: name.to_owned(),
        }));
    }
    Ok(objects)
}

async fn wait_condition(
    context: &Context,
    named: &Named,
    args: &Wait,
    until: Instant,
) -> Result<()> {
    let Some(wanted) = args.condition.strip_prefix("condition=") else {
        bail!(
            "--for {:?} is not known: it is condition=NAME[=VALUE] or delete",
            args.condition
        );
    };
    let (name, value) = wanted.split_once('=').unwrap_or((wanted, "True"));
    let has_it = |condition: &Value| {
        let matches = |field: &str, wanted: &str| {
            condition[field]
                .as_str()
                .is_some_and(|text| text.eq_ignore_ascii_case(wanted))
        };
        matches("type", name) && matches("status", value)
    };
    let met = follow(context, named, until, |object| {
        let conditions = object?["status"]["conditions"].as_array()?;
        conditions.iter().any(has_it).then_some(())
    });
    match met.await? {
        Some(()) => Ok(()),
        None => Err(TimedOut {
            what: format!("{name}={value} of {}", named.display()),
            seconds: args.timeout.as_secs(),
            hint: format!("`ctl explain {}` tells what holds it", named.display()),
        }
        .into()),
    }
}
