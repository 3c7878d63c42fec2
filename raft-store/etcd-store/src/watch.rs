//! Watches: each is a stream of its own, which etcd holds up when its reader is slow.

use crate::{from_etcd, to_etcd};
use futures::{StreamExt, stream};
use mvcc::{Event, StoreError, WatchBatch, WatchRequest, WatchStream};
use objects::Revision;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Begins a watch; it runs when this returns.
pub async fn watch(
    mut client: WatchClient<Channel>,
    request: WatchRequest,
) -> Result<WatchStream, StoreError> {
    let start = request.start;
    // The watch ends with the stream of requests, so the sender goes along with the answers.
    let (requests, asked) = mpsc::channel(1);
    let lost = || StoreError::Unavailable("the watch ended before it began".to_owned());
    requests
        .send(to_etcd::watch(request))
        .await
        .map_err(|_| lost())?;
    let answers = client.watch(ReceiverStream::new(asked)).await;
    let mut answers = answers
        .map_err(|status| from_etcd::error(&status, start, start))?
        .into_inner();
    let first = answers.message().await;
    let first = first
        .map_err(|status| from_etcd::error(&status, start, start))?
        .ok_or_else(lost)?;
    if let Some(error) = ended(&first, start) {
        return Err(error);
    }
    Ok(batches(requests, answers, start))
}

fn batches(
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    start: Revision,
) -> WatchStream {
    let state = Some((requests, answers));
    stream::unfold(state, move |state| async move {
        let (requests, mut answers) = state?;
        Some(match next(&mut answers, start).await {
            Ok(batch) => (Ok(batch), Some((requests, answers))),
            Err(error) => (Err(error), None),
        })
    })
    .boxed()
}

async fn next(
    answers: &mut Streaming<pb::WatchResponse>,
    start: Revision,
) -> Result<WatchBatch, StoreError> {
    let answer = answers
        .message()
        .await
        .map_err(|status| from_etcd::error(&status, start, start))?
        .ok_or_else(|| StoreError::Unavailable("etcd ended the watch".to_owned()))?;
    if let Some(error) = ended(&answer, start) {
        return Err(error);
    }
    let told = from_etcd::told(answer.header.as_ref());
    let events: Vec<Arc<Event>> = answer
        .events
        .into_iter()
        .filter_map(from_etcd::event)
        .map(Arc::new)
        .collect();
    // With changes, the header may be of a later revision than what was told; without, it says how far the watch is.
    let revision = events.last().map_or(told, |event| event.revision());
    Ok(WatchBatch { revision, events })
}

/// Why etcd ends the watch, if it does.
fn ended(answer: &pb::WatchResponse, start: Revision) -> Option<StoreError> {
    if !answer.canceled {
        return None;
    }
    Some(match answer.compact_revision {
        0 => StoreError::Unavailable(format!("etcd ended the watch: {}", answer.cancel_reason)),
        oldest => StoreError::Compacted {
            requested: start,
            oldest: from_etcd::revision(oldest),
        },
    })
}
