//! Serves a member's etcd API on a listener, until it is told to stop.

use crate::accept;
use crate::auth::AuthService;
use crate::cluster::{ClusterService, Urls};
use crate::front::{Fronting, HealthService};
use crate::header::Headers;
use crate::kv::KvService;
use crate::leader::Hearing;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::metrics::Numbers;
use crate::queue::{ElectionService, LockService};
use crate::watch::WatchService;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb::auth_server::AuthServer;
use rpc::etcd::etcdserverpb::cluster_server::ClusterServer;
use rpc::etcd::etcdserverpb::kv_server::KvServer;
use rpc::etcd::etcdserverpb::lease_server::LeaseServer;
use rpc::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use rpc::etcd::etcdserverpb::watch_server::WatchServer;
use rpc::etcd::v3electionpb::election_server::ElectionServer;
use rpc::etcd::v3lockpb::lock_server::LockServer;
use rpc::health::health_server::HealthServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
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

/// Serves the API of the store whose `numbers` these are to the clients that `tls` lets in, or to all in the clear, until `stop`;
/// then ends watches and streams, and lets requests finish. The ALPN of `tls` must offer `h2`, and `http/1.1` for plain HTTP.
pub async fn serve(
    numbers: Numbers,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (heard, hearing) = Hearing::new(numbers.store.clone());
    let hear = Hearing::keep(numbers.store.clone(), heard, stop.clone());
    let member = Member {
        headers: Headers::new(numbers.store.clone()),
        hearing,
        urls: Urls {
            is_tls: tls.is_some(),
            port: listener.local_addr()?.port(),
        },
        stop: stop.clone(),
        numbers: numbers.clone(),
    };
    let connections = accept::connections(listener, tls, numbers.telemetry.clone());
    let serving = tonic::transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(8 * WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_A_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER_MAX))
        .layer(Fronting(numbers))
        .add_routes(member.services())
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned());
    let (served, ()) = tokio::join!(serving, hear);
    Ok(served?)
}

/// What the services of a member need.
struct Member {
    numbers: Numbers,
    headers: Headers,
    hearing: Hearing,
    urls: Urls,
    stop: CancellationToken,
}

impl Member {
    fn services(&self) -> Routes {
        macro_rules! service {
            ($server:ident, $service:expr) => {
                InterceptedService::new(
                    $server::new($service)
                        .max_decoding_message_size(REQUEST_BYTES_MAX)
                        .max_encoding_message_size(usize::MAX),
                    self.hearing.clone(),
                )
            };
        }
        let health = HealthService {
            hearing: self.hearing.clone(),
            stop: self.stop.clone(),
        };
        let auth = AuthService {
            headers: self.headers.clone(),
        };
        Routes::new(service!(KvServer, self.kv()))
            .add_service(service!(WatchServer, self.watch()))
            .add_service(service!(LeaseServer, self.lease()))
            .add_service(service!(ClusterServer, self.cluster()))
            .add_service(service!(MaintenanceServer, self.maintenance()))
            .add_service(service!(AuthServer, auth))
            .add_service(service!(LockServer, self.lock()))
            .add_service(service!(ElectionServer, self.election()))
            .add_service(HealthServer::new(health))
            .prepare()
    }

    fn store(&self) -> RaftStore {
        self.numbers.store.clone()
    }

    fn kv(&self) -> KvService {
        KvService {
            store: self.store(),
            headers: self.headers.clone(),
        }
    }

    fn watch(&self) -> WatchService {
        WatchService {
            store: self.store(),
            headers: self.headers.clone(),
            hearing: self.hearing.clone(),
            telemetry: self.numbers.telemetry.clone(),
            stop: self.stop.clone(),
        }
    }

    fn lease(&self) -> LeaseService {
        LeaseService {
            store: self.store(),
            headers: self.headers.clone(),
            hearing: self.hearing.clone(),
            stop: self.stop.clone(),
        }
    }

    fn cluster(&self) -> ClusterService {
        ClusterService {
            store: self.store(),
            headers: self.headers.clone(),
            urls: self.urls,
        }
    }

    fn maintenance(&self) -> MaintenanceService {
        MaintenanceService {
            store: self.store(),
            headers: self.headers.clone(),
        }
    }

    fn lock(&self) -> LockService {
        LockService {
            store: self.store(),
            headers: self.headers.clone(),
            stop: self.stop.clone(),
        }
    }

    fn election(&self) -> ElectionService {
        ElectionService {
            store: self.store(),
            headers: self.headers.clone(),
            hearing: self.hearing.clone(),
            stop: self.stop.clone(),
        }
    }
}
