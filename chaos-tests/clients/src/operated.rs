//! What the operators of the tests have to do: for each ConfigMap with the label `operator=NAME` to keep another, `…-made`, with the
//! data in capitals, while the leader is lost.

use crate::Rig;
use anyhow::{Result, ensure};
use client::{Client, Error, PatchKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What operators have to do is done within this time, the loss of a master included.
const CONVERGED: Duration = Duration::from_secs(90);
const WRITES: usize = 30;

/// Writes before, while and after the leader is lost; the operator must come to the end of all of it.
pub async fn survive(rig: &mut Rig, operator: &str) -> Result<()> {
    let client = rig.client()?;
    let namespace = format!("operated-by-{operator}");
    let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
    client.post::<Value>("/api/v1/namespaces", &object).await?;
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    write(&client, &maps, operator, 0..WRITES / 3).await?;
    converge(&client, &maps, WRITES / 3).await?;
    let begun = Instant::now();
    let (lost, written) = tokio::join!(
        rig.lose_the_leader(),
        write(&client, &maps, operator, WRITES / 3..2 * WRITES / 3)
    );
    lost?;
    written?;
    change(&client, &maps).await?;
    write(&client, &maps, operator, 2 * WRITES / 3..WRITES).await?;
    converge(&client, &maps, WRITES).await?;
    println!(
        "{operator}: all done {:.1} s after the kill",
        begun.elapsed().as_secs_f64()
    );
    rig.cluster.wait_until_whole().await
}

async fn write(
    client: &Client,
    maps: &str,
    operator: &str,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    for number in numbers {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": format!("m{number}"), "labels": {"operator": operator}}, "data": {"word": format!("word {number}")}});
        surely(|| client.post::<Value>(maps, &object)).await?;
    }
    Ok(())
}

async fn change(client: &Client, maps: &str) -> Result<()> {
    let path = format!("{maps}/m0");
    let patch = json!({"data": {"word": "changed"}});
    surely(|| client.patch::<Value>(&path, PatchKind::Merge, &patch)).await
}

/// As any careful client: what may or may not have happened is done again, and what is there already is done.
async fn surely<F: Future<Output = Result<Value, Error>>>(ask: impl Fn() -> F) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_code(409) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Waits until the operator has made what belongs to each of so many.
async fn converge(client: &Client, maps: &str, count: usize) -> Result<()> {
    let end = Instant::now() + CONVERGED;
    loop {
        let missing = match client.get::<Value>(maps).await {
            Ok(list) => missing(&list, count),
            Err(error) => vec![error.to_string()],
        };
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the operator left undone: {missing:?}"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

fn missing(list: &Value, count: usize) -> Vec<String> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let words: BTreeMap<&str, &str> = items
        .iter()
        .filter_map(|it| {
            Some((
                it["metadata"]["name"].as_str()?,
                it["data"]["word"].as_str()?,
            ))
        })
        .collect();
    let is_made = |name: &String| {
        let word = words.get(name.as_str()).map(|word| word.to_uppercase());
        word.is_some()
            && words
                .get(format!("{name}-made").as_str())
                .map(|it| (*it).to_owned())
                == word
    };
    let names = (0..count).map(|number| format!("m{number}"));
    names.filter(|name| !is_made(name)).collect()
}
