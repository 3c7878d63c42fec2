//! What the clients write and ask: the same to both sides, and the same at every run.

use crate::load::Work;
use crate::wire;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Each client writes so many keys again and again.
const KEYS_A_CLIENT: u64 = 1000;
/// Values are cut from so many bytes.
const CONTENT_BYTES: usize = 1 << 20;

/// What values consist of.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Pieces of JSON objects as an API server writes them: names, ids and times differ, the rest is alike.
    Objects,
    /// Bytes that nothing compresses.
    Noise,
}

impl Content {
    /// The bytes from which values are cut.
    pub fn bytes(self) -> Bytes {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut bytes = Vec::with_capacity(CONTENT_BYTES + 1024);
        while bytes.len() < CONTENT_BYTES {
            match self {
                Content::Noise => bytes.extend_from_slice(&numbers.next().to_le_bytes()),
                Content::Objects => bytes.extend_from_slice(object(&mut numbers).as_bytes()),
            }
        }
        bytes.truncate(CONTENT_BYTES);
        bytes.into()
    }
}

/// An xorshift.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn object(numbers: &mut Numbers) -> String {
    let (name, uid, low) = (numbers.next(), numbers.next(), numbers.next());
    let (second, count) = (numbers.next() % 86_400, numbers.next() % 100_000);
    let time = format!(
        "2026-11-28T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-{name:010x}","namespace":"shop-{}","uid":"{uid:016x}-{low:016x}","creationTimestamp":"{time}","labels":{{"app":"web","pod-template-hash":"{:08x}"}}}},"spec":{{"nodeName":"node-{}","containers":[{{"name":"main","image":"registry.local/web:{count}"}}]}},"status":{{"phase":"Running","podIP":"10.{}.{}.{}","startTime":"{time}"}}}}"#,
        name % 20,
        low as u32,
        uid % 300,
        uid >> 8 & 255,
        uid >> 16 & 255,
        uid >> 24 & 255,
    )
}

/// The requests of a client, one after the other.
pub struct Requests {
    bytes: Bytes,
    work: Work,
    value_bytes: usize,
}

impl Requests {
    pub fn new(work: Work, content: Content, value_bytes: usize) -> Self {
        Requests {
            bytes: content.bytes(),
            work,
            value_bytes,
        }
    }

    pub fn key(client: usize, number: u64) -> Bytes {
        format!("/registry/bench/{client:04}/{:04}", number % KEYS_A_CLIENT).into()
    }

    pub fn value(&self, client: usize, number: u64) -> Bytes {
        // Any step that shares no factor with the length visits many places before it comes back.
        let places = self.bytes.len() - self.value_bytes;
        let at = (client as u64 * 7919 + number * 4099) as usize % places;
        self.bytes.slice(at..at + self.value_bytes)
    }

    /// The message of a client's request.
    pub fn message(&self, client: usize, number: u64) -> Vec<u8> {
        let key = Requests::key(client, number);
        match self.work {
            Work::Put => wire::put(key, self.value(client, number)),
            Work::Get => wire::get(key),
        }
    }
}
