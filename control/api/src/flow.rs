//! How much is done at once: a bound on requests in flight and one on streams; beyond it 429, never a queue without end.
//!
//! Rule: apiserver's max-in-flight. A watch or tunnel holds a stream's place for its life, a request until it is answered.

use crate::ApiConfig;
use crate::auth::is_node;
use objects::{Reason, Status, StatusDetails};
use registry::Caller;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The server's places.
pub struct Flow {
    requests: Arc<Semaphore>,
    node_requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A place that is held; dropping it frees it.
pub type Place = OwnedSemaphorePermit;

impl Flow {
    /// As many places as the configuration says.
    pub fn new(config: &ApiConfig) -> Self {
        Flow {
            requests: Arc::new(Semaphore::new(config.requests_max)),
            node_requests: Arc::new(Semaphore::new(config.node_requests_max)),
            streams: Arc::new(Semaphore::new(config.streams_max)),
        }
    }

    /// A place for a request that will be answered soon; nodes have places of their own.
    pub fn request(&self, caller: Option<&Caller>) -> Result<Place, Status> {
        match caller {
            Some(caller) if is_node(caller) => take(&self.node_requests),
            _ => take(&self.requests),
        }
    }

    /// A place for a watch, a followed log, or a tunnel.
    pub fn stream(&self) -> Result<Place, Status> {
        take(&self.streams)
    }
}

fn take(places: &Arc<Semaphore>) -> Result<Place, Status> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let mut status = Status::failure(
            429,
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        );
        status.details = Some(StatusDetails {
            retry_after_seconds: Some(1),
            ..StatusDetails::default()
        });
        status
    })
}
