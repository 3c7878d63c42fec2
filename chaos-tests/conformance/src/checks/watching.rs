//! Watches.

use super::check;
use crate::context::{Asked, Context, ensure, name, version};
use crate::run::Check;
use client::WatchKind::{Added, Deleted, Modified};
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]",
        observe
    ),
    check!(
        "[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]",
        from_version
    ),
    check!(
        "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]",
        restart
    ),
    check!(
        "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]",
        leaves_selector
    ),
    check!(
        "[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]",
        same_order
    ),
    check!(
        "[sig-api-machinery] API Streaming (aka. WatchList) should be requested by informers when WatchListClient is enabled",
        streaming_list
    ),
];

fn config_map(name: &str, label: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

fn mutation(number: usize) -> Value {
    json!({"data": {"mutation": number.to_string()}})
}

fn selecting(maps: &str, label: &str) -> String {
    format!("{maps}?labelSelector=watch-this-configmap%3D{label}")
}

async fn observe(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let mut a = context.watch(&selecting(&maps, "a")).await?;
    let mut b = context.watch(&selecting(&maps, "b")).await?;
    let both = format!("{maps}?labelSelector=watch-this-configmap%20in%20(a,b)");
    let mut both = context.watch(&both).await?;
    context.create(&maps, &config_map("one", "a")).await?;
    a.expect(Added, "one").await?;
    both.expect(Added, "one").await?;
    for number in 1..=2 {
        context
            .merge(&format!("{maps}/one"), &mutation(number))
            .await?;
        for events in [&mut a, &mut both] {
            let seen = events.expect(Modified, "one").await?;
            ensure!(
                seen["data"] == mutation(number)["data"],
                "change {number} came as {seen}"
            );
        }
    }
    context.delete(&format!("{maps}/one")).await?;
    a.expect(Deleted, "one").await?;
    both.expect(Deleted, "one").await?;
    context.create(&maps, &config_map("two", "b")).await?;
    b.expect(Added, "two").await?;
    both.expect(Added, "two").await?;
    context.delete(&format!("{maps}/two")).await?;
    b.expect(Deleted, "two").await?;
    both.expect(Deleted, "two").await?;
    a.silent().await?;
    b.silent().await
}

/// A watch from after `known` tells the second change and the deletion.
async fn goes_on_after(context: &Context, maps: &str, known: &Value) -> Asked<()> {
    let from = selecting(maps, "a");
    let from = format!("{from}&resourceVersion={}", version(known));
    let mut events = context.watch(&from).await?;
    let seen = events.expect(Modified, "one").await?;
    ensure!(
        seen["data"]["mutation"] == "2",
        "the second change is wanted: {seen}"
    );
    events.expect(Deleted, "one").await?;
    Ok(())
}

async fn from_version(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let path = format!("{maps}/one");
    context.create(&maps, &config_map("one", "a")).await?;
    let first = context.merge(&path, &mutation(1)).await?;
    context.merge(&path, &mutation(2)).await?;
    context.delete(&path).await?;
    goes_on_after(context, &maps, &first).await
}

async fn restart(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let path = format!("{maps}/one");
    let mut events = context.watch(&selecting(&maps, "a")).await?;
    context.create(&maps, &config_map("one", "a")).await?;
    context.merge(&path, &mutation(1)).await?;
    events.expect(Added, "one").await?;
    let last = events.expect(Modified, "one").await?;
    drop(events);
    context.merge(&path, &mutation(2)).await?;
    context.delete(&path).await?;
    goes_on_after(context, &maps, &last).await
}

async fn leaves_selector(context: &Context) -> Asked<()> {
    let maps = context.of("v1", "configmaps").await?;
    let path = format!("{maps}/one");
    let label = |value: &str| json!({"metadata": {"labels": {"watch-this-configmap": value}}});
    let mut events = context.watch(&selecting(&maps, "a")).await?;
    context.create(&maps, &config_map("one", "a")).await?;
    context.merge(&path, &mutation(1)).await?;
    context.merge(&path, &label("other")).await?;
    events.expect(Added, "one").await?;
    events.expect(Modified, "one").await?;
    events.expect(Deleted, "one").await?;
    context.merge(&path, &mutation(2)).await?;
    events.silent().await?;
    context.merge(&path, &label("a")).await?;
    events.expect(Added, "one").await?;
    let third = context.merge(&path, &mutation(3)).await?;
    let seen = events.expect(Modified, "one").await?;
    ensure!(
        version(&seen) == version(&third),
        "another version than the write's: {seen}"
    );
    context.delete(&path).await?;
    events.expect(Deleted, "one").await?;
    Ok(())
}

async fn same_order(context: &Context) -> Asked<()> {
    const WRITES: usize = 20;
    let maps = context.of("v1", "configmaps").await?;
    let from = format!(
        "{maps}?resourceVersion={}",
        version(&context.get(&maps).await?)
    );
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(context.watch(&from).await?);
    }
    for number in 0..WRITES {
        context
            .create(&maps, &config_map(&format!("m{number}"), "a"))
            .await?;
        context
            .merge(&format!("{maps}/m{number}"), &mutation(number))
            .await?;
        if number % 2 == 0 {
            context.delete(&format!("{maps}/m{number}")).await?;
        }
    }
    let mut orders: Vec<Vec<String>> = Vec::new();
    for events in &mut watches {
        let mut order = Vec::new();
        while order.len() < 2 * WRITES + WRITES / 2 {
            let event = events.next().await?;
            // What the cluster itself writes into a new namespace is no write of ours.
            if name(&event.object).starts_with('m') {
                order.push(format!(
                    "{:?} {} {}",
                    event.kind,
                    name(&event.object),
                    version(&event.object)
                ));
            }
        }
        orders.push(order);
    }
    ensure!(
        orders.windows(2).all(|pair| pair[0] == pair[1]),
        "the orders differ: {orders:?}"
    );
    Ok(())
}

async fn streaming_list(context: &Context) -> Asked<()> {
    use futures::StreamExt;
    let maps = context.of("v1", "configmaps").await?;
    for own in ["one", "two"] {
        context.create(&maps, &config_map(own, "a")).await?;
    }
    let path = format!(
        "{}&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
        selecting(&maps, "a")
    );
    let mut events = context.client().watch(&path).await?;
    let mut before = Vec::new();
    let question = async {
        while let Some(event) = events.next().await {
            let event = event?;
            let annotations = &event.object["metadata"]["annotations"];
            if annotations["k8s.io/initial-events-end"] == "true" {
                return Ok(());
            }
            before.push(name(&event.object).to_owned());
        }
        crate::context::wrong("the watch ended before its initial events did")
    };
    match tokio::time::timeout(crate::context::SOON, question).await {
        Ok(asked) => asked?,
        Err(_) => return crate::context::wrong("no bookmark ends the initial events"),
    }
    ensure!(
        before == ["one", "two"],
        "the initial events were of {before:?}"
    );
    Ok(())
}
