//! `ctl get`: objects as the server tabulates them, or whole.

use crate::cli::{Get, Objects, Output};
use crate::context::{Asked, Context};
use crate::resources::Resource;
use crate::{output, past};
use anyhow::{Result, bail};
use client::encode_segment;
use futures::StreamExt;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub async fn run(context: &Context, args: Get) -> Result<()> {
    let asked = context.asked(&args.objects.what).await?;
    if args.watch {
        return watch(context, &args, &asked).await;
    }
    let moment = match &args.at {
        Some(at) => Some(past::moment(context, at).await?),
        None => None,
    };
    let paths = match (&moment, &asked) {
        (Some(moment), Asked::Objects(named)) => {
            for named in named {
                if past::object_at(context, named, moment.revision)
                    .await?
                    .is_none()
                {
                    return Err(past::absent(named, moment).into());
                }
            }
            paths_at(context, &args.objects, &asked, moment.revision)
        }
        (Some(moment), _) => paths_at(context, &args.objects, &asked, moment.revision),
        (None, _) => paths(context, &args.objects, &asked),
    };
    match args.output.output {
        Output::Table | Output::Wide => tables(context, &paths, &args).await,
        Output::Json | Output::Yaml | Output::Name => whole(context, &paths, &args, &asked).await,
    }
}

/// What to ask for a resource's objects.
struct Ask {
    resource: Resource,
    /// What the first page is asked by.
    first: String,
    /// What the next ones are: a page that goes on knows its revision.
    base: String,
}

/// The paths to ask.
fn paths(context: &Context, objects: &Objects, asked: &Asked) -> Vec<Ask> {
    let ask = |resource: &Resource, path: String| Ask {
        resource: resource.clone(),
        first: path.clone(),
        base: path,
    };
    match asked {
        Asked::Objects(named) => named
            .iter()
            .map(|named| ask(&named.resource, named.path()))
            .collect(),
        Asked::Collections(resources) => resources
            .iter()
            .map(|resource| ask(resource, collection_path(context, objects, resource)))
            .collect(),
    }
}

/// The paths to ask for what was at a revision: only lists can be asked so.
fn paths_at(context: &Context, objects: &Objects, asked: &Asked, revision: u64) -> Vec<Ask> {
    let ask = |resource: &Resource, base: String| Ask {
        resource: resource.clone(),
        first: format!("{base}&{}", past::exact(revision)),
        base,
    };
    match asked {
        Asked::Objects(named) => named
            .iter()
            .map(|named| ask(&named.resource, past::list_of_one(named)))
            .collect(),
        Asked::Collections(resources) => resources
            .iter()
            .map(|resource| ask(resource, collection_path(context, objects, resource)))
            .collect(),
    }
}

/// The path of a collection with the selectors of `objects`.
pub fn collection_path(context: &Context, objects: &Objects, resource: &Resource) -> String {
    let namespace = (!objects.all_namespaces).then_some(context.namespace.as_str());
    let mut query = vec!["limit=500".to_owned()];
    query.extend(
        objects
            .selector
            .iter()
            .map(|text| format!("labelSelector={}", encode_segment(text))),
    );
    query.extend(
        objects
            .field_selector
            .iter()
            .map(|text| format!("fieldSelector={}", encode_segment(text))),
    );
    format!("{}?{}", resource.collection(namespace), query.join("&"))
}

async fn tables(context: &Context, asks: &[Ask], args: &Get) -> Result<()> {
    let wide = args.output.output == Output::Wide;
    let mut shown: Vec<(Resource, Vec<String>, Vec<Vec<String>>)> = Vec::new();
    for Ask {
        resource,
        first,
        base,
    } in asks
    {
        let mut next = first.clone();
        loop {
            let answer: Value = context.client.get_accepting(&next, TABLE).await?;
            let (mut headers, mut rows) = output::server_table(&answer, wide);
            add_columns(args, resource, &answer, &mut headers, &mut rows);
            match shown.last_mut() {
                Some((last, _, all)) if *last == *resource => all.extend(rows),
                _ => shown.push((resource.clone(), headers, rows)),
            }
            match answer["metadata"]["continue"]
                .as_str()
                .filter(|token| !token.is_empty())
            {
                Some(token) => next = format!("{base}&continue={}", encode_segment(token)),
                None => break,
            }
        }
    }
    let several = shown.len() > 1;
    let filled: Vec<_> = shown
        .into_iter()
        .filter(|(_, _, rows)| !rows.is_empty())
        .collect();
    if filled.is_empty() {
        let place = if args.objects.all_namespaces {
            String::new()
        } else {
            format!(" in {} namespace", context.namespace)
        };
        eprintln!("No resources found{place}.");
    }
    for (index, (resource, headers, mut rows)) in filled.into_iter().enumerate() {
        if index > 0 {
            println!();
        }
        if several {
            rows.iter_mut()
                .filter_map(|row| row.first_mut())
                .for_each(|name| *name = resource.named(name));
        }
        output::table(if args.no_headers { &[] } else { &headers }, rows);
    }
    Ok(())
}

/// The namespace before, the labels behind, where asked.
fn add_columns(
    args: &Get,
    resource: &Resource,
    answer: &Value,
    headers: &mut Vec<String>,
    rows: &mut [Vec<String>],
) {
    let metadata = |index: usize| &answer["rows"][index]["object"]["metadata"];
    if args.objects.all_namespaces && resource.namespaced {
        headers.insert(0, "Namespace".to_owned());
        for (index, row) in rows.iter_mut().enumerate() {
            row.insert(
                0,
                metadata(index)["namespace"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned(),
            );
        }
    }
    if args.show_labels {
        headers.push("Labels".to_owned());
        for (index, row) in rows.iter_mut().enumerate() {
            row.push(labels(&metadata(index)["labels"]));
        }
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("")))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

/// Takes out who owns which fields: long, and seldom what one looks for.
fn hide_owners(args: &Get, object: &mut Value) {
    if !args.show_managed_fields
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.shift_remove("managedFields");
    }
}

async fn whole(context: &Context, asks: &[Ask], args: &Get, asked: &Asked) -> Result<()> {
    let mut items = Vec::new();
    for Ask {
        resource,
        first,
        base,
    } in asks
    {
        let mut next = first.clone();
        loop {
            let mut answer: Value = context.client.get(&next).await?;
            let Some(list) = answer["items"].as_array_mut().map(std::mem::take) else {
                items.push((resource.clone(), answer));
                break;
            };
            let with_types = |item| past::with_types(item, &answer["apiVersion"], &resource.kind);
            items.extend(
                list.into_iter()
                    .map(|item| (resource.clone(), with_types(item))),
            );
            match answer["metadata"]["continue"]
                .as_str()
                .filter(|token| !token.is_empty())
            {
                Some(token) => next = format!("{base}&continue={}", encode_segment(token)),
                None => break,
            }
        }
    }
    if args.output.output == Output::Name {
        for (resource, item) in &items {
            println!(
                "{}",
                resource.named(item["metadata"]["name"].as_str().unwrap_or(""))
            );
        }
        return Ok(());
    }
    for (_, item) in &mut items {
        hide_owners(args, item);
    }
    let single = matches!(asked, Asked::Objects(named) if named.len() == 1);
    let value = match items.pop() {
        Some((_, item)) if single => item,
        last => {
            let items: Vec<Value> = items
                .into_iter()
                .chain(last)
                .map(|(_, item)| item)
                .collect();
            json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
        }
    };
    if args.output.output == Output::Json {
        output::json(&value)
    } else {
        output::yaml(&value)
    }
}

async fn watch(context: &Context, args: &Get, asked: &Asked) -> Result<()> {
    let Asked::Collections(resources) = asked else {
        return watch_named(context, args, asked).await;
    };
    let [resource] = &resources[..] else {
        bail!("-w follows one type at a time")
    };
    watch_path(
        context,
        args,
        &collection_path(context, &args.objects, resource),
    )
    .await
}

async fn watch_named(context: &Context, args: &Get, asked: &Asked) -> Result<()> {
    let Asked::Objects(named) = asked else {
        return Ok(());
    };
    let [named] = &named[..] else {
        bail!("-w follows one object, or one type")
    };
    let collection = named.resource.collection(Some(&named.namespace));
    let field = encode_segment(&format!("metadata.name={}", named.name));
    watch_path(
        context,
        args,
        &format!("{collection}?fieldSelector={field}"),
    )
    .await
}

async fn watch_path(context: &Context, args: &Get, path: &str) -> Result<()> {
    if !matches!(args.output.output, Output::Table | Output::Wide) {
        let mut events = context.client.watch(&format!("{path}&watch=true")).await?;
        while let Some(event) = events.next().await {
            let mut object = event?.object;
            hide_owners(args, &mut object);
            if args.output.output == Output::Json {
                output::json(&object)?
            } else {
                output::yaml(&object)?
            }
        }
        return Ok(());
    }
    let wide = args.output.output == Output::Wide;
    let mut widths: Vec<usize> = Vec::new();
    let mut columns: Option<Value> = None;
    let mut events = context
        .client
        .watch_accepting(&format!("{path}&watch=true"), TABLE)
        .await?;
    while let Some(event) = events.next().await {
        let mut answer = event?.object;
        let first = columns.is_none();
        let known = columns.get_or_insert_with(|| answer["columnDefinitions"].clone());
        answer["columnDefinitions"] = known.clone();
        let (headers, rows) = output::server_table(&answer, wide);
        if first && !args.no_headers {
            print_row(
                &headers
                    .iter()
                    .map(|header| header.to_uppercase())
                    .collect::<Vec<_>>(),
                &mut widths,
            );
        }
        rows.iter().for_each(|row| print_row(row, &mut widths));
    }
    Ok(())
}

/// Rows come one by one, so that a column only ever grows.
fn print_row(cells: &[String], widths: &mut Vec<usize>) {
    widths.resize(cells.len().max(widths.len()), 0);
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths.iter_mut()) {
        *width = (*width).max(cell.chars().count());
        line.push_str(&format!("{cell:width$}   ", width = *width));
    }
    println!("{}", line.trim_end());
}
