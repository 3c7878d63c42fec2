//! `ctl diff`: what was created, deleted and changed between two points in time.
//!
//! Both points are read as lists at an exact revision: first names and revisions alone, then whole only what differs.

use crate::cli::{Diff, Output};
use crate::context::{Asked, Context, Named};
use crate::fields::{self, Change};
use crate::resources::Resource;
use crate::{output, past};
use anyhow::Result;
use objects::past::Moment;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// What changes all the time and says little: told only when it is named.
const NOISE: [&str; 2] = ["events", "leases"];

/// An object that differs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    /// `created`, `deleted`, `changed`, or `replaced` by another of the same name.
    what: &'static str,
    changes: Vec<Change>,
}

pub async fn run(context: &Context, args: Diff) -> Result<()> {
    let since = past::moment(context, &args.since).await?;
    let until = match &args.until {
        Some(until) => past::moment(context, until).await?,
        None => past::moment(context, &past::At::Ago(std::time::Duration::ZERO)).await?,
    };
    let mut differences = Vec::new();
    for scope in scopes(context, &args).await? {
        differences.extend(compare(context, &scope, &since, &until).await?);
    }
    match args.output.output {
        Output::Json => return output::json(&differences),
        Output::Yaml => return output::yaml(&differences),
        _ => {}
    }
    eprintln!(
        "from {} to {}",
        past::describe(&since),
        past::describe(&until)
    );
    for difference in &differences {
        print(difference);
    }
    if differences.is_empty() {
        eprintln!("nothing changed");
    }
    Ok(())
}

/// What is compared: a collection in one namespace or in all, or one object.
struct Scope {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
}

async fn scopes(context: &Context, args: &Diff) -> Result<Vec<Scope>> {
    let collection = |resource: &Resource, namespace: Option<&str>| Scope {
        resource: resource.clone(),
        namespace: namespace.map(str::to_owned),
        name: None,
    };
    if args.what.is_empty() {
        // Everything, everywhere, unless a namespace was named.
        let namespace = context.given_namespace().filter(|_| !args.all_namespaces);
        let told = context.resources().await?.listable().filter(|resource| {
            let fits = namespace.is_none() || resource.namespaced;
            fits && !NOISE.contains(&resource.plural.as_str())
        });
        return Ok(told
            .map(|resource| collection(resource, namespace))
            .collect());
    }
    let namespace = (!args.all_namespaces).then_some(context.namespace.as_str());
    Ok(match context.asked(&args.what).await? {
        Asked::Collections(resources) => resources
            .iter()
            .map(|resource| collection(resource, namespace))
            .collect(),
        Asked::Objects(named) => named
            .into_iter()
            .map(|named| Scope {
                resource: named.resource,
                namespace: Some(named.namespace),
                name: Some(named.name),
            })
            .collect(),
    })
}

/// Namespace and name.
type Place = (String, String);

async fn compare(
    context: &Context,
    scope: &Scope,
    since: &Moment,
    until: &Moment,
) -> Result<Vec<Difference>> {
    let old = versions(context, scope, since).await?;
    let new = versions(context, scope, until).await?;
    let mut places: Vec<&Place> = old.keys().chain(new.keys()).collect();
    places.sort();
    places.dedup();
    let mut differences = Vec::new();
    for place in places {
        let (was, is) = (old.get(place), new.get(place));
        if was == is {
            continue;
        }
        let named = Named {
            resource: scope.resource.clone(),
            namespace: place.0.clone(),
            name: place.1.clone(),
        };
        let (what, changes) = match (was, is) {
            (None, _) => ("created", vec![]),
            (_, None) => ("deleted", vec![]),
            (Some(was), Some(is)) => {
                let old = past::object_at(context, &named, since.revision).await?;
                let new = past::object_at(context, &named, until.revision).await?;
                let changes = fields::changes(&old.unwrap_or_default(), &new.unwrap_or_default());
                let is_same = was.1 == is.1;
                (if is_same { "changed" } else { "replaced" }, changes)
            }
        };
        differences.push(Difference {
            object: named.display(),
            namespace: place.0.clone(),
            what,
            changes,
        });
    }
    Ok(differences)
}

/// Resource version and uid of each object, as it was.
async fn versions(
    context: &Context,
    scope: &Scope,
    moment: &Moment,
) -> Result<BTreeMap<Place, (String, String)>> {
    let base = match &scope.name {
        Some(name) => past::list_of_one(&Named {
            resource: scope.resource.clone(),
            namespace: scope.namespace.clone().unwrap_or_default(),
            name: name.clone(),
        }),
        None => format!(
            "{}?limit=500",
            scope.resource.collection(scope.namespace.as_deref())
        ),
    };
    let items = past::pages(context, &base, &past::exact(moment.revision), METADATA).await?;
    let text = |item: &Value, name: &str| item["metadata"][name].as_str().unwrap_or("").to_owned();
    Ok(items
        .iter()
        .map(|item| {
            let place = (text(item, "namespace"), text(item, "name"));
            (place, (text(item, "resourceVersion"), text(item, "uid")))
        })
        .collect())
}

fn print(difference: &Difference) {
    let place = match difference.namespace.as_str() {
        "" => String::new(),
        namespace => format!("  in {namespace}"),
    };
    println!(
        "{:8} {}{place}",
        difference.what,
        output::strong(&difference.object)
    );
    for change in &difference.changes {
        println!("    {}", fields::line(change));
    }
}
