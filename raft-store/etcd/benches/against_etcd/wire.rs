//! The calls of etcd's v3 API that the comparison makes, as bytes.

use anyhow::Result;
use bytes::Bytes;
use prost::Message;
pub use rpc::etcd::etcdserverpb::{
    CompactionRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, StatusResponse,
    WatchResponse,
};
use rpc::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";

pub fn put(key: Bytes, value: Bytes) -> Vec<u8> {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
    .encode_to_vec()
}

pub fn get(key: Bytes) -> Vec<u8> {
    RangeRequest {
        key,
        ..RangeRequest::default()
    }
    .encode_to_vec()
}

/// All keys that begin with `prefix`, which must not end with a byte of 255.
pub fn get_all(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    RangeRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: end.into(),
        ..RangeRequest::default()
    }
    .encode_to_vec()
}

/// Forgets what was before a revision.
pub fn compact(revision: i64) -> Vec<u8> {
    CompactionRequest {
        revision,
        ..CompactionRequest::default()
    }
    .encode_to_vec()
}

/// Begins to watch a key.
pub fn watch(key: &'static str) -> Vec<u8> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    }
    .encode_to_vec()
}

/// Reads an answer.
pub fn read<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    Ok(M::decode(bytes)?)
}
