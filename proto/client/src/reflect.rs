//! A reflector: list, watch, and list again when the watch cannot go on, for ever. The shape is client-go's Reflector.
//!
//! It gives each consumer the whole set once, then changes; after a gap the whole set again, so that nothing is missed.

use crate::{Client, Error, WatchKind};
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
const PAGE: usize = 500;
/// Bookmarks come once a minute; with none for this long the connection is held to be dead.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// What a reflector tells.
#[derive(Clone, Debug)]
pub enum Reflected {
    /// The whole set; what it does not hold is gone.
    All(Vec<Value>),
    /// One change.
    Change(Change),
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Added or modified.
    Set(Value),
    /// Deleted; the last state.
    Removed(Value),
}

/// Follows a collection; `path` is its URL path with selectors in the query, if any. Ends when `sender` is closed.
pub async fn reflect(client: Client, path: String, sender: mpsc::Sender<Reflected>) {
    let mut retry = RETRY_FIRST;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            followed = follow(&client, &path, &sender, &mut retry) => match followed {
                Ok(()) => tracing::debug!(%path, "the watch ended; listing again"),
                Err(error) => tracing::warn!(%path, %error, "cannot follow; trying again"),
            },
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

async fn follow(
    client: &Client,
    path: &str,
    sender: &mpsc::Sender<Reflected>,
    retry: &mut Duration,
) -> Result<(), Error> {
    let (items, mut revision) = list(client, path).await?;
    *retry = RETRY_FIRST;
    if sender.send(Reflected::All(items)).await.is_err() {
        return Ok(());
    }
    loop {
        let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        let mut events = match client.watch(&with_query(path, &query)).await {
            Ok(events) => events,
            Err(error) if error.is_code(410) => return Ok(()),
            Err(error) => {
                tracing::debug!(%path, %error, "the watch broke; resuming");
                tokio::time::sleep(*retry).await;
                *retry = (*retry * 2).min(RETRY_MAX);
                continue;
            }
        };
        loop {
            let event = match tokio::time::timeout(SILENCE_MAX, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) if error.is_code(410) => return Ok(()),
                Ok(Some(Err(_)) | None) | Err(_) => break,
            };
            *retry = RETRY_FIRST;
            if let Some(seen) = event.object["metadata"]["resourceVersion"].as_str() {
                seen.clone_into(&mut revision);
            }
            let change = match event.kind {
                WatchKind::Added | WatchKind::Modified => Change::Set(event.object),
                WatchKind::Deleted => Change::Removed(event.object),
                WatchKind::Bookmark | WatchKind::Error => continue,
            };
            if sender.send(Reflected::Change(change)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// All items of a collection, page by page, and the revision of the list.
async fn list(client: &Client, path: &str) -> Result<(Vec<Value>, String), Error> {
    let mut items = Vec::new();
    let mut query = format!("limit={PAGE}");
    loop {
        let mut page: Value = client.get(&with_query(path, &query)).await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => {
                query = format!("limit={PAGE}&continue={}", crate::encode_segment(token))
            }
            _ => {
                return Ok((
                    items,
                    page["metadata"]["resourceVersion"]
                        .as_str()
                        .unwrap_or("0")
                        .to_owned(),
                ));
            }
        }
    }
}

fn with_query(path: &str, query: &str) -> String {
    format!(
        "{path}{}{query}",
        if path.contains('?') { '&' } else { '?' }
    )
}
