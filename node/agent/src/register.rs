//! Puts the node's object into the API and keeps its status there: at each change, and every five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Client, Error, PatchKind};
use lifecycle::eviction::Pressure;
use node_runtime::Images;
use objects::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock;
use crate::node_object::{self, About, Health};

const LOOK_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Images that the status names.
const IMAGES_MAX: usize = 50;
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Registers the node and keeps its status, until `shutdown`. `not_ready` tells why no pods can run yet.
pub async fn keep(
    client: Client,
    about: About,
    images: Images,
    mut not_ready: watch::Receiver<Option<String>>,
    mut pressures: watch::Receiver<BTreeSet<Pressure>>,
) {
    let path = format!("/api/v1/nodes/{}", about.name);
    let mut reported: Option<(Health, tokio::time::Instant)> = None;
    let mut since: BTreeMap<String, (String, Timestamp)> = BTreeMap::new();
    loop {
        let images = images.clone();
        let images = tokio::task::spawn_blocking(move || told_images(&images)).await;
        let health = Health {
            not_ready: not_ready.borrow_and_update().clone(),
            pressures: pressures.borrow_and_update().clone(),
            images: images.unwrap_or_default(),
        };
        let due = reported
            .as_ref()
            .is_none_or(|(last, at)| *last != health || at.elapsed() >= REPORT_EVERY);
        let mut pause = LOOK_EVERY;
        if due {
            match report(
                &client,
                &path,
                &about,
                &health,
                &mut since,
                reported.is_none(),
            )
            .await
            {
                Ok(()) => reported = Some((health, tokio::time::Instant::now())),
                Err(error) => {
                    tracing::warn!(%error, "cannot report the node's status; trying again");
                    pause = RETRY_AFTER;
                    if error.is_code(404) {
                        reported = None;
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = not_ready.changed() => if changed.is_err() { return },
            changed = pressures.changed() => if changed.is_err() { return },
        }
    }
}

/// The largest images with all their names, as Kubernetes has them in a node's status.
fn told_images(images: &Images) -> Vec<(Vec<String>, u64)> {
    let mut by_id: BTreeMap<String, (Vec<String>, u64)> = BTreeMap::new();
    for image in images.list().unwrap_or_default() {
        let (names, bytes) = by_id.entry(image.id.clone()).or_default();
        *bytes = image.bytes;
        for name in [image.repo_digest(), image.reference.to_string()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut told: Vec<_> = by_id.into_values().collect();
    told.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    told.truncate(IMAGES_MAX);
    told
}

async fn report(
    client: &Client,
    path: &str,
    about: &About,
    health: &Health,
    since: &mut BTreeMap<String, (String, Timestamp)>,
    first: bool,
) -> Result<(), Error> {
    if first {
        register(client, path, about, since).await?;
    }
    let now = clock::now();
    let known = since.clone();
    let conditions = node_object::conditions(health, now, |kind, status| match known.get(kind) {
        Some((before, at)) if before == status => *at,
        _ => now,
    });
    remember(&conditions, since);
    let mut status = node_object::status(about, &health.images);
    status["conditions"] = conditions;
    client
        .patch::<Value>(
            &format!("{path}/status"),
            PatchKind::Strategic,
            &json!({ "status": status }),
        )
        .await?;
    Ok(())
}

async fn register(
    client: &Client,
    path: &str,
    about: &About,
    since: &mut BTreeMap<String, (String, Timestamp)>,
) -> Result<(), Error> {
    match client
        .post::<Value>("/api/v1/nodes", &node_object::object(about))
        .await
    {
        Ok(_) => tracing::info!(node = %about.name, "registered"),
        Err(error) if error.is_code(409) => {
            let present: Value = client
                .patch(path, PatchKind::Merge, &node_object::labels_patch(about))
                .await?;
            remember(&present["status"]["conditions"], since);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn remember(conditions: &Value, since: &mut BTreeMap<String, (String, Timestamp)>) {
    for condition in conditions.as_array().into_iter().flatten() {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        if let Some(at) = Timestamp::parse(&text("lastTransitionTime")) {
            since.insert(text("type"), (text("status"), at));
        }
    }
}
