//! `ctl describe`: an object as an outline, and the events about it.

use super::get;
use crate::cli::Describe;
use crate::context::{Asked, Context};
use crate::output;
use anyhow::Result;
use client::encode_segment;
use serde_json::Value;

/// Metadata that helps nobody who reads.
const HIDDEN: [&str; 2] = [
    "managedFields",
    "kubectl.kubernetes.io/last-applied-configuration",
];

pub async fn run(context: &Context, args: Describe) -> Result<()> {
    let mut objects: Vec<Value> = Vec::new();
    match context.asked(&args.objects.what).await? {
        Asked::Objects(named) => {
            for named in named {
                objects.push(context.client.get(&named.path()).await?);
            }
        }
        Asked::Collections(resources) => {
            for resource in resources {
                let path = get::collection_path(context, &args.objects, &resource);
                let mut list: Value = context.client.get(&path).await?;
                let mut items = list["items"]
                    .as_array_mut()
                    .map(std::mem::take)
                    .unwrap_or_default();
                items
                    .iter_mut()
                    .for_each(|item| item["kind"] = resource.kind.clone().into());
                objects.extend(items);
            }
        }
    }
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            println!("\n");
        }
        describe(context, object).await?;
    }
    Ok(())
}

async fn describe(context: &Context, object: &Value) -> Result<()> {
    let metadata = &object["metadata"];
    println!("{:<14}{}", "Name:", metadata["name"].as_str().unwrap_or(""));
    if let Some(namespace) = metadata["namespace"].as_str() {
        println!("{:<14}{namespace}", "Namespace:");
    }
    println!("{:<14}{}", "Kind:", object["kind"].as_str().unwrap_or(""));
    for (title, field) in [
        ("Created:", "creationTimestamp"),
        ("Deleted:", "deletionTimestamp"),
    ] {
        if let Some(time) = metadata[field].as_str() {
            println!("{title:<14}{time}");
        }
    }
    for (title, field) in [("Labels:", "labels"), ("Annotations:", "annotations")] {
        println!("{title:<14}{}", pairs(&metadata[field]));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or("").to_owned();
        println!("{:<14}{}/{}", "Owner:", text("kind"), text("name"));
    }
    for (field, value) in object.as_object().into_iter().flatten() {
        if !["kind", "apiVersion", "metadata"].contains(&field.as_str()) {
            outline(&title(field), &readable(object, field, value), 0);
        }
    }
    events(context, object).await
}

/// A Secret's values are not for the screen.
fn readable(object: &Value, field: &str, value: &Value) -> Value {
    if object["kind"] != "Secret" || field != "data" {
        return value.clone();
    }
    let sizes = value.as_object().into_iter().flatten().map(|(name, data)| {
        let bytes = data
            .as_str()
            .map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4);
        (name.clone(), Value::String(format!("{bytes} bytes")))
    });
    Value::Object(sizes.collect())
}

fn pairs(map: &Value) -> String {
    let shown: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !HIDDEN.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("")))
        .collect();
    if shown.is_empty() {
        "<none>".to_owned()
    } else {
        shown.join(&format!("\n{:14}", ""))
    }
}

/// `nodeName` reads `Node Name`.
fn title(field: &str) -> String {
    let mut text = String::new();
    for (index, letter) in field.chars().enumerate() {
        if index == 0 {
            text.extend(letter.to_uppercase());
        } else if letter.is_uppercase() && !text.ends_with(char::is_uppercase) {
            text.push(' ');
            text.push(letter);
        } else {
            text.push(letter);
        }
    }
    text
}

fn outline(title_text: &str, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if map.is_empty() => println!("{indent}{title_text}:  <none>"),
        Value::Object(map) => {
            println!("{indent}{title_text}:");
            map.iter()
                .for_each(|(field, value)| outline(&title(field), value, depth + 1));
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            println!("{indent}{title_text}:");
            for item in list {
                let name = item["name"]
                    .as_str()
                    .or_else(|| item["type"].as_str())
                    .unwrap_or("-");
                outline(name, item, depth + 1);
            }
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(scalar).collect();
            println!("{indent}{title_text}:  {}", items.join(", "));
        }
        other => println!("{indent}{title_text}:  {}", scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

async fn events(context: &Context, object: &Value) -> Result<()> {
    let resources = context.resources().await?;
    let Ok(events) = resources.one("events") else {
        return Ok(());
    };
    let metadata = &object["metadata"];
    let uid = metadata["uid"].as_str().unwrap_or("");
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let selector = encode_segment(&format!("involvedObject.uid={uid}"));
    let path = format!(
        "{}?fieldSelector={selector}",
        events.collection(Some(namespace))
    );
    let list: Value = context.client.get(&path).await?;
    let rows: Vec<Vec<String>> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(event_row)
        .collect();
    if rows.is_empty() {
        println!("Events:  <none>");
        return Ok(());
    }
    println!("Events:");
    output::table(
        &["  Last Seen", "Type", "Reason", "Count", "From", "Message"].map(str::to_owned),
        rows,
    );
    Ok(())
}

fn event_row(event: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    vec![
        format!("  {}", text(&event["lastTimestamp"])),
        text(&event["type"]),
        text(&event["reason"]),
        event["count"].to_string(),
        text(&event["source"]["component"]),
        text(&event["message"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_words() {
        assert_eq!(title("nodeName"), "Node Name");
        assert_eq!(title("podIP"), "Pod IP");
        assert_eq!(title("clusterIPs"), "Cluster IPs");
    }
}
