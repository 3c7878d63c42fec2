//! Serves a member's etcd API on a listener, until it is told to stop.

use crate::accept;
use crate::auth::AuthService;
use crate::cluster::{ClusterService, Urls};
use crate::header::Headers;
use crate::kv::KvService;
use crate::leader::Hearing;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::watch::WatchService;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb::auth_server::AuthServer;
use rpc::etcd::etcdserverpb::cluster_server::ClusterServer;
use rpc::etcd::etcdserverpb::kv_server::KvServer;
use rpc::etcd::etcdserverpb::lease_server::LeaseServer;
use rpc::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use rpc::etcd::etcdserverpb::watch_server::WatchServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;

/// A request may be larger than a transaction may hold, so that one which is too large is told so in etcd's words.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Requests and streams of one connection at once; more wait at the client.
const STREAMS_A_CONNECTION: u32 = 4096;
const WINDOW_BYTES: u32 = 1 << 20;
/// A client that is silent for so long is asked whether it is there,
const KEEPALIVE: Duration = Duration::from_secs(10);
/// and has so long to answer.
const KEEPALIVE_ANSWER_MAX: Duration = Duration::from_secs(20);

/// Why the API is served no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address.
    #[error("the port of etcd's API cannot be used")]
    Listener(#[from] std::io::Error),
    /// The server failed.
    #[error("etcd's API is served no longer")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the API of `store` to the clients that `tls` lets in, or to all in the clear, until `stop`; then ends watches and
/// streams, and lets requests finish. The ALPN of `tls` must offer `h2`.
pub async fn serve(
    store: RaftStore,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let urls = Urls {
        is_tls: tls.is_some(),
        port: listener.local_addr()?.port(),
    };
    let headers = Headers::new(store.clone());
    let (heard, hearing) = Hearing::new();
    let hear = Hearing::keep(store.clone(), heard, stop.clone());
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(8 * WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_A_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER_MAX));
    macro_rules! service {
        ($server:ident, $service:expr) => {
            InterceptedService::new(
                $server::new($service)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
                hearing.clone(),
            )
        };
    }
    let kv = KvService {
        store: store.clone(),
        headers: headers.clone(),
    };
    let watch = WatchService {
        store: store.clone(),
        headers: headers.clone(),
        hearing: hearing.clone(),
        stop: stop.clone(),
    };
    let lease = LeaseService {
        store: store.clone(),
        headers: headers.clone(),
        hearing: hearing.clone(),
        stop: stop.clone(),
    };
    let cluster = ClusterService {
        store: store.clone(),
        headers: headers.clone(),
        urls,
    };
    let maintenance = MaintenanceService {
        store,
        headers: headers.clone(),
    };
    let mut server = server;
    let serving = server
        .add_service(service!(KvServer, kv))
        .add_service(service!(WatchServer, watch))
        .add_service(service!(LeaseServer, lease))
        .add_service(service!(ClusterServer, cluster))
        .add_service(service!(MaintenanceServer, maintenance))
        .add_service(service!(AuthServer, AuthService { headers }))
        .serve_with_incoming_shutdown(
            accept::connections(listener, tls),
            stop.clone().cancelled_owned(),
        );
    let (served, ()) = tokio::join!(serving, hear);
    Ok(served?)
}
