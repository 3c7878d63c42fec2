//! Connections: accept, handshake, serve, drain. Knows nothing of Kubernetes.
//!
//! Bounds: connections at once (further ones wait in the kernel's queue), the handshake's time, the time in which a
//! client must send its next request and take its answer ([`crate::pace`]), silence on HTTP/2 (pings) and on TCP (keep-alive).

use crate::ApiServer;
use crate::auth::Peer;
use crate::pace::{Limits, Pace, Verdict};
use crate::tls::ServerTls;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const NEXT_REQUEST_DEADLINE: Duration = Duration::from_secs(90);
/// How often it is looked whether a client keeps up.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(15);
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
const FOLLOW_RETRY_DELAY: Duration = Duration::from_millis(200);
const H2_STREAMS_MAX: u32 = 250;
/// What may wait for one slow client, a connection of HTTP/1.1 or a stream of HTTP/2.
const SEND_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Selectors and commands travel in the path.
const HEADER_BYTES_MAX: u32 = 128 * 1024;
/// How long bytes may stay unacknowledged before a connection counts as dead.
const UNACKNOWLEDGED_MS_MAX: u32 = 60_000;

/// Serves until `shutdown` is cancelled, then lets requests in flight finish for at most the configured time.
///
/// Watches end at once with a bookmark, so that their clients go to another master.
pub async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    server: ApiServer,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(server.config().connections_max));
    let connections = TaskTracker::new();
    let kill = CancellationToken::new();
    connections.spawn(server.clone().follow(shutdown.clone()));
    let follower = tokio::spawn(follow(server.clone(), shutdown.clone()));
    while let Some((tcp, address, slot)) = next(&listener, &slots, &shutdown).await {
        let connection = Connection {
            server: server.clone(),
            shutdown: shutdown.clone(),
        };
        let (tls, kill) = (tls.current(), kill.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection.serve(tcp, address, TlsAcceptor::from(tls)) => (),
                () = kill.cancelled() => (),
            }
            drop(slot);
        });
    }
    drop(listener);
    server.drain();
    follower.abort();
    connections.close();
    info!(connections = connections.len(), "API server drains");
    if tokio::time::timeout(server.config().drain_deadline, connections.wait())
        .await
        .is_err()
    {
        warn!(
            connections = connections.len(),
            "connections did not end in time and are cut"
        );
        kill.cancel();
        connections.wait().await;
    }
}

/// Keeps the table of kinds as the definitions of custom ones say, and the admission policies; begins anew when the store's events
/// were lost.
async fn follow(server: ApiServer, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            ended = server.pipeline().follow_definitions() => {
                warn!(reason = %ended.message, "the definitions of custom kinds are read anew");
            }
            ended = server.pipeline().follow_policies() => {
                warn!(reason = %ended.message, "the admission policies are read anew");
            }
            () = shutdown.cancelled() => return,
        }
        tokio::time::sleep(FOLLOW_RETRY_DELAY).await;
    }
}

/// The next connection with its slot; None at shutdown.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let accept = async {
        let slot = Arc::clone(slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => return (tcp, address, slot),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => Some(accepted),
        () = shutdown.cancelled() => None,
    }
}

struct Connection {
    server: ApiServer,
    shutdown: CancellationToken,
}

impl Connection {
    async fn serve(self, tcp: TcpStream, address: SocketAddr, acceptor: TlsAcceptor) {
        if let Err(error) = tcp.set_nodelay(true).and_then(|()| keep_alive(&tcp)) {
            debug!(%address, %error, "cannot set the connection's options");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%address, %error, "TLS handshake failed"),
            Err(_) => return debug!(%address, "TLS handshake took too long"),
        };
        if let Err(error) = self.http(stream, address).await {
            debug!(%address, %error, "connection ended");
        }
    }

    async fn http(
        self,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
    ) -> Result<(), hyper::Error> {
        let session = stream.get_ref().1;
        let peer = Arc::new(Peer::new(address, session.peer_certificates()));
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        let Connection { server, shutdown } = self;
        let limits = server.config().client_limits;
        let finish = shutdown.child_token();
        let pace = Pace::begin();
        let requests = pace.clone();
        let service = service_fn(move |request| {
            let (server, peer) = (server.clone(), Arc::clone(&peer));
            let in_flight = requests.request();
            async move { server.answer(request, &peer, in_flight).await }
        });
        let io = TokioIo::new(stream);
        if is_h2 {
            let connection = h2_builder().serve_connection(io, service);
            let driven = drive(connection, |it| it.graceful_shutdown(), &finish);
            kept_up(driven, &pace, &limits, &finish).await
        } else {
            let connection = h1_builder().serve_connection(io, service).with_upgrades();
            let driven = drive(connection, |it| it.graceful_shutdown(), &finish);
            kept_up(driven, &pace, &limits, &finish).await
        }
    }
}

fn h1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST_DEADLINE)
        .max_buf_size(SEND_BUFFER_BYTES_MAX);
    builder
}

fn h2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE);
    builder
}

/// Runs a connection to its end. One whose client asks nothing is told to finish; one whose client does not keep up is cut.
async fn kept_up(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    pace: &Pace,
    limits: &Limits,
    finish: &CancellationToken,
) -> Result<(), hyper::Error> {
    let mut connection = std::pin::pin!(connection);
    loop {
        let ended = tokio::time::timeout(LOOK_EVERY.min(limits.piece), connection.as_mut());
        match (ended.await, pace.verdict(limits, Instant::now())) {
            (Ok(ended), _) => return ended,
            (Err(_), Verdict::Fine) => {}
            (Err(_), Verdict::Idle) if !finish.is_cancelled() => finish.cancel(),
            (Err(_), verdict) => {
                debug!(?verdict, "a connection is cut");
                return Ok(());
            }
        }
    }
}

/// Runs a connection to its end; at shutdown it takes no further request.
async fn drive<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    shutdown: &CancellationToken,
) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        output = connection.as_mut() => return output,
        () = shutdown.cancelled() => (),
    }
    finish(connection.as_mut());
    connection.await
}

/// Lets the kernel find out that the other side is gone.
pub(crate) fn keep_alive(tcp: &TcpStream) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, PING_INTERVAL)?;
    sockopt::set_tcp_keepintvl(tcp, PING_DEADLINE)?;
    sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}
