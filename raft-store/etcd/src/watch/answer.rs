//! What a stream of watches answers: one message an event batch, or several where a client takes fragments.

use crate::to_proto;
use mvcc::{Event, WatchBatch};
use prost::Message;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::watch_create_request::FilterType;
use rpc::etcd::mvccpb;

/// A watch's id on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(pub i64);

/// The id of answers that concern no one watch.
pub const NO_WATCH: WatchId = WatchId(-1);

/// Where a message to a client that takes fragments is cut: the size of etcd's largest request and its overhead.
const FRAGMENT_BYTES: usize = 2 << 20;
/// What an event costs in a message beside its own bytes.
const EVENT_OVERHEAD: usize = 8;

/// What a client wants to be told, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    pub prev_kv: bool,
    pub progress: bool,
    pub fragment: bool,
    pub without_puts: bool,
    pub without_deletes: bool,
}

impl Wishes {
    pub fn of(request: &pb::WatchCreateRequest) -> Self {
        let is_filtered = |filter: FilterType| request.filters.contains(&filter.into());
        Wishes {
            prev_kv: request.prev_kv,
            progress: request.progress_notify,
            fragment: request.fragment,
            without_puts: is_filtered(FilterType::Noput),
            without_deletes: is_filtered(FilterType::Nodelete),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Put { .. } => !self.without_puts,
            Event::Delete { .. } => !self.without_deletes,
        }
    }

    /// The events of a batch that the client wants to be told.
    pub fn events(&self, batch: &WatchBatch) -> Vec<mvccpb::Event> {
        let wanted = batch.events.iter().filter(|event| self.wants(event));
        wanted
            .map(|event| to_proto::event(event, self.prev_kv))
            .collect()
    }
}

/// The events in one message, or in as many as their size asks for; all but the last say that more follow.
pub fn messages(
    header: Option<pb::ResponseHeader>,
    id: WatchId,
    events: Vec<mvccpb::Event>,
    fragment: bool,
) -> Vec<pb::WatchResponse> {
    let whole = |events: Vec<mvccpb::Event>| pb::WatchResponse {
        header,
        watch_id: id.0,
        events,
        ..pb::WatchResponse::default()
    };
    if !fragment {
        return vec![whole(events)];
    }
    let mut messages = vec![];
    let (mut part, mut bytes) = (vec![], 0);
    for event in events {
        let size = event.encoded_len() + EVENT_OVERHEAD;
        if !part.is_empty() && bytes + size > FRAGMENT_BYTES {
            messages.push(pb::WatchResponse {
                fragment: true,
                ..whole(std::mem::take(&mut part))
            });
            bytes = 0;
        }
        bytes += size;
        part.push(event);
    }
    messages.push(whole(part));
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> mvccpb::Event {
        mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                value: vec![0; bytes].into(),
                ..mvccpb::KeyValue::default()
            }),
            ..mvccpb::Event::default()
        }
    }

    #[test]
    fn fragments_are_whole_and_in_order() {
        let events: Vec<_> = [100, FRAGMENT_BYTES / 2, FRAGMENT_BYTES, 1, 2]
            .map(event)
            .into();
        let one = messages(None, WatchId(3), events.clone(), false);
        assert_eq!((one.len(), one[0].fragment), (1, false));
        let parts = messages(None, WatchId(3), events.clone(), true);
        let more: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(more, [true, true, false]);
        let together: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(together, events);
    }
}
