//! Counts the calls of etcd's clients as gRPC's servers do: how many began, and with which code they ended.

use http::HeaderMap;
use rpc::{METHODS, Method};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::Code;

/// The packages of the services that are counted.
const PACKAGES: [&str; 4] = [
    "etcdserverpb.",
    "v3lockpb.",
    "v3electionpb.",
    "grpc.health.v1.",
];

/// gRPC's codes, in the order of their numbers.
pub const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

/// The counts of all methods.
#[derive(Debug)]
pub struct Calls {
    by_path: HashMap<String, Arc<Counts>>,
}

/// The counts of one method.
#[derive(Debug)]
pub struct Counts {
    pub method: Method,
    started: AtomicU64,
    ended: [AtomicU64; CODES.len()],
}

/// A call that began; ends as cancelled when it is dropped before its end was told.
#[derive(Debug)]
pub struct Call(Option<Arc<Counts>>);

impl Default for Calls {
    fn default() -> Self {
        let counted = METHODS.iter().filter(|method| {
            let mut packages = PACKAGES.iter();
            packages.any(|package| method.service.starts_with(package))
        });
        let by_path = counted.map(|method| {
            let counts = Counts {
                method: *method,
                started: AtomicU64::new(0),
                ended: Default::default(),
            };
            let path = format!("/{}/{}", method.service, method.name);
            (path, Arc::new(counts))
        });
        Calls {
            by_path: by_path.collect(),
        }
    }
}

impl Calls {
    /// A call of the method at `path` begins; one that is not known is not counted.
    pub fn begin(&self, path: &str) -> Call {
        let counts = self.by_path.get(path).cloned();
        if let Some(counts) = &counts {
            counts.started.fetch_add(1, Ordering::Relaxed);
        }
        Call(counts)
    }

    /// The counts of each method, by service and name.
    pub fn all(&self) -> Vec<&Counts> {
        let mut all: Vec<&Counts> = self.by_path.values().map(|counts| &**counts).collect();
        all.sort_by_key(|counts| (counts.method.service, counts.method.name));
        all
    }
}

impl Counts {
    /// How many calls began.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// How many ended with each code.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let codes = CODES.iter().zip(&self.ended);
        codes.map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
    }
}

impl Call {
    /// Ends it as its trailers, or the head of an answer without a body, say; they may say nothing of it.
    pub fn ends_as(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.end(Code::from_bytes(status.as_bytes()));
        }
    }

    /// Ends it.
    pub fn end(&mut self, code: Code) {
        if let Some(counts) = self.0.take() {
            counts.ended[code as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_at_their_numbers() {
        for (number, (code, _)) in CODES.iter().enumerate() {
            assert_eq!(*code as usize, number);
        }
    }

    #[test]
    fn a_call_ends_once() {
        let calls = Calls::default();
        let put = "/etcdserverpb.KV/Put";
        calls.begin(put).end(Code::Ok);
        drop(calls.begin(put));
        let mut refused = calls.begin(put);
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("11"),
        )]);
        refused.ends_as(&headers);
        drop(refused);
        drop(calls.begin("/etcdserverpb.KV/Nothing"));
        let counts = &calls.by_path[put];
        let ended: Vec<(&str, u64)> = counts.ended().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts.started(), 3);
        assert_eq!(ended, [("OK", 1), ("Canceled", 1), ("OutOfRange", 1)]);
    }
}
