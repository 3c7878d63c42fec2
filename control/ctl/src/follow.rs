//! Following one object until it is as somebody waits for it: read once, then watched, so that the answer comes at once and
//! nothing is asked in vain.

use crate::context::{Context, Named};
use anyhow::Result;
use client::{WatchKind, encode_segment};
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two tries when the watch breaks.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows the object's state, None when it is gone, to `look` at every change until that gives an answer. None when `until`
/// comes first.
pub async fn follow<T>(
    context: &Context,
    named: &Named,
    until: Instant,
    mut look: impl FnMut(Option<&Value>) -> Option<T>,
) -> Result<Option<T>> {
    while Instant::now() < until {
        let object: Option<Value> = match context.client.get(&named.path()).await {
            Ok(object) => Some(object),
            Err(error) if error.is_code(404) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(answer) = look(object.as_ref()) {
            return Ok(Some(answer));
        }
        let revision = object
            .as_ref()
            .and_then(|object| object["metadata"]["resourceVersion"].as_str())
            .unwrap_or("");
        if let Ok(Some(answer)) =
            timeout_at(until, watch(context, named, revision, &mut look)).await
        {
            return Ok(Some(answer));
        }
        sleep(PAUSE).await;
    }
    Ok(None)
}

/// Watches until `look` has an answer; None when the watch ends before.
async fn watch<T>(
    context: &Context,
    named: &Named,
    revision: &str,
    look: &mut impl FnMut(Option<&Value>) -> Option<T>,
) -> Option<T> {
    let collection = named.resource.collection(Some(&named.namespace));
    let field = encode_segment(&format!("metadata.name={}", named.name));
    let path = format!("{collection}?watch=true&fieldSelector={field}&resourceVersion={revision}");
    let mut events = context.client.watch(&path).await.ok()?;
    while let Some(Ok(event)) = events.next().await {
        let state = match event.kind {
            WatchKind::Added | WatchKind::Modified => Some(&event.object),
            WatchKind::Deleted => None,
            WatchKind::Bookmark | WatchKind::Error => continue,
        };
        if let Some(answer) = look(state) {
            return Some(answer);
        }
    }
    None
}
