//! The Watch service: many watches on one stream.
//!
//! A stream has no task of its own: it is read by tonic as fast as its client takes what it is given, and reads its watches no
//! faster. So a slow client holds nothing but its own watches up, and these fall back to reading history (see `mvcc::Hub`).

mod answer;
mod session;

use crate::header::Headers;
use crate::leader::{Guarded, Hearing};
use crate::metrics::Telemetry;
use futures::StreamExt;
use futures::stream::BoxStream;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::watch_server::Watch;
use session::Session;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The Watch service of one member.
pub struct WatchService {
    pub store: RaftStore,
    pub headers: Headers,
    pub hearing: Hearing,
    pub telemetry: Arc<Telemetry>,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Guarded<BoxStream<'static, Result<pb::WatchResponse, Status>>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let (store, headers) = (self.store.clone(), self.headers.clone());
        let session = Session::new(store, headers, self.telemetry.watch_stream(), requests);
        let answers = session.answers(self.stop.clone()).boxed();
        Ok(Response::new(self.hearing.guard(&metadata, answers)))
    }
}
